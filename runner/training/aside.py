"""The global random generators, set aside while data is read.

The obvious way (getstate, get_state, seed, setstate, set_state) takes 95 us alone and twice that between the steps of a
training, as much as reading a small batch. Three things make it 10:

- torch's state is copied and seeded through the generator, not through torch.manual_seed, which visits every device.
- numpy's generator is exchanged for another one, and python's state is copied as the plain memory that it is.
- Most data sets draw from torch or from nothing. As long as no read has moved python's or numpy's generator, these two
  are only looked at. The first read that moves one is undone and made again with all three seeded, and from then on all
  reads are: what is read does not depend on which way it was found out. torch's is seeded always: a data set may ask for
  its seed (torch.initial_seed), which moves nothing.
"""

import ctypes
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch

from runner.training.generators import WORDS, Lookout, lookout, numpy_address, numpy_random, python_memory
from runner.training.seeding import seed_generators

_T = TypeVar("_T")
_AGAIN: Any = object()
"""In place of a batch: it was read with generators that should have been seeded."""


class Aside:
    """Sets the generators aside and puts them back.

    numpy's spare gaussian (every other call of the old randn) does not survive. As that is so at every batch, whoever
    reads it, it too is the same for any number of workers.
    """

    def __init__(self) -> None:
        self._spare = np.random.MT19937(0)
        self._python = python_memory()
        self._main: Any = None
        self._lookout = lookout()
        """None once a read has moved python's or numpy's generator, or where nobody can look."""
        self._seen: Any = None
        self._copies: Any = None

    def read(self, seed: int, call: Callable[[], _T]) -> _T:
        """What `call` returns under generators seeded with `seed`. It may be called twice."""
        if self._lookout is not None:
            value = self._read_watched(self._lookout, seed, call)
            if value is not _AGAIN:
                return value
        self.enter(seed)
        try:
            return call()
        finally:
            self.leave()

    def enter(self, seed: int) -> None:
        """Set all generators aside and seed those that take their place."""
        main = torch.default_generator.get_state(), self._save_python(), numpy_random.get_bit_generator()
        numpy_random.set_bit_generator(self._spare)
        self._main = main
        seed_generators(seed)

    def leave(self) -> None:
        """Put them back."""
        state, python, generator = self._main
        self._main = None
        torch.default_generator.set_state(state)
        self._restore_python(python)
        numpy_random.set_bit_generator(generator)

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
        numpy_random.set_bit_generator(numpy_random.get_bit_generator())

    def _read_watched(self, lookout: Lookout, seed: int, call: Callable[[], _T]) -> _T:
        """Seed torch's only; _AGAIN if python's or numpy's generator was drawn from. Whatever happens, all are put back."""
        look = lookout.look
        before = look()
        if before != self._seen and not self._keep(lookout):
            return _AGAIN  # type: ignore[no-any-return]
        generator = torch.default_generator
        state = generator.get_state()
        generator.manual_seed(seed)
        try:
            value = call()
        finally:
            generator.set_state(state)
            self._seen = look()
            if self._seen != before:
                self._go_back(lookout)
        return value if self._lookout is not None else _AGAIN

    def _keep(self, lookout: Lookout) -> bool:
        """Copies to go back to; False if numpy's generator has been exchanged for one that nobody looks at."""
        if numpy_random.get_bit_generator() is not lookout.numpy_generator:
            self._lookout = None
            return False
        self.touch()
        words = ctypes.string_at(numpy_address(lookout.numpy_generator), 4 * WORDS)
        self._copies = self._save_python(), words
        return True

    def _go_back(self, lookout: Lookout) -> None:
        """Undo what was drawn, and look no more."""
        python, words = self._copies
        self._restore_python(python)
        ctypes.memmove(numpy_address(lookout.numpy_generator), words, 4 * WORDS)
        numpy_random.set_bit_generator(
            lookout.numpy_generator
        )  # even if it was exchanged; drops the spare gaussian too
        self._lookout = None

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
