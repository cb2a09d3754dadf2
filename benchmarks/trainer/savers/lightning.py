"""lightning's Trainer.save_checkpoint. It asks for fsync since 2.6, in the loop."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from saves import Job


class Module(LightningModule):
    """The job as lightning wants it."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job, self.net = job, job.model

    def training_step(self, batch: Any, number: int) -> Any:
        return torch.nn.functional.cross_entropy(self.net(self._job.x), self._job.label)

    def configure_optimizers(self) -> Any:
        return self._job.optimiser


class Lightning:
    """A Trainer that has made one step."""

    def __init__(self, job: Job, **settings: Any) -> None:
        self._job, self.step = job, job.step
        off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        self._trainer = Trainer(accelerator="cpu", devices=1, max_steps=1, **off, **settings)
        self._trainer.fit(Module(job), [0])

    def save(self, number: int) -> None:
        self._trainer.save_checkpoint(self._job.path(number))

    def wait(self) -> None:
        pass


build = Lightning
