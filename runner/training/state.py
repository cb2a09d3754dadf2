"""States as plain values and tensors: checked, copied aside quickly, hashed the same everywhere."""

import hashlib
import struct
import sys
from collections import Counter, OrderedDict
from typing import Any

import numpy as np
import torch

from runner.contract.errors import RunnerError


class Staging:
    """Copies a state into buffers that are kept and used again, pinned where the state is on a GPU.

    The training may go on as soon as `copy` returns: on the CPU the copy is made; from a GPU it is queued in the
    stream, before whatever changes the weights next, and `ready` waits for it.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, torch.Tensor] = {}
        self._event: Any = None

    def copy(self, state: Any) -> Any:
        """The same structure, with its tensors in the buffers. Valid until the next `copy`.

        Raises:
            RunnerError: something in the state can be stored by no checkpoint; the text says where it is.
        """
        targets: list[torch.Tensor] = []
        sources: list[torch.Tensor] = []
        result = self._walk(state, "state", targets, sources)
        remote = any(source.device.type != "cpu" for source in sources)
        if sources:
            with torch.no_grad():
                torch._foreach_copy_(targets, sources, non_blocking=remote)
        if remote:
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()
        return result

    def prepare(self, state: Any) -> None:
        """Make the buffers and touch their pages, so that the first `copy` is as fast as the others."""
        self.copy(state)
        self.ready()

    def ready(self) -> None:
        """Wait until the copy has been made."""
        if self._event is not None:
            self._event.synchronize()
            self._event = None

    def _walk(self, value: Any, at: str, targets: list[torch.Tensor], sources: list[torch.Tensor]) -> Any:
        kind = type(value)
        if kind is str:
            return sys.intern(value)
        if kind in (int, float, bool, type(None)):
            return value
        if isinstance(value, torch.Tensor):
            source = value.detach()
            buffer = self._buffer(at, source)
            targets.append(buffer)
            sources.append(source)
            return buffer
        if isinstance(value, dict):
            items = {_key(key): self._walk(inner, f"{at}.{key}", targets, sources) for key, inner in value.items()}
            return (
                Counter(items) if isinstance(value, Counter) else OrderedDict(items) if kind is OrderedDict else items
            )
        if isinstance(value, list | tuple):
            inner = [self._walk(item, f"{at}.{index}", targets, sources) for index, item in enumerate(value)]
            return inner if isinstance(value, list) else tuple(inner)
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, np.ndarray):
            return self._walk(torch.from_numpy(value), at, targets, sources)
        if isinstance(value, int | float | str):
            return (int if isinstance(value, int) else float if isinstance(value, float) else str)(value)
        raise RunnerError(
            f"{at}: {kind.__name__} cannot be stored in a checkpoint; its state_dict() must hold numbers, texts, lists, dicts and tensors"
        )

    def _buffer(self, at: str, source: torch.Tensor) -> torch.Tensor:
        buffer = self._buffers.get(at)
        if buffer is None or buffer.shape != source.shape or buffer.dtype != source.dtype:
            buffer = torch.empty(source.shape, dtype=source.dtype, pin_memory=source.device.type == "cuda")
            self._buffers[at] = buffer
        return buffer


def _key(key: Any) -> Any:
    """Equal texts as one object: pickle writes the second of two equal objects differently from the same object twice."""
    return sys.intern(key) if type(key) is str else key


def state_sha256(state: Any) -> str:
    """A hash over every tensor and value: equal states give equal hashes, whatever the order of their dicts."""
    digest = hashlib.sha256()
    _feed(digest, state)
    return digest.hexdigest()


def state_bytes(state: Any) -> int:
    """Bytes in all tensors."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    inner = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return sum(state_bytes(value) for value in inner)


def _feed(digest: Any, value: Any) -> None:
    """Type and length go in before the content, so that no two states read alike."""
    if isinstance(value, torch.Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(f"tensor {value.dtype} {tuple(value.shape)};".encode())
        if flat.numel():
            digest.update(flat.view(torch.uint8).numpy().data)
    elif isinstance(value, dict):
        digest.update(f"dict {len(value)};".encode())
        for key in sorted(value, key=lambda key: (type(key).__name__, repr(key))):
            _feed(digest, key)
            _feed(digest, value[key])
    elif isinstance(value, list | tuple):
        digest.update(f"list {len(value)};".encode())
        for item in value:
            _feed(digest, item)
    elif isinstance(value, float):
        digest.update(b"float " + struct.pack("<d", value))
    else:
        text = repr(value).encode()
        digest.update(f"{type(value).__name__} {len(text)};".encode() + text)
