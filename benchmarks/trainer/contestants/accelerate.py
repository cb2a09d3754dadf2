"""accelerate: prepare, and a loop by hand."""

from collections.abc import Callable

from accelerate import Accelerator
from task import Task
from torch import nn


def build(task: Task) -> Callable[[int], None]:
    """A fit of n steps."""
    loss_fn = nn.CrossEntropyLoss()

    def fit(n_steps: int) -> None:
        accelerator = Accelerator(cpu=True)
        model, optimiser, loader = accelerator.prepare(task.model, task.optimiser(), task.loader())
        model.train()
        step = 0
        while step < n_steps:
            for batch in loader:
                optimiser.zero_grad()
                loss = loss_fn(model(batch["x"]), batch["label"])
                accelerator.backward(loss)
                optimiser.step()
                step += 1
                if step == n_steps:
                    break

    return fit
