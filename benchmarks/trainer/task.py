"""What every contestant trains: the same weights, examples, batches and optimiser."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

LEARNING_RATE, MOMENTUM, BATCH = 0.05, 0.0, 32
SHAPES = {"mlp": (32,), "conv": (3, 32, 32)}
STEPS_PER_EPOCH = {"mlp": 1024, "conv": 256}


class Examples(Dataset[dict[str, torch.Tensor]]):
    """An in-memory data set as people write it: one example at a time, as a dict."""

    def __init__(self, x: torch.Tensor, label: torch.Tensor) -> None:
        self.x, self.label = x, label

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"x": self.x[index], "label": self.label[index]}


class Pairs(Examples):
    """The same as tuples, for the two frameworks that take nothing else."""

    def __getitem__(self, index: int) -> Any:
        return self.x[index], self.label[index]


@dataclass
class Task:
    """One training, before anybody has begun it."""

    net: str
    """mlp or conv."""
    folder: Path
    """Where a contestant may write."""
    shuffle: bool = True
    n_workers: int = 0
    model: nn.Module = field(init=False)
    x: torch.Tensor = field(init=False)
    label: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.model = nets()[self.net]()
        n, shape = STEPS_PER_EPOCH[self.net] * BATCH, SHAPES[self.net]
        teacher = nn.Linear(torch.Size(shape).numel(), 10)
        self.x = torch.randn(n, *shape)
        with torch.no_grad():
            self.label = teacher(self.x.flatten(1)).argmax(dim=1)

    def optimiser(self) -> torch.optim.Optimizer:
        """A fresh one on the model."""
        return torch.optim.SGD(self.model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)

    def loader(self, dataset: Dataset[Any] | None = None) -> DataLoader[Any]:
        """The ordinary loader of all examples, or of `dataset`."""
        examples = dataset if dataset is not None else Examples(self.x, self.label)
        return DataLoader(examples, batch_size=BATCH, shuffle=self.shuffle, num_workers=self.n_workers)

    def split(self, n_steps: int) -> tuple[int, int]:
        """`n_steps` as (epochs, steps in each); a part of an epoch, or whole ones."""
        per_epoch = STEPS_PER_EPOCH[self.net]
        if n_steps <= per_epoch:
            return 1, n_steps
        assert n_steps % per_epoch == 0, "whole epochs expected"
        return n_steps // per_epoch, per_epoch

    @torch.no_grad()
    def loss(self) -> float:
        """The model's loss on a part of the data, to compare what contestants have computed."""
        x, label = self.x[:2048], self.label[:2048]
        return float(nn.functional.cross_entropy(self.model.eval()(x), label))


def nets() -> dict[str, Any]:
    """How each model is made."""
    return {
        "mlp": lambda: nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)),
        "conv": lambda: nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 8 * 8, 10),
        ),
    }
