"""A file that is hashed while it is written, and written past the page cache."""

import errno
import fcntl
import hashlib
import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_LARGE = 1 << 18
"""Bytes from which a second thread pays."""
_BUFFER = 1 << 21
"""Bytes written at once; O_DIRECT wants whole pages, from memory that begins at one."""


class HashedFile:
    """What torch.save writes to, from front to back; it never seeks.

    Each large piece is hashed by a second thread while this one writes it: os.write and hashlib both let go of the
    interpreter. Where the file system can (O_DIRECT), whole buffers go to the disk at once: a checkpoint takes no memory
    from the data set's pages, none has to be found for it, and the sync at the end finds little left to do.
    """

    def __init__(self, path: Path) -> None:
        self._buffer = mmap.mmap(-1, _BUFFER)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._direct = getattr(os, "O_DIRECT", 0)
        try:
            self._descriptor = os.open(path, flags | self._direct, 0o666)
        except OSError as error:
            if error.errno != errno.EINVAL or not self._direct:
                raise
            self._direct = 0
            self._descriptor = os.open(path, flags, 0o666)
        self._filled = 0
        self._digest = hashlib.sha256()
        self._beside: ThreadPoolExecutor | None = None
        self.error: OSError | None = None
        """What a write failed with; torch.save tells only that one failed."""

    def write(self, data: bytes | memoryview) -> int:
        """Append `data`.

        Raises:
            OSError: no space left, for instance; kept in `error` too.
        """
        view = memoryview(data)
        hashing = self._beside_me().submit(self._digest.update, view) if len(view) >= _LARGE else None
        try:
            self._append(view)
        finally:
            if hashing is not None:
                hashing.result()
        if hashing is None:
            self._digest.update(view)
        return len(view)

    def flush(self) -> None:
        """Only `finish` empties the buffer."""

    def finish(self) -> str:
        """Write the rest and sync the file; its sha256.

        Raises:
            OSError: it could not be written.
        """
        self._write_as_any_file()
        self._empty()
        os.fsync(self._descriptor)
        return self._digest.hexdigest()

    def close(self) -> None:
        """Close the file, whatever happened before."""
        if self._beside is not None:
            self._beside.shutdown()
        self._buffer.close()
        os.close(self._descriptor)

    def _append(self, view: memoryview) -> None:
        while view:
            piece = view[: _BUFFER - self._filled]
            self._buffer[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            view = view[len(piece) :]
            if self._filled == _BUFFER:
                self._empty()

    def _empty(self) -> None:
        written = 0
        with memoryview(self._buffer) as buffer:
            while written < self._filled:
                with buffer[written : self._filled] as rest:
                    written += self._write(rest)
        self._filled = 0

    def _write(self, rest: memoryview) -> int:
        """Bytes written; 0 if it is to be tried again, after a part of a page or on a disk with larger blocks."""
        try:
            return os.write(self._descriptor, rest)
        except OSError as error:
            if error.errno == errno.EINVAL and self._direct:
                self._write_as_any_file()
                return 0
            self.error = error
            raise

    def _write_as_any_file(self) -> None:
        if self._direct:
            flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~self._direct)
            self._direct = 0

    def _beside_me(self) -> ThreadPoolExecutor:
        if self._beside is None:
            self._beside = ThreadPoolExecutor(1, thread_name_prefix="hash")
        return self._beside
