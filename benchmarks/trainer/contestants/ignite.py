"""pytorch-ignite: an Engine and nothing attached to it."""

from collections.abc import Callable
from typing import Any

from ignite.engine import Engine
from task import Task
from torch import nn


def build(task: Task) -> Callable[[int], None]:
    """A fit of n steps."""
    model, loss_fn = task.model, nn.CrossEntropyLoss()

    def fit(n_steps: int) -> None:
        optimiser = task.optimiser()
        model.train()

        def update(engine: Engine, batch: Any) -> None:
            optimiser.zero_grad()
            loss = loss_fn(model(batch["x"]), batch["label"])
            loss.backward()
            optimiser.step()

        epochs, per_epoch = task.split(n_steps)
        Engine(update).run(task.loader(), max_epochs=epochs, epoch_length=per_epoch)

    return fit
