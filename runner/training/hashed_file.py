"""A file that is hashed while it is written."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_LARGE = 1 << 18
"""Bytes from which a second thread pays."""


class HashedFile:
    """What torch.save writes to. Each large piece is hashed by a second thread while this one writes it.

    Hashing takes about as long as writing; beside it, it costs little, because os.write and hashlib both let go of the
    interpreter. torch writes from front to back and never seeks.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        self._digest = hashlib.sha256()
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="hash")
        self.error: OSError | None = None
        """What a write failed with; torch.save tells only that one failed."""

    def write(self, data: bytes | memoryview) -> int:
        """Append `data`.

        Raises:
            OSError: no space left, for instance; kept in `error` too.
        """
        rest = memoryview(data)
        hashing = self._beside.submit(self._digest.update, rest) if len(rest) >= _LARGE else None
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            self.error = error
            raise
        finally:
            if hashing is not None:
                hashing.result()
        if hashing is None:
            self._digest.update(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def finish(self) -> str:
        """Sync the file; its sha256."""
        os.fsync(self._descriptor)
        return self._digest.hexdigest()

    def close(self) -> None:
        """Close the file, whatever happened before."""
        self._beside.shutdown()
        os.close(self._descriptor)
