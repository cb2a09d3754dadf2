"""One look at every example of a split: what README.md, `explore` and `lint` tell of a data set.

Sums are of whole numbers where the data are, so that every machine finds the same.
"""

import hashlib
import itertools
import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.contract.dataset_schema import Schema
from runner.inside.dataset.checks import class_counts
from runner.inside.dataset.examples import Examples
from runner.inside.dataset.lists import DataError

CHUNK = 64
"""Examples that a thread reads at a time."""
AHEAD = 4
"""Chunks that are read before they are asked for."""
MOST_THREADS = 8
BAND = 1 << 20
"""Values of a channel that are summed at a time."""


@dataclass
class Survey:
    """What was seen."""

    by_class: list[int]
    """Number of examples of each class."""
    shapes: NDArray[np.int32]
    """(examples, dimensions of an image); 0 where an example cannot be read."""
    brightness: NDArray[np.float64]
    """Mean value of each image; NaN where it cannot be read."""
    digests: list[bytes]
    """Of each image's pixels, 16 bytes; b"" where it cannot be read."""
    maximum: float = 0.0
    """The largest value."""
    count: int = 0
    """Pixels, over all images."""
    sums: list[float] = field(default_factory=list)
    """Of the values of each channel; whole numbers of Python's, which do not overflow, where the data are whole."""
    squares: list[float] = field(default_factory=list)
    """Of their squares."""
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """How the list names it, and why it cannot be read."""

    @property
    def mean(self) -> list[float]:
        """Of each channel, in the data's own unit."""
        return [round(total / self.count, 4) for total in self.sums] if self.count else []

    @property
    def std(self) -> list[float]:
        """Of each channel; that of the pixels at hand, not an estimate for others."""
        if not self.count:
            return []
        pairs = zip(self.sums, self.squares, strict=True)
        variances = (square / self.count - (total / self.count) ** 2 for total, square in pairs)
        return [round(math.sqrt(max(variance, 0.0)), 4) for variance in variances]


@dataclass(frozen=True)
class _Seen:
    """What one thread makes of one example."""

    shape: tuple[int, ...]
    digest: bytes
    maximum: float
    count: int
    sums: list[float]
    squares: list[float]


def survey(examples: Examples, schema: Schema, progress: Callable[[int], None] = lambda done: None) -> Survey:
    """Read every example once. One that cannot be read is listed and left out of the sums."""
    total = len(examples)
    found = Survey(
        by_class=class_counts(examples.labels, schema).tolist(),
        shapes=np.zeros((total, len(schema.image.shape)), np.int32),
        brightness=np.full(total, np.nan),
        digests=[b""] * total,
    )
    with ThreadPoolExecutor(min(MOST_THREADS, len(os.sched_getaffinity(0)))) as pool:
        index = 0
        for part in _in_turn(pool, examples):
            for seen in part:
                if isinstance(seen, DataError):
                    found.unreadable.append((examples.reference(index), str(seen)))
                else:
                    _add(found, index, seen)
                index += 1
            progress(index)
    return found


def _in_turn(pool: ThreadPoolExecutor, examples: Examples) -> Iterator[list[_Seen | DataError]]:
    """The chunks in their order, a few ahead."""
    starts = iter(range(0, len(examples), CHUNK))
    waiting = deque(pool.submit(_look, examples, start) for start in itertools.islice(starts, AHEAD))
    while waiting:
        yield waiting.popleft().result()
        waiting.extend(pool.submit(_look, examples, start) for start in itertools.islice(starts, 1))


def _look(examples: Examples, start: int) -> list[_Seen | DataError]:
    seen: list[_Seen | DataError] = []
    for index in range(start, min(start + CHUNK, len(examples))):
        try:
            seen.append(_seen(examples.images(np.array([index]))[0]))
        except DataError as error:
            seen.append(error)
    return seen


def _seen(image: NDArray[Any]) -> _Seen:
    """Sums in bands, so that a large image takes little memory besides itself; exact for numbers of up to 16 bits."""
    channels = image.reshape(len(image), -1) if image.ndim > 2 else image.reshape(1, -1)
    wide = np.int64 if image.dtype.kind in "iub" and image.dtype.itemsize <= 2 else np.float64
    sums, squares = np.zeros((2, len(channels)), wide)
    for start in range(0, channels.shape[1], BAND):
        band = channels[:, start : start + BAND].astype(wide)
        sums += band.sum(axis=1)
        squares += (band * band).sum(axis=1)
    if not np.isfinite(sums).all():
        raise DataError("holds NaN or infinity")
    return _Seen(
        shape=image.shape,
        digest=hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16, salt=_salt(image.shape)).digest(),
        maximum=float(image.max()),
        count=channels.shape[1],
        sums=[value.item() for value in sums],
        squares=[value.item() for value in squares],
    )


def _salt(shape: tuple[int, ...]) -> bytes:
    """Equal bytes of different shapes are different images."""
    return hashlib.blake2b(repr(shape).encode(), digest_size=16).digest()


def _add(found: Survey, index: int, seen: _Seen) -> None:
    found.shapes[index] = seen.shape
    found.brightness[index] = sum(seen.sums) / (seen.count * len(seen.sums))
    found.digests[index] = seen.digest
    found.maximum = max(found.maximum, seen.maximum)
    if not found.count:
        found.sums, found.squares = [0] * len(seen.sums), [0] * len(seen.sums)
    if len(found.sums) == len(seen.sums):  # a set whose channels differ has no mean of its channels
        found.count += seen.count
        found.sums = [one + more for one, more in zip(found.sums, seen.sums, strict=True)]
        found.squares = [one + more for one, more in zip(found.squares, seen.squares, strict=True)]


def duplicates(surveys: dict[str, Survey]) -> list[list[tuple[str, int]]]:
    """Groups of examples, split and index, with equal pixels; the largest groups first."""
    places: dict[bytes, list[tuple[str, int]]] = {}
    for split, found in surveys.items():
        for index, digest in enumerate(found.digests):
            if digest:
                places.setdefault(digest, []).append((split, index))
    return sorted((group for group in places.values() if len(group) > 1), key=lambda group: (-len(group), group))
