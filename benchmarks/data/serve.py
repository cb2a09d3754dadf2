"""One contestant in a process of its own: `serve.py NAME '{"setting": value}'`, run by run.py.

It answers requests, one JSON value a line, and is idle between them. Each is answered by a fork, since only there are files
open: between requests none is mapped, and a mapped page is one that no eviction takes.
"""

import gc
import hashlib
import importlib
import json
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
WARM_S, COLD_S = (0.3, 1.0), (0.0, 1.2)
"""Seconds that are timed: passes are repeated up to the first, and broken off at the second."""
WARM_UP_S = (0.0, 0.3)
KEPT_BYTES = 31 << 20
"""Allocated and freed first, as by any training's first step: glibc then keeps freed batches for the next ones. Otherwise
it depends on what else lies in the heap whether each batch is in new memory, which costs up to four times the copying."""

Passes = Callable[[bool], Iterator[Any]]
"""What a contestant's `opened` returns: a pass over all batches, (image, label), shuffled or not."""


def main() -> None:
    """Import the contestant, then answer until stdin ends."""
    name, settings = sys.argv[1], json.loads(sys.argv[2])
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    sys.path.append(str(HERE.parent))
    if name == "ours":  # only they: the house has folders that others would take for packages
        sys.path.append(str(HERE.parents[1]))
    import torch

    torch.set_num_threads(1)
    contestant = importlib.import_module(f"contestants.{name}")
    gc.freeze()
    for line in sys.stdin:
        if os.fork() == 0:
            torch.empty(KEPT_BYTES, dtype=torch.uint8)
            verb, arguments = json.loads(line)
            replies.write(json.dumps(VERBS[verb](contestant, settings, *arguments)) + "\n")
            replies.flush()
            os._exit(0)
        _, status = os.wait()
        if status:
            sys.exit(f"{line.strip()} failed")


def generate(contestant: Any, settings: dict[str, Any], source: str, folder: str, *size: int) -> None:
    """Make the images, for all contestants."""
    from photos import Source

    shutil.rmtree(source, ignore_errors=True)
    Source(Path(source), *size).make()


def write(contestant: Any, settings: dict[str, Any], source: str, folder: str, *size: int) -> None:
    """Lay the images out as the contestant wants them."""
    from photos import Source

    shutil.rmtree(folder, ignore_errors=True)
    Path(folder).mkdir()
    contestant.write(Source(Path(source), *size), Path(folder), **settings)
    os.sync()  # a page that is not on disk yet cannot be evicted


def check(contestant: Any, settings: dict[str, Any], folder: str) -> list[str]:
    """What a pass in order delivers, and what a shuffled one does, whatever its order."""
    passes: Passes = contestant.opened(Path(folder), **settings)
    in_order, shuffled = list(digests(passes(False))), list(digests(passes(True)))
    if shuffled == in_order:
        raise RuntimeError("the shuffled pass is not shuffled")
    return [hashlib.sha256(b"".join(each)).hexdigest() for each in (in_order, sorted(in_order), sorted(shuffled))]


def digests(batches: Iterator[Any]) -> Iterator[bytes]:
    """Of every example; a batch that is not what was agreed on is refused."""
    for image, label in batches:
        found = (str(image.dtype), str(label.dtype), image.ndim, image.shape[1], len(label), image.is_contiguous())
        expected = ("torch.uint8", "torch.int64", 4, 3, len(image), True)
        if found != expected:
            raise RuntimeError(f"found a batch of {found}, expected {expected}")
        for pixels, number in zip(image.numpy(), label.tolist(), strict=True):
            yield hashlib.blake2b(pixels.tobytes() + b"%d" % number, digest_size=16).digest()


def warm(contestant: Any, settings: dict[str, Any], folder: str, shuffle: bool) -> float:
    """Images/s with all files in memory."""
    for path in files(folder):
        path.read_bytes()
    passes = contestant.opened(Path(folder), **settings)
    images_per_s(passes, shuffle, *WARM_UP_S)
    return images_per_s(passes, shuffle, *WARM_S)


def cold(contestant: Any, settings: dict[str, Any], folder: str, shuffle: bool, rehearsal: str) -> float:
    """Images/s with no file's content in memory. The code is warm: it has read another, small set before."""
    images_per_s(contestant.opened(Path(rehearsal), **settings), shuffle, *WARM_UP_S)
    gc.collect()
    for path in files(folder):
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)
    return images_per_s(contestant.opened(Path(folder), **settings), shuffle, *COLD_S)


def images_per_s(passes: Passes, shuffle: bool, at_least_s: float, at_most_s: float) -> float:
    """Of whole passes, unless one takes too long."""
    from trainer.clock import Moment

    gc.collect()
    images, begin, start = 0, time.perf_counter(), Moment()
    while True:
        for _, label in passes(shuffle):
            images += len(label)
            if time.perf_counter() - begin > at_most_s:
                return images / start.seconds()
        if time.perf_counter() - begin > at_least_s:
            return images / start.seconds()


def files(folder: str) -> Iterator[Path]:
    """All files below it."""
    return (path for path in Path(folder).rglob("*") if path.is_file())


VERBS: dict[str, Callable[..., Any]] = {
    "generate": generate,
    "write": write,
    "check": check,
    "warm": warm,
    "cold": cold,
}

if __name__ == "__main__":
    main()
