"""CIFAR-10 as its authors store it: batches of records of 3,073 bytes, read in place."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

RECORD = 1 + 3 * 32 * 32
"""Bytes of one record: its label, then the red, the green and the blue plane of 32 x 32."""
MARGIN = 4
"""Pixels by which an augmented image may be moved in each direction."""


def dataset_root() -> Path:
    """The folder with raw/ and lists/: the full data or the toy set, whichever the config names."""
    return Path(os.environ["DATASETS_DIR"]) / "cifar10"


def class_names(root: Path) -> list[str]:
    """The ten names, in the order of the labels."""
    return (root / "raw" / "batches.meta.txt").read_text().split()


class CifarDataset(Dataset[dict[str, Tensor]]):
    """The images that lists/<mode>.txt names: `image`, uint8 (3, 32, 32), and `label`, 0..9.

    The files are mapped, not read: memory holds the pages that are in use, shared by all workers.
    """

    def __init__(self, mode: str, root: Path | None = None, augment: bool = False) -> None:
        self.root = dataset_root() if root is None else root
        self.augment = augment
        """Move each image by up to 4 pixels and mirror half of them, drawn from torch's global generator."""
        self.files, self.file_of, self.record_of, self.labels = read_list(self.root / "lists" / f"{mode}.txt")
        self._maps: list[NDArray[np.uint8]] = []

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def draws_random(self) -> bool:
        """Whether reading uses random numbers; the Trainer seeds them for each batch."""
        return self.augment

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Tensor]]:
        """One batch, fetched at once; the loader calls this with all the indices of a batch."""
        batch = self.get_batch(torch.tensor(indices))
        return [{"image": image, "label": label} for image, label in zip(batch["image"], batch["label"], strict=True)]

    def get_batch(self, indices: Tensor) -> dict[str, Tensor]:
        """`image`, uint8 (batch, 3, 32, 32), and `label`, int64 (batch,)."""
        if not self._maps:
            self._maps = [map_batch(self.root / name) for name in self.files]
        wanted = indices.numpy()
        files, records = self.file_of[wanted], self.record_of[wanted]
        rows = np.empty((len(wanted), RECORD), np.uint8)
        for number in np.unique(files):
            chosen = files == number
            rows[chosen] = self._maps[number][records[chosen]]
        images = torch.from_numpy(rows[:, 1:].reshape(-1, 3, 32, 32))
        return {
            "image": random_shift_and_flip(images) if self.augment else images,
            "label": torch.from_numpy(rows[:, 0].astype(np.int64)),
        }

    def __getstate__(self) -> dict[str, Any]:
        """Without the maps: a worker opens its own."""
        return {**self.__dict__, "_maps": []}


def read_list(path: Path) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The files that a list names, and for each image the number of its file, its record in it, and its label."""
    files: dict[str, int] = {}
    rows = []
    for line in path.read_text().splitlines():
        name, _, label = line.partition("\t")
        file, _, record = name.rpartition("#")
        rows.append((files.setdefault(file, len(files)), int(record), int(label)))
    table = np.array(rows, np.int64).reshape(-1, 3)
    return list(files), table[:, 0], table[:, 1], table[:, 2]


def map_batch(path: Path) -> NDArray[np.uint8]:
    """The records of one file, shape (images, 3073).

    Raises:
        ValueError: the file is no whole number of records.
    """
    size = path.stat().st_size
    if size == 0 or size % RECORD:
        raise ValueError(f"{path}: found {size} bytes, expected a multiple of {RECORD}; make the data set again")
    return np.memmap(path, np.uint8, mode="r").reshape(-1, RECORD)


def random_shift_and_flip(images: Tensor) -> Tensor:
    """Each image moved within a black margin and mirrored with probability 1/2; (batch, 3, 32, 32) both ways."""
    count = len(images)
    down, across = torch.randint(0, 2 * MARGIN + 1, (2, count)).numpy()
    mirrored = torch.rand(count) < 0.5
    padded = torch.nn.functional.pad(images, (MARGIN,) * 4)
    padded[mirrored] = padded[mirrored].flip(3)
    windows = np.lib.stride_tricks.sliding_window_view(padded.numpy(), (32, 32), axis=(2, 3))
    return torch.from_numpy(windows[np.arange(count), :, down, across])
