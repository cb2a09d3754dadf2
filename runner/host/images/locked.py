"""One process at a time: a lock on a file of the cache, freed by the kernel when its holder ends."""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Report = Callable[[str], None]


@contextmanager
def locked(path: Path, what: str, report: Report) -> Iterator[None]:
    """Hold the lock `path`. While another process holds it, wait, having said so once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"{what}: another process is at it; waiting")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
