"""Which examples make up batch b of epoch e: a function of (seed, epoch, batch), so that it needs no saving."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

from runner.contract.errors import RunnerError
from runner.training.aside import Aside
from runner.training.seeding import derive_seed, epoch_generator


class Request(NamedTuple):
    """One batch to read."""

    epoch: int
    """Counted from 0."""
    batch: int
    """Within the epoch and this process, counted from 0."""
    last: bool
    """Whether the epoch ends with it."""
    indices: Any
    """LongTensor or list of indices into the data set; a single index where the data set makes the batches itself."""
    n_examples: int
    """How many of the indices count; the rest only fill up a process that would have had none."""
    n_examples_of_all: int
    """The same in all processes together."""
    base: int
    """The epoch's seed."""
    number: int
    """Of the batch, among those of all processes."""

    @property
    def seed(self) -> int:
        """What the generators are seeded with while it is read."""
        return derive_seed(self.base, self.number)


class Order(Protocol):
    """The batches of every epoch, as one process sees them."""

    def n_batches(self, epoch: int) -> int:
        """How many batches `epoch` has."""

    def request(self, epoch: int, batch: int) -> Request:
        """Batch `batch` of `epoch`."""

    def n_examples_of_all(self, epoch: int, batch: int) -> int:
        """Examples of that batch in all processes together."""


class Shard(NamedTuple):
    """Which of several processes this is."""

    rank: int = 0
    world: int = 1


class IndexOrder:
    """All indices once an epoch, in order or shuffled, cut into batches; each batch dealt to the processes in turn.

    With W processes a step takes W x batch_size examples. What is left at the end is dealt evenly, and a process
    that would get nothing reads one example that does not count, so that every process makes the same steps.
    """

    def __init__(self, n: int, batch_size: int, *, shuffle: bool, drop_last: bool, seed: int, shard: Shard) -> None:
        self._n, self._size, self._shuffle, self._shard = n, batch_size, shuffle, shard
        self._seed = seed
        width = batch_size * shard.world
        self._n_batches = n // width if drop_last else -(-n // width)
        self._epochs: dict[int, tuple[int, torch.Tensor]] = {}

    def n_batches(self, epoch: int) -> int:
        """The same for every epoch."""
        return self._n_batches

    def n_examples_of_all(self, epoch: int, batch: int) -> int:
        """A full batch in every process, but for the last."""
        width = self._size * self._shard.world
        return min(width, self._n - batch * width)

    def request(self, epoch: int, batch: int) -> Request:
        """Slice the epoch's order."""
        base, order = self._epochs.get(epoch) or self._begin(epoch)
        rank, world = self._shard
        width = self._size * world
        start = batch * width
        here, of_all = self._size, width
        if start + width > self._n:
            of_all = self._n - start
            here, extra = divmod(of_all, world)
            begin = start + rank * here + min(rank, extra)
            here += rank < extra
        else:
            begin = start + rank * here
        indices = order[begin : begin + here] if here else order[start : start + 1]
        last = batch + 1 == self._n_batches
        return Request(epoch, batch, last, indices, here, of_all, base, batch * world + rank)

    def _begin(self, epoch: int) -> tuple[int, torch.Tensor]:
        """Draw an epoch's order. Two are kept: workers read ahead over the end of an epoch."""
        generator = epoch_generator(self._seed, epoch)
        order = torch.randperm(self._n, generator=generator) if self._shuffle else torch.arange(self._n)
        if len(self._epochs) > 1:
            del self._epochs[min(self._epochs)]
        self._epochs[epoch] = derive_seed(self._seed, epoch), order
        return self._epochs[epoch]


class SampledOrder:
    """What a sampler of the project's own yields, drawn anew for each epoch from the epoch's seed.

    Exact as long as the sampler draws from its `generator`, from the global generators, or from what `set_epoch` tells it.
    """

    def __init__(self, batches: Iterable[Any], sampler: Any, *, seed: int, count: Callable[[Any], int]) -> None:
        self._batches, self._sampler, self._seed, self._count = batches, sampler, seed, count
        self._epochs: dict[int, list[Any]] = {}
        self._aside = Aside()

    def n_batches(self, epoch: int) -> int:
        """As many as the sampler yields in that epoch."""
        return len(self._of(epoch))

    def n_examples_of_all(self, epoch: int, batch: int) -> int:
        """There is one process only."""
        return self._count(self._of(epoch)[batch])

    def request(self, epoch: int, batch: int) -> Request:
        """What the sampler yielded as number `batch`."""
        batches = self._of(epoch)
        indices = batches[batch]
        n, last = self._count(indices), batch + 1 == len(batches)
        return Request(epoch, batch, last, indices, n, n, derive_seed(self._seed, epoch), batch)

    def _of(self, epoch: int) -> list[Any]:
        """All batches of an epoch. Two epochs are kept: workers read ahead over the end of one."""
        if epoch not in self._epochs:
            if len(self._epochs) > 1:
                del self._epochs[min(self._epochs)]
            self._epochs[epoch] = self._draw(epoch)
        return self._epochs[epoch]

    def _draw(self, epoch: int) -> list[Any]:
        for part in (self._batches, self._sampler):
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)
        if hasattr(self._sampler, "generator"):
            self._sampler.generator = epoch_generator(self._seed, epoch)
        with self._aside.seeded(derive_seed(self._seed, epoch)):
            return list(self._batches)


def order_of(loader: Any, *, seed: int, shard: Shard) -> Order:
    """The order that a DataLoader (or BatchLoader) asks for, made exact.

    Raises:
        RunnerError: its own sampler cannot be dealt to several processes, or never ends.
    """
    dataset, sampler, batch_sampler = loader.dataset, loader.sampler, loader.batch_sampler
    plain = type(batch_sampler) is BatchSampler
    once = type(sampler) is RandomSampler and not sampler.replacement and sampler.num_samples == len(dataset)
    if plain and (type(sampler) is SequentialSampler or once):
        return IndexOrder(
            len(dataset),
            batch_sampler.batch_size,
            shuffle=once,
            drop_last=batch_sampler.drop_last,
            seed=seed,
            shard=shard,
        )
    name = type(sampler if plain or batch_sampler is None else batch_sampler).__name__
    if shard.world > 1:
        raise RunnerError(
            f"{name}: a sampler of its own cannot be dealt to {shard.world} processes exactly; "
            "use shuffle=True or False, or resources.processes: 1"
        )
    batches = sampler if batch_sampler is None else batch_sampler
    try:
        len(batches)
    except TypeError:
        raise RunnerError(
            f"{name}: a sampler without a length may never end; give it __len__, or use an IterableDataset"
        ) from None
    return SampledOrder(batches, sampler, seed=seed, count=_count_one if batch_sampler is None else _count_list)


def _count_one(index: Any) -> int:
    return 1


def _count_list(indices: Any) -> int:
    return len(cast(Sequence[int], indices))
