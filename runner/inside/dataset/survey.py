"""One look at every example of a split: what README.md, `explore` and `lint` tell of a data set.

Sums are of whole numbers where the data are, so that every machine finds the same.
"""

import hashlib
import itertools
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
AHEAD = 8
"""Chunks that are read before they are asked for."""


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
    sums: NDArray[Any] = field(default_factory=lambda: np.zeros(0))
    """Of the values of each channel."""
    squares: NDArray[Any] = field(default_factory=lambda: np.zeros(0))
    """Of their squares."""
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """How the list names it, and why it cannot be read."""

    @property
    def mean(self) -> list[float]:
        """Of each channel, in the data's own unit."""
        return [round(float(value) / self.count, 4) for value in self.sums] if self.count else []

    @property
    def std(self) -> list[float]:
        """Of each channel; that of the pixels at hand, not an estimate for others."""
        if not self.count:
            return []
        mean = self.sums.astype(np.float64) / self.count
        variance = self.squares.astype(np.float64) / self.count - mean * mean
        return [round(float(value), 4) for value in np.sqrt(np.maximum(variance, 0.0))]


@dataclass(frozen=True)
class _Seen:
    """What one thread makes of one example."""

    shape: tuple[int, ...]
    digest: bytes
    maximum: float
    count: int
    sums: NDArray[Any]
    squares: NDArray[Any]


def survey(examples: Examples, schema: Schema, progress: Callable[[int], None] = lambda done: None) -> Survey:
    """Read every example once. One that cannot be read is listed and left out of the sums."""
    total = len(examples)
    found = Survey(
        by_class=class_counts(examples.labels, schema).tolist(),
        shapes=np.zeros((total, len(schema.image.shape)), np.int32),
        brightness=np.full(total, np.nan),
        digests=[b""] * total,
    )
    with ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)))) as pool:
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
    channels = image.reshape(len(image), -1) if image.ndim > 2 else image.reshape(1, -1)
    exact = channels.astype(np.int64 if image.dtype.kind in "iub" else np.float64)
    return _Seen(
        shape=image.shape,
        digest=hashlib.blake2b(repr(image.shape).encode() + image.tobytes(), digest_size=16).digest(),
        maximum=float(image.max()),
        count=channels.shape[1],
        sums=exact.sum(axis=1),
        squares=(exact * exact).sum(axis=1),
    )


def _add(found: Survey, index: int, seen: _Seen) -> None:
    found.shapes[index] = seen.shape
    found.brightness[index] = float(seen.sums.sum()) / (seen.count * len(seen.sums))
    found.digests[index] = seen.digest
    found.maximum = max(found.maximum, seen.maximum)
    if not found.count:
        found.sums, found.squares = np.zeros_like(seen.sums), np.zeros_like(seen.squares)
    if len(found.sums) == len(seen.sums):  # a set whose channels differ has no mean of its channels
        found.count += seen.count
        found.sums = found.sums + seen.sums
        found.squares = found.squares + seen.squares


def duplicates(surveys: dict[str, Survey]) -> list[list[tuple[str, int]]]:
    """Groups of examples, split and index, with equal pixels; the largest groups first."""
    places: dict[bytes, list[tuple[str, int]]] = {}
    for split, found in surveys.items():
        for index, digest in enumerate(found.digests):
            if digest:
                places.setdefault(digest, []).append((split, index))
    return sorted((group for group in places.values() if len(group) > 1), key=lambda group: (-len(group), group))
