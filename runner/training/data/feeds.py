"""Data sets read exactly: the same batches for any number of workers, from any position, at any time."""

import itertools
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from runner.contract.errors import RunnerError
from runner.training.aside import Aside
from runner.training.data.batches import Batch, BatchLoader, Fetched, quick_collate
from runner.training.data.streams import StreamFeed, is_stream
from runner.training.order import Order, Request, Shard, order_of
from runner.training.seeding import seed_generators


@dataclass(frozen=True)
class Reader:
    """Reads one batch, in the training process or in a worker."""

    dataset: Any
    collate: Callable[[Any], Batch]
    whole: bool
    """Whether the data set gives whole batches."""
    single: bool
    """Whether a request holds one index, of a batch that the data set makes itself (batch_size=None)."""

    @property
    def draws_random(self) -> bool:
        """Whether reading may draw random numbers."""
        return bool(getattr(self.dataset, "draws_random", True))

    def read(self, request: Request) -> Batch:
        """The batch; the caller has seeded the generators."""
        indices = request.indices
        if self.whole:
            return self.dataset.get_batch(indices if isinstance(indices, torch.Tensor) else torch.tensor(indices))
        if isinstance(indices, torch.Tensor):
            indices = indices.tolist()
        dataset = self.dataset
        if self.single:
            return self.collate(dataset[indices])
        if hasattr(dataset, "__getitems__"):
            return self.collate(dataset.__getitems__(indices))
        return self.collate([dataset[index] for index in indices])


class Feed(Protocol):
    """An endless stream of batches from any position on."""

    def start(self, epoch: int, batch: int) -> None:
        """Continue with batch `batch` of `epoch`."""

    def next(self) -> Fetched:
        """The next batch."""

    def n_batches(self, epoch: int) -> int | None:
        """Batches in an epoch; None where nobody knows."""

    def n_examples(self, epoch: int, batch: int, count: int) -> int | None:
        """Examples of `count` batches from there on, in all processes together; None where nobody knows."""

    def close(self) -> None:
        """End the workers."""


class OrderedFeed:
    """Batches of a data set with random access."""

    def __init__(
        self, loader: Any, reader: Reader, order: Order, n_workers: int, aside: Aside, *, endless: bool
    ) -> None:
        self._loader, self._reader, self._order, self._n_workers = loader, reader, order, n_workers
        self._aside, self._endless = aside, endless
        self._seeds = reader.draws_random
        self._set_epoch: Any = getattr(reader.dataset, "set_epoch", None)
        self._epoch, self._batch = 0, 0
        self._workers: Any = None

    def n_batches(self, epoch: int) -> int:
        """As the order says."""
        return self._order.n_batches(epoch)

    def n_examples(self, epoch: int, batch: int, count: int) -> int:
        """As the order says."""
        return sum(self._order.n_examples_of_all(epoch, number) for number in range(batch, batch + count))

    def start(self, epoch: int, batch: int) -> None:
        """Skip to a position; nothing before it is read."""
        self.close()
        if batch >= self._order.n_batches(epoch):
            epoch, batch = epoch + 1, 0
        self._epoch, self._batch = epoch, batch
        if self._n_workers:
            self._workers = iter(self._worker_loader())
        elif self._set_epoch is not None:
            self._set_epoch(epoch)

    def next(self) -> Fetched:
        """Read one batch, here or in a worker."""
        epoch, batch = self._epoch, self._batch
        request = self._order.request(epoch, batch)
        if self._workers is not None:
            content = next(self._workers)
            if self._seeds:
                self._aside.touch()
        elif self._seeds:
            content = self._aside.read(request.seed, lambda: self._reader.read(request))
        else:
            content = self._reader.read(request)
        last = request.last
        if last:
            self._epoch, self._batch = epoch + 1, 0
            if self._set_epoch is not None and self._workers is None:
                self._set_epoch(epoch + 1)
        else:
            self._batch = batch + 1
        return Fetched(content, request.n_examples, request.n_examples_of_all, epoch, last)

    def close(self) -> None:
        """End the workers, if there are any."""
        if self._workers is not None:
            self._workers._shutdown_workers()
            self._workers = None

    def _requests(self) -> Iterator[Request]:
        """What the workers are to read: on over the ends of epochs, so that they never pause there."""
        batch = self._batch
        for epoch in itertools.count(self._epoch):
            for number in range(batch, self._order.n_batches(epoch)):
                request = self._order.request(epoch, number)
                if isinstance(request.indices, torch.Tensor):  # a tensor goes through a file of shared memory
                    request = request._replace(indices=request.indices.tolist())
                yield request
            batch = 0
            if not self._endless:
                return

    def _worker_loader(self) -> DataLoader[Any]:
        loader = self._loader
        return DataLoader(
            _WorkerDataset(self._reader, self._set_epoch is not None),
            batch_sampler=_Requests(self._requests),
            num_workers=self._n_workers,
            collate_fn=itemgetter(0),
            pin_memory=getattr(loader, "pin_memory", False) and torch.cuda.is_available(),
            timeout=getattr(loader, "timeout", 0),
            worker_init_fn=partial(_begin_worker, getattr(loader, "worker_init_fn", None)),
            multiprocessing_context=getattr(loader, "multiprocessing_context", None),
            prefetch_factor=getattr(loader, "prefetch_factor", None) or 2,
            generator=torch.Generator().manual_seed(0),
        )


class _Requests(Sampler[Any]):
    """Hands requests to the workers."""

    def __init__(self, requests: Callable[[], Iterator[Request]]) -> None:
        self._requests = requests

    def __iter__(self) -> Iterator[Any]:
        return self._requests()


class _WorkerDataset(Dataset[Any]):
    """Reads whole requests in a worker."""

    def __init__(self, reader: Reader, tells_epoch: bool) -> None:
        self._reader, self._tells_epoch, self._epoch = reader, tells_epoch, -1

    def __getitems__(self, request: Request) -> list[Batch]:
        if self._tells_epoch and request.epoch != self._epoch:
            self._reader.dataset.set_epoch(request.epoch)
            self._epoch = request.epoch
        seed_generators(request.seed)
        return [self._reader.read(request)]


def _begin_worker(also: Callable[[int], None] | None, number: int) -> None:
    """A Ctrl-C on the terminal reaches the workers too; the training process, not they, decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if also is not None:
        also(number)


def make_feed(
    loader: Any,
    *,
    how: str,
    seed: int,
    aside: Aside,
    endless: bool,
    n_workers: int | None = None,
    shard: Shard | None = None,
) -> Feed:
    """The exact stream of what `loader` describes. `how` is the config key `loader`.

    Raises:
        RunnerError: the data set cannot give what is asked, or cannot be dealt to several processes.
    """
    shard = shard or Shard()
    dataset: Any = getattr(loader, "dataset", None)
    if is_stream(loader):
        if how == "batches":
            raise RunnerError(
                f"loader: batches needs a data set with get_batch, found {type(dataset or loader).__name__}"
            )
        if shard.world > 1:
            raise RunnerError(
                f"{type(dataset or loader).__name__}: a stream cannot be dealt to {shard.world} processes exactly; "
                "use a data set with __getitem__ and __len__, or resources.processes: 1"
            )
        return StreamFeed(loader, seed, aside, endless=endless)
    has_whole = hasattr(dataset, "get_batch")
    if how == "batches" and not has_whole:
        raise RunnerError(
            f"loader: batches, but {type(dataset).__name__} has no get_batch(indices); add it, or set loader: samples"
        )
    single = loader.batch_sampler is None
    whole = (has_whole and how != "samples" and not single) or isinstance(loader, BatchLoader)
    collate = quick_collate() if loader.collate_fn is default_collate else loader.collate_fn
    reader = Reader(dataset, collate, whole, single)
    order = order_of(loader, seed=seed, shard=shard)
    if order.n_batches(0) == 0:
        raise RunnerError(
            f"{type(dataset).__name__}: no batch in it ({len(dataset)} examples); check its path, batch_size and drop_last"
        )
    return OrderedFeed(
        loader, reader, order, loader.num_workers if n_workers is None else n_workers, aside, endless=endless
    )
