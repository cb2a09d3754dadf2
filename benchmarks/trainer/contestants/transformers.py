"""transformers.Trainer without logging, saving, clipping or a progress bar; the learning rate constant."""

from collections.abc import Callable
from typing import Any

import torch
from task import BATCH, Examples, Task
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments


class WithLoss(nn.Module):
    """The model as transformers wants it: it returns its loss."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.loss_fn = model, nn.CrossEntropyLoss()

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.loss_fn(self.model(x), label)}


def build(task: Task) -> Callable[[int], None]:
    """A fit of n steps."""

    class Mine(Trainer):
        def get_train_dataloader(self) -> DataLoader[Any]:
            loader: DataLoader[Any] = self.accelerator.prepare(task.loader())
            return loader

    model = WithLoss(task.model)

    def fit(n_steps: int) -> None:
        arguments = TrainingArguments(
            output_dir=str(task.folder),
            max_steps=n_steps,
            per_device_train_batch_size=BATCH,
            max_grad_norm=0.0,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
        )
        optimiser = task.optimiser()
        constant = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1.0)
        examples = Examples(task.x, task.label)
        Mine(model=model, args=arguments, train_dataset=examples, optimizers=(optimiser, constant)).train()

    return fit
