"""Times fits of one contestant."""

import gc
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clock import Moment
from task import Task

_CHECKED_STEPS = 100


def contestant(name: str, folder: Path, **settings: Any) -> Callable[[Any], dict[str, float]]:
    """Answers a number of steps with the seconds of a fit that long and of one with a single step.

    0 steps is the first request: a fit in the data's own order, which warms up and tells the loss that came of it.
    """
    task = Task(folder=folder, **settings)
    fit = importlib.import_module(f"contestants.{name}").build(task)

    def seconds(n_steps: int) -> float:
        gc.collect()
        start = Moment()
        fit(n_steps)
        return start.seconds()

    def answer(n_steps: int) -> dict[str, float]:
        if n_steps == 0:
            task.shuffle = False
            fit(_CHECKED_STEPS)
            task.shuffle = True
            return {"loss": task.loss()}
        fixed, whole = seconds(1), seconds(n_steps)
        return {"step": (whole - fixed) / (n_steps - 1), "fixed": fixed}

    return answer
