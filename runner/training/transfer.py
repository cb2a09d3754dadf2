"""Batches on their way to the device."""

from collections import deque
from typing import Any

import torch

from runner.training.data import Batch, Feed, Fetched


def to_device(batch: Batch, device: torch.device, *, channels_last: bool = False) -> Batch:
    """The same structure with its tensors on `device`; texts, numbers and anything else pass through."""
    if isinstance(batch, torch.Tensor):
        if channels_last and batch.dim() == 4:
            return batch.to(device, non_blocking=True, memory_format=torch.channels_last)
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return type(batch)({key: to_device(value, device, channels_last=channels_last) for key, value in batch.items()})
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device, channels_last=channels_last) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device, channels_last=channels_last) for value in batch)
    return batch


def pinned(batch: Batch) -> Batch:
    """The same structure with its CPU tensors in pinned memory, which a GPU copies from without waiting."""
    if isinstance(batch, torch.Tensor):
        return batch.pin_memory() if batch.device.type == "cpu" and not batch.is_pinned() else batch
    if isinstance(batch, dict):
        return type(batch)({key: pinned(value) for key, value in batch.items()})
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(pinned(value) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(pinned(value) for value in batch)
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
