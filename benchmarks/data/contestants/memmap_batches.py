"""A memmap through torch's DataLoader, which is given whole batches: what all are measured by."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from photos import Source
from task import batch_loader
from torch.utils.data import Dataset


class Batches(Dataset[Any]):
    """An item is a batch."""

    def __init__(self, folder: Path) -> None:
        self.images, self.labels = np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "labels.npy")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: list[int]) -> Any:
        return torch.from_numpy(self.images[indices]), torch.from_numpy(self.labels[indices])


def write(source: Source, folder: Path) -> None:
    """Two arrays."""
    np.save(folder / "images.npy", source.images)
    np.save(folder / "labels.npy", source.labels)


def opened(folder: Path) -> Callable[[bool], Iterator[Any]]:
    """Passes over it."""
    dataset = Batches(folder)
    return lambda shuffle: iter(batch_loader(dataset, shuffle))
