"""Where python's and numpy's global generators keep their states, so that a draw is seen without copying any.

Both are Mersenne Twisters: 624 words, and a position that each draw moves. Nobody promises where these lie in memory. So
each place is used only after trials in this very process have shown that it is the right one.
"""

import ctypes
import random
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

WORDS = 625
"""The state of a Mersenne Twister: 624 words and a position."""
numpy_random: Any = np.random
"""Its stubs do not know the bit generator functions (numpy 1.24 and later)."""


class PythonMemory(NamedTuple):
    """The state of python's generator as plain memory."""

    address: int
    size: int
    generator: Any


class Lookout(NamedTuple):
    """What watches the generators."""

    look: Callable[[], tuple[Any, ...]]
    """A call whose value differs once a generator has moved."""
    numpy_generator: Any
    """The one of numpy's that is looked at."""


@cache
def python_memory() -> PythonMemory | None:
    """Where python's generator keeps its state; None where that is not certain.

    CPython keeps a position and 624 words, no pointers, between the end of the object header and the end of the C type
    (Modules/_randommodule.c). A generator of our own must repeat itself when it is saved and restored that way.
    """
    start = object.__basicsize__
    size = random.Random.__base__.__basicsize__ - start  # type: ignore[union-attr]
    hidden = getattr(random, "_inst", None)
    if type(hidden) is not random.Random or not 4 * WORDS <= size < 4 * WORDS + 64:
        return None
    trial = random.Random(7)
    trial.random()
    address = id(trial) + start
    before, memory = trial.getstate(), ctypes.string_at(address, size)
    first = [trial.random() for _ in range(700)]
    ctypes.memmove(address, memory, size)
    works = trial.getstate() == before and [trial.random() for _ in range(700)] == first
    return PythonMemory(id(hidden) + start, size, hidden) if works else None


def numpy_address(generator: Any) -> int:
    """Where a bit generator of numpy's keeps its state."""
    return int(generator.ctypes.state_address)


def lookout() -> Lookout | None:
    """What watches the generators as they are now; None where they cannot be watched."""
    generator = numpy_random.get_bit_generator()
    return _lookout(generator) if type(generator) is np.random.MT19937 else None


@cache
def _lookout(generator: Any) -> Lookout | None:
    """A draw moves the position; 624 draws bring it back, but then the first words are others."""
    python = python_memory()
    if python is None:
        return None
    words = (ctypes.c_uint32 * WORDS).from_address(python.address)
    numpy_words = (ctypes.c_uint32 * WORDS).from_address(numpy_address(generator))
    hidden, current = python.generator, numpy_random.get_bit_generator

    def look() -> tuple[Any, ...]:
        return words[0], words[1], hidden.gauss_next, numpy_words[624], numpy_words[0], current()

    return Lookout(look, generator) if _sees_draws(look) else None


def _sees_draws(look: Callable[[], tuple[Any, ...]]) -> bool:
    """Whether one draw, and a whole round of draws, are seen in both generators; they are put back after."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        seen = [look()]
        for words in (1, 624):
            random.getrandbits(32 * words)
            seen.append(look())
            np.random.bytes(4 * words)
            seen.append(look())
        return all(a != b for a, b in pairwise(seen))
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
