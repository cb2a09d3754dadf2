"""Data that can only be read from front to back."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset

from runner.contract.errors import RunnerError
from runner.training.aside import Aside
from runner.training.data.batches import Batch, Fetched
from runner.training.seeding import derive_seed


class StreamFeed:
    """Batches of an IterableDataset, or of anything else that can only be iterated.

    Exact if it yields the same whenever the generators are seeded the same: each epoch starts from its own seed, and a
    position inside one is reached by reading what is before it. With workers that also needs the same number of them.
    """

    def __init__(self, loader: Any, seed: int, aside: Aside, *, endless: bool) -> None:
        self._loader, self._seed, self._aside, self._endless = loader, seed, aside, endless
        self._epoch, self._batch = 0, 0
        self._iterator: Iterator[Batch] = iter(())
        self._ahead: Batch = None
        self._empty = True

    def n_batches(self, epoch: int) -> int | None:
        """What the loader says, if it has a length."""
        try:
            return len(self._loader)
        except TypeError:
            return None

    def n_examples(self, epoch: int, batch: int, count: int) -> None:
        """Nobody knows."""

    def start(self, epoch: int, batch: int) -> None:
        """Begin `epoch` and read up to `batch`."""
        self._begin(epoch)
        for _ in range(batch):
            if self._empty:
                self._begin(self._epoch + 1)
                return
            self._advance()
        if self._empty:
            self._begin(self._epoch + 1)

    def next(self) -> Fetched:
        """Yield the batch read ahead, and read one more to know whether the epoch ends."""
        content, epoch = self._ahead, self._epoch
        if self._empty:
            raise RunnerError("the data loader yields no batch; check the data set's path and its length")
        self._advance()
        last = self._empty
        if last and self._endless:
            self._begin(epoch + 1)
        n = count_examples(content)
        return Fetched(content, n, n, epoch, last)

    def close(self) -> None:
        """Let go of the iterator and its workers."""
        self._iterator = iter(())

    def _begin(self, epoch: int) -> None:
        self._epoch, self._batch, self._empty = epoch, 0, False
        part: Any
        for part in (self._loader, getattr(self._loader, "dataset", None), getattr(self._loader, "sampler", None)):
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)
        if getattr(self._loader, "generator", self) is not self:
            self._loader.generator = torch.Generator().manual_seed(derive_seed(self._seed, epoch))
        with self._aside.seeded(derive_seed(self._seed, epoch)):
            self._iterator = iter(self._loader)
        self._advance()

    def _advance(self) -> None:
        with self._aside.seeded(derive_seed(self._seed, self._epoch, self._batch)):
            try:
                self._ahead = next(self._iterator)
            except StopIteration:
                self._ahead, self._empty = None, True
        self._batch += 1


def count_examples(batch: Batch) -> int:
    """The batch dimension of the first tensor in a batch, 1 where there is none."""
    return _first_length(batch) or 1


def _first_length(value: Any) -> int | None:
    if isinstance(value, torch.Tensor | np.ndarray):
        return int(value.shape[0]) if value.ndim else None
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return next((length for item in inner if (length := _first_length(item)) is not None), None)


def is_stream(loader: Any) -> bool:
    """Whether it can only be iterated: what it yields then depends on the number of workers."""
    dataset = getattr(loader, "dataset", None)
    return dataset is None or isinstance(dataset, IterableDataset) or not hasattr(loader, "batch_sampler")
