"""The bare loop without a DataLoader: whole batches by indexing the tensors. The floor."""

from collections.abc import Callable

import torch
from task import BATCH, Task
from torch import nn


def build(task: Task) -> Callable[[int], None]:
    """A fit of n steps."""
    model, loss_fn = task.model, nn.CrossEntropyLoss()

    def fit(n_steps: int) -> None:
        optimiser, step = task.optimiser(), 0
        model.train()
        while step < n_steps:
            order = torch.randperm(len(task.x)) if task.shuffle else torch.arange(len(task.x))
            for indices in order.split(BATCH):
                optimiser.zero_grad()
                loss = loss_fn(model(task.x[indices]), task.label[indices])
                loss.backward()
                optimiser.step()
                step += 1
                if step == n_steps:
                    break

    return fit
