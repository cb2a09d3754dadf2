"""What a project writes. Everything else about training is written once, in `trainer`."""

from pathlib import Path
from typing import Any

import torch

from runner.contract.errors import RunnerError
from runner.training.data import Batch
from runner.training.settings import Settings
from runner.training.transfer import to_device

REQUIRED = (
    "create_data",
    "create_model",
    "create_loss",
    "create_optimiser",
    "create_metrics",
    "forward_model",
    "forward_loss",
    "visualise",
)


class Hooks:
    """The methods that a project implements, and those that it may."""

    config: Any
    settings: Settings
    device: torch.device
    global_step: int
    """The optimiser step under way, counted from 1."""

    train_dataset: Any = None
    val_dataset: Any = None
    test_dataset: Any = None
    train_dataloader: Any = None
    val_dataloader: Any = None
    test_dataloader: Any = None
    model: Any = None
    loss_fn: Any = None
    optimiser: Any = None
    scheduler: Any = None
    train_metrics: Any = None
    val_metrics: Any = None
    test_metrics: Any = None

    def create_data(self) -> None:
        """Set self.train_dataset, val_dataset, train_dataloader, val_dataloader; test_dataloader if there is a test set."""

    def create_model(self) -> None:
        """Set self.model; it is moved to the device after."""

    def create_loss(self) -> None:
        """Set self.loss_fn."""

    def create_optimiser(self) -> None:
        """Set self.optimiser; the model is on the device already."""

    def create_metrics(self) -> None:
        """Set self.train_metrics and self.val_metrics; the test set uses val_metrics unless there are test_metrics."""

    def forward_model(self, batch: Batch) -> Any:
        """The model's output for a batch."""

    def forward_loss(self, batch: Batch, output: Any) -> Any:
        """The loss: the mean over the batch's examples, a tensor without dimensions."""

    def visualise(self, batch: Batch, output: Any, mode: str) -> None:
        """Show a batch, on self.tensorboard for instance; mode is 'train' or 'val'."""

    def create_scheduler(self) -> None:
        """Optional: set self.scheduler, any of torch's."""

    def preprocess_batch(self, batch: Batch) -> Batch:
        """Optional: the batch on the device. Extend it to work on whole batches there."""
        if self.device.type == "cpu" and not self.settings.channels_last:
            return batch
        return to_device(batch, self.device, channels_last=self.settings.channels_last)

    def update_metrics(self, metrics: Any, batch: Batch, output: Any) -> None:
        """Optional: count a batch in a metrics object; by default `metrics.update(output, batch['label'])`."""
        metrics.update(output, batch["label"])

    def predict(self, batch: Batch, output: Any) -> dict[str, Any]:
        """Optional: what an evaluation keeps of a batch: tensors, arrays or lists by name, one row an example."""
        label = {"label": batch["label"]} if isinstance(batch, dict) and "label" in batch else {}
        return {"output": output, **label}

    def write_evaluation(
        self, predictions: dict[str, Any], scores: dict[str, float], split: str, output_dir: Path
    ) -> None:
        """Optional: what an evaluation leaves besides metrics.json; by default predictions.npz and predictions.csv."""
        from runner.training.evaluation import write_predictions

        write_predictions(predictions, output_dir)


def check_written(project: Hooks, base: type) -> None:
    """Refuse a project that lacks a required method.

    Raises:
        RunnerError: names all that are missing.
    """
    missing = [name for name in REQUIRED if getattr(type(project), name) is getattr(base, name)]
    if missing:
        raise RunnerError(f"{type(project).__name__} lacks {', '.join(missing)}; every Trainer writes these itself")


def check_set(project: Hooks, hook: str, *names: str) -> None:
    """Refuse a hook that did not set what it is there for.

    Raises:
        RunnerError: names what is unset.
    """
    unset = [f"self.{name}" for name in names if getattr(project, name) is None]
    if unset:
        raise RunnerError(f"{type(project).__name__}.{hook} must set {', '.join(unset)}")
