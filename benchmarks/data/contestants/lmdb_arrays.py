"""LMDB as it is commonly used: an array for each example, an example at a time."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import torch
from photos import Source
from task import loader
from torch.utils.data import Dataset


class Records(Dataset[Any]):
    """An example a key; the transaction is kept, and gives views of the map."""

    def __init__(self, folder: Path) -> None:
        env = lmdb.open(str(folder / "records.mdb"), subdir=False, readonly=True, lock=False)
        self.transaction = env.begin(buffers=True)
        self.labels = np.frombuffer(self.transaction.get(b"labels"), np.int64).tolist()
        self.shape = tuple(np.frombuffer(self.transaction.get(b"shape"), np.int64).tolist())

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        value = self.transaction.get(b"%08d" % index)
        return torch.from_numpy(np.frombuffer(value, np.uint8).reshape(self.shape)), self.labels[index]


def write(source: Source, folder: Path) -> None:
    """One file."""
    store(source, folder, (image.tobytes() for image in source.images))


def store(source: Source, folder: Path, values: Iterator[bytes]) -> None:
    """`values`, and what holds for all."""
    env = lmdb.open(
        str(folder / "records.mdb"), subdir=False, lock=False, map_size=2 * source.images.nbytes + (64 << 20)
    )
    with env.begin(write=True) as transaction:
        for number, value in enumerate(values):
            transaction.put(b"%08d" % number, value)
        transaction.put(b"labels", source.labels.tobytes())
        transaction.put(b"shape", np.array(source.images.shape[1:]).tobytes())
    env.close()


def opened(folder: Path) -> Callable[[bool], Iterator[Any]]:
    """Passes over it."""
    dataset = Records(folder)
    return lambda shuffle: iter(loader(dataset, shuffle))
