"""Rows of several arrays as one batch, with as few copies and as few calls as their size allows."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGE = 16 << 10
"""Bytes of a row from which it is copied by itself: then the copies cost more than the calls."""


def gather(block: Callable[[int], NDArray[Any]], blocks: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[Any]:
    """The rows `block(blocks[i])[rows[i]]`, stacked. All blocks are of one dtype and one shape of a row."""
    numbers = np.unique(blocks).tolist() or [0]
    if len(numbers) == 1:
        return _of_one(block(numbers[0]), rows)
    parts = {number: block(number) for number in numbers}
    first = parts[numbers[0]]
    out = np.empty((len(rows), *first.shape[1:]), first.dtype)
    if out.nbytes > LARGE * len(out):
        for place, (number, row) in enumerate(zip(blocks.tolist(), rows.tolist(), strict=True)):
            out[place] = parts[number][row]
        return out
    for number, part in parts.items():
        chosen = blocks == number
        out[chosen] = part[rows[chosen]]
    return out


def _of_one(part: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """`take` is the quickest on an array without gaps; of one with gaps it would first make a copy of the whole."""
    return part.take(rows, axis=0) if part.flags.c_contiguous else part[rows]
