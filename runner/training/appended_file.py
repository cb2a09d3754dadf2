"""A file that only grows, each piece whole or not at all; a full disk is told and does not end the training."""

import os
from collections.abc import Callable
from pathlib import Path


class AppendedFile:
    """Opened, with its folder, at the first piece. `tell` takes one warning at the first trouble, and at the end one
    that says how much is missing."""

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        self._path, self._tell = path, tell
        self._descriptor: int | None = None
        self._told = False
        self._missing: list[str] = []

    def append(self, data: bytes, label: str = "") -> bool:
        """Write a piece; False if it could not be, and then nothing of it is in the file. `label` names it."""
        view, written = memoryview(data), 0
        try:
            descriptor = self._open()
            while written < len(view):
                written += os.write(descriptor, view[written:])
        except OSError as error:
            self._take_back(written)
            self._missing.append(label)
            self._failed(error)
            return False
        return True

    def sync(self) -> None:
        """Make durable what was written."""
        if self._descriptor is not None:
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                self._failed(error)

    def close(self) -> None:
        """Close it, and tell what is missing."""
        if self._descriptor is not None:
            try:
                os.close(self._descriptor)
            except OSError as error:  # a network file system tells some of its trouble only now
                self._failed(error)
            self._descriptor = None
        if self._missing:
            n, first, last = len(self._missing), self._missing[0], self._missing[-1]
            which = f", of {first}" + (f" to {last}" if last != first else "") if first else ""
            self._tell(f"WARNING: {self._path}: {n} {'piece is' if n == 1 else 'pieces are'} missing{which}")
            self._missing.clear()

    def _open(self) -> int:
        if self._descriptor is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        return self._descriptor

    def _take_back(self, written: int) -> None:
        if written and self._descriptor is not None:
            os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)

    def _failed(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            self._tell(f"WARNING: {self._path}: not written ({error.strerror}); going on without")
