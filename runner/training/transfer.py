"""Batches on their way to the device."""

import copy
from collections import deque
from collections.abc import Callable
from typing import Any

import torch

from runner.training.data import Batch, Feed, Fetched


def to_device(batch: Batch, device: torch.device, *, channels_last: bool = False) -> Batch:
    """The same structure with its tensors on `device`; texts, numbers and anything else pass through."""

    def moved(tensor: torch.Tensor) -> torch.Tensor:
        if channels_last and tensor.dim() == 4:
            return tensor.to(device, non_blocking=True, memory_format=torch.channels_last)
        return tensor.to(device, non_blocking=True)

    return _changed(batch, moved)


def pinned(batch: Batch) -> Batch:
    """The same structure with its CPU tensors in pinned memory, which a GPU copies from without waiting."""
    return _changed(batch, lambda t: t.pin_memory() if t.device.type == "cpu" and not t.is_pinned() else t)


def _changed(batch: Batch, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
    """The same structure, its tensors changed."""
    if isinstance(batch, torch.Tensor):
        return change(batch)
    if isinstance(batch, dict):
        result = copy.copy(batch)  # of a defaultdict's kind, which no call of its type would make
        for key, value in batch.items():
            result[key] = _changed(value, change)
        return result
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_changed(value, change) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(_changed(value, change) for value in batch)
    return batch


class Prefetcher:
    """Copies batches to a GPU `depth` ahead, in a stream of its own, while the GPU computes."""

    def __init__(self, feed: Feed, device: torch.device, depth: int, *, channels_last: bool) -> None:
        self._feed, self._device, self._depth, self._channels_last = feed, device, depth, channels_last
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._ahead: deque[tuple[Fetched, torch.cuda.Event]] = deque()

    def start(self, epoch: int, batch: int) -> None:
        """Forget what is ahead and continue elsewhere."""
        self._ahead.clear()
        self._feed.start(epoch, batch)

    def next(self) -> Fetched:
        """The next batch, on the device."""
        while len(self._ahead) <= self._depth:
            self._ahead.append(self._send(self._feed.next()))
        fetched, arrived = self._ahead.popleft()
        current = torch.cuda.current_stream(self._device)
        current.wait_event(arrived)
        _used_by(fetched.batch, current)
        return fetched

    def n_batches(self, epoch: int) -> int | None:
        """As the feed says."""
        return self._feed.n_batches(epoch)

    def n_examples(self, epoch: int, batch: int, count: int) -> int | None:
        """As the feed says."""
        return self._feed.n_examples(epoch, batch, count)

    def close(self) -> None:
        """Let go of what is ahead, and of the workers."""
        self._ahead.clear()
        self._feed.close()

    def _send(self, fetched: Fetched) -> tuple[Fetched, torch.cuda.Event]:
        with torch.cuda.stream(self._stream):
            batch = to_device(pinned(fetched.batch), self._device, channels_last=self._channels_last)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(self._stream)
        return fetched._replace(batch=batch), event


def _used_by(batch: Batch, stream: Any) -> None:
    """Tell the allocator that another stream uses these tensors, so that it does not give their memory away too soon."""
    if isinstance(batch, torch.Tensor):
        if batch.device.type == "cuda":
            batch.record_stream(stream)
    elif isinstance(batch, dict):
        for value in batch.values():
            _used_by(value, stream)
    elif isinstance(batch, list | tuple):
        for value in batch:
            _used_by(value, stream)
