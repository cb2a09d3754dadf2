"""Times one way to log a scalar."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from clock import Moment
from torch import nn

_CALLS = 5000


class Scalars(Protocol):
    """One way to log."""

    def add(self, tag: str, value: float, step: int) -> None:
        """One point of a curve."""

    def flush(self) -> None:
        """Return when every point is in its file."""


def contestant(name: str, folder: Path) -> Callable[[Any], dict[str, float]]:
    """Answers anything with the time of one call, in seconds: alone, with the flush, and in a loop that trains."""
    scalars: Scalars = importlib.import_module(f"loggers.{name}").build(folder)
    model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    x, label = torch.randn(32, 32), torch.randint(10, (32,))
    count = 0

    def train(n_steps: int, log: bool) -> float:
        nonlocal count
        start = Moment()
        for _ in range(n_steps):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(x), label)
            loss.backward()
            optimiser.step()
            if log:
                count += 1
                scalars.add("train/loss", 0.5, count)
        return start.seconds()

    def answer(_: Any) -> dict[str, float]:
        nonlocal count
        start = Moment()
        for _ in range(_CALLS):
            count += 1
            scalars.add("train/loss", 0.25, count)
        alone = start.seconds()
        scalars.flush()
        flushed = start.seconds()
        pairs = [(train(200, False), train(200, True)) for _ in range(10)]
        extra = sorted(busy - quiet for quiet, busy in pairs)[len(pairs) // 2]
        scalars.flush()
        return {"alone": alone / _CALLS, "flushed": flushed / _CALLS, "loop": extra / 200}

    return answer
