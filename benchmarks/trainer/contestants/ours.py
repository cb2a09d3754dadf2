"""Our Trainer as it is by default: log blocks, metrics.jsonl, tensorboard, validation and checkpoint after every epoch."""

from collections.abc import Callable
from typing import Any

from task import BATCH, Examples, Task
from torch import nn
from torch.utils.data import DataLoader

from runner.training import AccuracyMetrics, Trainer


def build(task: Task, dataset: Any = None, **config: Any) -> Callable[[int], None]:
    """A fit of n steps; each makes a session of its own."""
    examples = dataset if dataset is not None else Examples(task.x, task.label)
    few = Examples(task.x[:BATCH], task.label[:BATCH])

    class Mine(Trainer):
        def create_data(self) -> None:
            self.train_dataset, self.val_dataset = examples, few
            self.train_dataloader = task.loader(examples)
            self.val_dataloader = DataLoader(few, batch_size=BATCH)

        def create_model(self) -> None:
            self.model = task.model

        def create_loss(self) -> None:
            self.loss_fn = nn.CrossEntropyLoss()

        def create_optimiser(self) -> None:
            self.optimiser = task.optimiser()

        def create_metrics(self) -> None:
            self.train_metrics, self.val_metrics = AccuracyMetrics(), AccuracyMetrics()

        def forward_model(self, batch: Any) -> Any:
            return self.model(batch["x"])

        def forward_loss(self, batch: Any, output: Any) -> Any:
            return self.loss_fn(output, batch["label"])

        def visualise(self, batch: Any, output: Any, mode: str) -> None:
            pass

    def fit(n_steps: int) -> None:
        Mine({"n_iterations": n_steps, "output_path": str(task.folder), **config}).train()

    return fit
