"""Where python's, numpy's and torch's global generators keep their states, so that a draw is seen without copying any.

All three are Mersenne Twisters: 624 words, a position that each draw moves, and at times a spare gaussian. Nobody promises
where these lie in memory. So each place is used only after trials in this very process have shown that it is the right one.
"""

import ctypes
import random
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch

WORDS = 625
"""The state of a Mersenne Twister: 624 words and a position."""
numpy_random: Any = np.random
"""Its stubs do not know the bit generator functions (numpy 1.24 and later)."""
_TORCH_HEADER = 112
"""Bytes before the words of torch's generator, at most; it ends with as many after them."""

Look = Callable[[], tuple[Any, ...]]
"""A call whose value differs once a generator has moved."""


class Lookout(NamedTuple):
    """What watches the generators."""

    look: Look
    numpy_generator: Any
    """The one of numpy's that is looked at."""
    sees_torch: bool
    """Whether torch's is looked at too."""


class PythonMemory(NamedTuple):
    """The state of python's generator as plain memory."""

    address: int
    size: int
    generator: Any


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
    """What watches the generators as they are now; None where python's or numpy's cannot be watched."""
    generator = numpy_random.get_bit_generator()
    return _lookout(generator) if type(generator) is np.random.MT19937 else None


@cache
def _lookout(generator: Any) -> Lookout | None:
    python = python_memory()
    if python is None:
        return None
    look_at_two = _look_at_python_and_numpy(python, generator)
    look_at_torch = _look_at_torch()
    if look_at_torch is not None:
        look = _both(look_at_two, look_at_torch)
        if _sees(look, _python_draws, _numpy_draws, _torch_draws):
            return Lookout(look, generator, sees_torch=True)
    return (
        Lookout(look_at_two, generator, sees_torch=False) if _sees(look_at_two, _python_draws, _numpy_draws) else None
    )


def _look_at_python_and_numpy(python: PythonMemory, generator: Any) -> Look:
    """A draw moves the position; 624 draws bring it back, but then the first words are others."""
    words = (ctypes.c_uint32 * WORDS).from_address(python.address)
    numpy_words = (ctypes.c_uint32 * WORDS).from_address(numpy_address(generator))
    hidden, current = python.generator, numpy_random.get_bit_generator

    def look() -> tuple[Any, ...]:
        return words[0], words[1], hidden.gauss_next, numpy_words[624], numpy_words[0], current()

    return look


def _look_at_torch() -> Look | None:
    """The same for torch's; None where its words are not found.

    CPUGeneratorImpl (aten/src/ATen/CPUGeneratorImpl.h) holds after its header a seed, the numbers left, whether it is
    seeded, the position and the words (MT19937RNGEngine.h), then a spare float and a spare double, each with a flag.
    """
    generator: Any = torch.default_generator
    _, _, position, *words = generator.get_state().numpy()[: 8 * (WORDS + 2)].view(np.uint64).astype(np.uint32)
    memory = ctypes.string_at(generator._cdata, _TORCH_HEADER + 4 * len(words))
    at = memory.find(np.array(words, np.uint32).tobytes())
    if at < 4 or memory[at - 4 : at] != position.tobytes():
        return None
    state = (ctypes.c_uint32 * 2).from_address(generator._cdata + at - 4)
    spares = (ctypes.c_uint8 * 24).from_address(generator._cdata + at + 4 * len(words))

    def look() -> tuple[Any, ...]:
        return state[0], state[1], spares[8], spares[20]

    return look


def _both(first: Look, second: Look) -> Look:
    return lambda: (*first(), *second())


def _sees(look: Look, *draws: Callable[[int], Any]) -> bool:
    """Whether one draw, a whole round of draws, and a spare gaussian are seen in every generator; all are put back after."""
    python, numpy, of_torch = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    try:
        seen = [look()]
        for draw in draws:
            for n in (1, 624, 0, 0):
                draw(n)
                seen.append(look())
        return all(a != b for a, b in pairwise(seen))
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.default_generator.set_state(of_torch)


def _python_draws(n: int) -> Any:
    """`n` words, or with 0 one gaussian: of two that are made together."""
    return random.getrandbits(32 * n) if n else random.gauss(0, 1)


def _numpy_draws(n: int) -> Any:
    """The same; numpy's spare gaussian is dropped before every read (see `Aside.touch`), so it need not be seen."""
    return np.random.bytes(4 * max(n, 1))


def _torch_draws(n: int) -> Any:
    """The same."""
    return torch.rand(n) if n else torch.randn(1)
