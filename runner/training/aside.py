"""The global random generators, set aside while data is read.

The obvious way (getstate, get_state, seed, setstate, set_state) takes 95 us alone and twice that between the steps of a
training, as much as reading a small batch. Two things make it 10:

- torch's state is copied and seeded through the generator, not through torch.manual_seed, which visits every device.
- numpy's generator is exchanged for another one, and python's state is copied as the plain memory that it is.

Seeding only once a read has been seen to draw would be quicker still, and wrong: a data set may ask for its seed, or draw
and put the generator back, and nobody sees that.
"""

import ctypes
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch

from runner.training.seeding import seed_generators

_numpy: Any = np.random
"""Its stubs do not know the bit generator functions (numpy 1.24 and later)."""
_WORDS = 625
"""The state of a Mersenne Twister: 624 words and a position."""
_T = TypeVar("_T")


class Aside:
    """Sets the generators aside and puts them back.

    numpy's spare gaussian (every other call of the old randn) does not survive. As that is so at every batch, whoever
    reads it, it too is the same for any number of workers.
    """

    def __init__(self) -> None:
        self._spare = np.random.MT19937(0)
        self._python = _python_memory()
        self._main: Any = None

    def read(self, seed: int, call: Callable[[], _T]) -> _T:
        """What `call` returns under generators seeded with `seed`."""
        self.enter(seed)
        try:
            return call()
        finally:
            self.leave()

    def enter(self, seed: int) -> None:
        """Set all generators aside and seed those that take their place."""
        main = torch.default_generator.get_state(), self._save_python(), _numpy.get_bit_generator()
        _numpy.set_bit_generator(self._spare)
        self._main = main
        seed_generators(seed)

    def leave(self) -> None:
        """Put them back."""
        state, python, generator = self._main
        self._main = None
        torch.default_generator.set_state(state)
        self._restore_python(python)
        _numpy.set_bit_generator(generator)

    @contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """Inside, the generators are seeded; after, they are as before."""
        self.enter(seed)
        try:
            yield
        finally:
            self.leave()

    def touch(self) -> None:
        """What setting aside does to the generators where nothing is drawn: the spare gaussian goes."""
        _numpy.set_bit_generator(_numpy.get_bit_generator())

    def _save_python(self) -> Any:
        if self._python is None:
            return random.getstate()
        address, size, generator = self._python
        return ctypes.string_at(address, size), generator.gauss_next

    def _restore_python(self, state: Any) -> None:
        if self._python is None:
            random.setstate(state)
        else:
            address, size, generator = self._python
            ctypes.memmove(address, state[0], size)
            generator.gauss_next = state[1]


@cache
def _python_memory() -> tuple[int, int, Any] | None:
    """Where python's generator keeps its state: address, bytes, the generator; None where that is not certain.

    CPython keeps a position and 624 words, no pointers, between the end of the object header and the end of the C type
    (Modules/_randommodule.c). A generator of our own must repeat itself when it is saved and restored that way.
    """
    start = object.__basicsize__
    size = random.Random.__base__.__basicsize__ - start  # type: ignore[union-attr]
    hidden = getattr(random, "_inst", None)
    if type(hidden) is not random.Random or not 4 * _WORDS <= size < 4 * _WORDS + 64:
        return None
    trial = random.Random(7)
    trial.random()
    address = id(trial) + start
    before, memory = trial.getstate(), ctypes.string_at(address, size)
    first = [trial.random() for _ in range(700)]
    ctypes.memmove(address, memory, size)
    works = trial.getstate() == before and [trial.random() for _ in range(700)] == first
    return (id(hidden) + start, size, hidden) if works else None
