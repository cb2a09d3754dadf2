"""Data sets that give whole batches, without a Python call for each example."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    Dataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    default_collate,
    get_worker_info,
)

from runner.contract.errors import RunnerError

Batch = Any
"""What the data set makes of its examples; usually a dict of tensors, batch dimension first."""


class Fetched(NamedTuple):
    """A batch and where it comes from."""

    batch: Batch
    n_examples: int
    n_examples_of_all: int
    epoch: int
    last: bool
    """Whether the epoch ends with it."""


class BatchDataset(Protocol):
    """A data set that gives whole batches, without a Python call for each example."""

    def __len__(self) -> int:
        """Number of examples."""

    def get_batch(self, indices: torch.Tensor) -> Batch:
        """The batch of these examples; `indices` is a LongTensor (batch,)."""


class ArrayDataset(Dataset[Any]):
    """Arrays, tensors or memmaps of equal length under names: `ArrayDataset(image=x, label=y)`.

    An example or a batch is a dict of the same names. `transform` takes and returns such a batch and may draw random
    numbers; it sees whole batches, also where single examples are asked for.
    """

    def __init__(self, *, transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None, **arrays: Any) -> None:
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) != 1:
            raise RunnerError(f"ArrayDataset: arrays of equal length expected, found {lengths or 'none'}")
        self.arrays = arrays
        self.transform = transform
        self.draws_random = transform is not None
        self._length = next(iter(lengths.values()))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        batch = self.get_batch(torch.tensor([index]))
        return {name: value[0] for name, value in batch.items()}

    def get_batch(self, indices: torch.Tensor) -> dict[str, Any]:
        """Rows `indices` of every array, as tensors."""
        batch = {name: _rows(array, indices) for name, array in self.arrays.items()}
        return batch if self.transform is None else self.transform(batch)


def _rows(array: Any, indices: torch.Tensor) -> torch.Tensor:
    if isinstance(array, torch.Tensor):
        return array.index_select(0, indices)
    return torch.from_numpy(np.take(array, indices.numpy(), axis=0))


def quick_collate() -> Callable[[Any], Batch]:
    """`stacked`, or default_collate where somebody has told that how to collate (`default_collate_fn_map`)."""
    try:
        from torch.utils.data._utils.collate import default_collate_fn_map
    except ImportError:
        return default_collate
    known = {function.__module__ for function in default_collate_fn_map.values()}
    return stacked if known == {default_collate.__module__} else default_collate


def stacked(examples: Sequence[Any]) -> Batch:
    """What default_collate makes of dicts or tuples of tensors, without its search for what they are: 12 of 200 us of a
    small step. Everything else, and everything in a worker (it stacks into shared memory there), is left to it."""
    first = examples[0]
    if get_worker_info() is None:
        if type(first) is dict:
            return {name: _column([example[name] for example in examples]) for name in first}
        if type(first) is tuple and all(len(example) == len(first) for example in examples):
            return [_column(column) for column in zip(*examples, strict=True)]
    return default_collate(examples)  # type: ignore[arg-type]


def _column(values: Sequence[Any]) -> Any:
    first = values[0]
    if type(first) is torch.Tensor and first.layout is torch.strided and not first.is_nested:
        return torch.stack(values)  # type: ignore[arg-type]
    return default_collate(values)  # type: ignore[arg-type]


class BatchLoader:
    """What a DataLoader is for samples, for a data set that has `get_batch`. It only says what is wanted."""

    def __init__(
        self, dataset: BatchDataset, batch_size: int, *, shuffle: bool = False, drop_last: bool = False
    ) -> None:
        if not hasattr(dataset, "get_batch"):
            raise RunnerError(
                f"BatchLoader: {type(dataset).__name__} has no get_batch(indices); add it or use a DataLoader"
            )
        self.dataset, self.batch_size, self.drop_last = dataset, batch_size, drop_last
        self.sampler: Sampler[int] = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)
        self.batch_sampler = BatchSampler(self.sampler, batch_size, drop_last)
        self.num_workers = 0
        self.collate_fn = default_collate

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        for indices in self.batch_sampler:
            yield self.dataset.get_batch(torch.tensor(indices))
