"""lightning as it is by default: progress bar, logger, checkpoint after every epoch."""

from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from task import Task
from torch import nn


class Module(LightningModule):
    """The task as lightning wants it."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self._task, self.net, self.loss_fn = task, task.model, nn.CrossEntropyLoss()

    def training_step(self, batch: Any, number: int) -> Any:
        return self.loss_fn(self.net(batch["x"]), batch["label"])

    def configure_optimizers(self) -> Any:
        return self._task.optimiser()


def build(task: Task, **settings: Any) -> Callable[[int], None]:
    """A fit of n steps."""
    module = Module(task)

    def fit(n_steps: int) -> None:
        task.model.train()
        own: dict[str, Any] = settings or {"default_root_dir": task.folder}
        Trainer(accelerator="cpu", devices=1, max_steps=n_steps, **own).fit(module, task.loader())

    return fit
