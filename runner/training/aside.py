"""The global random generators, set aside while data is read.

The obvious way (getstate, get_state, seed, setstate, set_state) takes 95 us alone and twice that between the steps of a
training, as much as reading a small batch. What makes it 1 to 10:

- Most data sets draw nothing. As long as no read has moved a generator, all three are only looked at. The first read that
  moves one is undone and made again with torch's seeded, the usual case of one that draws; and if python's or numpy's has
  moved then too, once more with all three. From then on all reads are made so: what is read does not depend on which
  way it was found out.
- torch's state is copied and seeded through the generator, not through torch.manual_seed, which visits every device.
- numpy's generator is exchanged for another one, and python's state is copied as the plain memory that it is.
"""

import ctypes
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch

from runner.training.generators import WORDS, lookout, numpy_address, numpy_random, python_memory
from runner.training.seeding import seed_generators

_T = TypeVar("_T")


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
        self._seeds_torch = self._lookout is None or not self._lookout.sees_torch
        self._seen: Any = None
        self._copies: Any = None

    def read(self, seed: int, call: Callable[[], _T]) -> _T:
        """What `call` returns under generators seeded with `seed`. It may be called up to three times."""
        while self._lookout is not None:
            done, value = self._read_watched(seed, call)
            if done:
                return value  # type: ignore[return-value]
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

    def _read_watched(self, seed: int, call: Callable[[], _T]) -> tuple[bool, _T | None]:
        """Seed torch's at most; (False, …) if a generator that was not seeded has moved: then all are as before."""
        assert self._lookout is not None
        look = self._lookout.look
        before = look()
        if before != self._seen and not self._keep():
            return False, None
        if self._seeds_torch:
            generator = torch.default_generator
            state = generator.get_state()
            generator.manual_seed(seed)
            try:
                value = call()
            finally:
                generator.set_state(state)
        else:
            value = call()
        self._seen = look()
        if self._seen == before:
            return True, value
        self._go_back()
        if self._seeds_torch:
            self._lookout = None
        self._seeds_torch = True
        return False, None

    def _keep(self) -> bool:
        """Copies to go back to; False if numpy's generator has been exchanged for one that nobody looks at."""
        assert self._lookout is not None
        if numpy_random.get_bit_generator() is not self._lookout.numpy_generator:
            self._lookout = None
            return False
        self.touch()
        words = ctypes.string_at(numpy_address(self._lookout.numpy_generator), 4 * WORDS)
        self._copies = self._save_python(), words, torch.default_generator.get_state()
        return True

    def _go_back(self) -> None:
        assert self._lookout is not None
        python, words, state = self._copies
        self._restore_python(python)
        ctypes.memmove(numpy_address(self._lookout.numpy_generator), words, 4 * WORDS)
        self.touch()
        torch.default_generator.set_state(state)
        self._seen = None

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
