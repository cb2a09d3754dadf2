"""The loop that people write by hand. No logging, no checks, nothing saved."""

from collections.abc import Callable

from task import Task
from torch import nn


def build(task: Task) -> Callable[[int], None]:
    """A fit of n steps."""
    model, loss_fn = task.model, nn.CrossEntropyLoss()

    def fit(n_steps: int) -> None:
        loader, optimiser, step = task.loader(), task.optimiser(), 0
        model.train()
        while step < n_steps:
            for batch in loader:
                optimiser.zero_grad()
                loss = loss_fn(model(batch["x"]), batch["label"])
                loss.backward()
                optimiser.step()
                step += 1
                if step == n_steps:
                    break

    return fit
