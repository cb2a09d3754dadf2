"""Our Trainer's save_checkpoint: copied in the loop; written, hashed, synced, renamed and described by a thread."""

from typing import Any

import torch
from saves import Job
from torch.utils.data import DataLoader

from runner.training import AccuracyMetrics, ArrayDataset, Trainer


class Ours(Trainer):
    """The job as a project."""

    def __init__(self, job: Job) -> None:
        self._job = job
        super().__init__({"n_iterations": 1_000_000, "output_path": str(job.folder)})
        self._begin()
        self.train_step()

    def create_data(self) -> None:
        self.train_dataset = self.val_dataset = ArrayDataset(x=self._job.x, label=self._job.label)
        self.train_dataloader = self.val_dataloader = DataLoader(self.train_dataset, batch_size=len(self._job.x))

    def create_model(self) -> None:
        self.model = self._job.model

    def create_loss(self) -> None:
        self.loss_fn = torch.nn.CrossEntropyLoss()

    def create_optimiser(self) -> None:
        self.optimiser = self._job.optimiser

    def create_metrics(self) -> None:
        self.train_metrics, self.val_metrics = AccuracyMetrics(), AccuracyMetrics()

    def forward_model(self, batch: Any) -> Any:
        return self.model(batch["x"])

    def forward_loss(self, batch: Any, output: Any) -> Any:
        return self.loss_fn(output, batch["label"])

    def visualise(self, batch: Any, output: Any, mode: str) -> None:
        pass

    def step(self) -> None:
        self.train_step()

    def save(self, number: int) -> None:
        self.progress.step = number
        self.save_checkpoint()

    def wait(self) -> None:
        self._wait_for_save()


build = Ours
