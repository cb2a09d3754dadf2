"""Times one way to save 100 MB: model and Adam, 8.4 million weights."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from clock import Moment
from torch import nn

WIDTH, BATCH = 2048, 32


class Saver(Protocol):
    """One way to save."""

    def step(self) -> None:
        """One training step."""

    def save(self, number: int) -> None:
        """Save; return when the training may go on."""

    def wait(self) -> None:
        """Return when the last save is complete, and durable if it ever gets so."""


@dataclass
class Job:
    """A model in training."""

    folder: Path
    model: nn.Module = field(init=False)
    optimiser: torch.optim.Optimizer = field(init=False)
    x: torch.Tensor = field(init=False)
    label: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=1e-4)
        self.x, self.label = torch.randn(BATCH, WIDTH), torch.randint(WIDTH, (BATCH,))
        self.step()

    def step(self) -> None:
        """One training step."""
        self.optimiser.zero_grad()
        nn.functional.cross_entropy(self.model(self.x), self.label).backward()
        self.optimiser.step()

    def state(self) -> dict[str, Any]:
        """What is to be saved."""
        return {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}

    def tensors(self) -> list[torch.Tensor]:
        """All of its tensors."""
        moments = [value for state in self.optimiser.state.values() for value in state.values()]
        return [*(parameter.detach() for parameter in self.model.parameters()), *moments]

    def path(self, number: int) -> Path:
        """Two files in turn, so that no save has to make room first."""
        return self.folder / f"checkpoint_{number % 2}"


def contestant(name: str, folder: Path) -> Callable[[int], dict[str, float]]:
    """Answers a number of steps with the times of saves, in seconds."""
    saver: Saver = importlib.import_module(f"savers.{name}").build(Job(folder))
    saves = 0

    def save() -> float:
        nonlocal saves
        saves += 1
        start = Moment()
        saver.save(saves)
        return start.seconds()

    def steps(n: int) -> float:
        start = Moment()
        for _ in range(n):
            saver.step()
        return start.seconds()

    def answer(n_steps: int) -> dict[str, float]:
        saver.wait()
        quiet = steps(n_steps)
        blocked = save()
        busy = steps(n_steps)
        saver.wait()
        quiet = (quiet + steps(n_steps)) / 2
        start = Moment()
        blocked_again = save()
        saver.wait()
        return {
            "blocked": (blocked + blocked_again) / 2,
            "durable": start.seconds(),
            "whole": blocked + busy - quiet,
            "step": quiet / n_steps,
        }

    return answer
