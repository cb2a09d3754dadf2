"""Random numbers that are a function of (seed, epoch, batch), and generators that are put back as they were."""

import os
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

_MASK = (1 << 64) - 1


def derive_seed(*parts: int) -> int:
    """A 63-bit seed that depends on every part and on their order (splitmix64's finaliser, Steele et al. 2014)."""
    state = 0x9E3779B97F4A7C15
    for part in parts:
        state = (state + (part & _MASK) * 0xBF58476D1CE4E5B9 + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def seed_everything(seed: int) -> None:
    """Seed python, numpy, torch and every GPU."""
    seed_generators(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)


@contextmanager
def deterministic(on: bool) -> Iterator[None]:
    """Inside, if `on`, an algorithm that has no deterministic form is an error; after, all is as before.

    cuBLAS has one only with a workspace of its own, and reads the variable at its first use (cuBLAS, "Results
    reproducibility"); so it stays set.
    """
    if not on or torch.are_deterministic_algorithms_enabled():
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = benchmark


def seed_generators(seed: int) -> None:
    """Seed the CPU generators that data sets draw from: 9 us, where torch.manual_seed alone takes 100.

    torch's and numpy's are both MT19937, begun the same way: from one number they would draw the same words, and a crop
    drawn from one would go with a flip drawn from the other. So each gets a number of its own.
    """
    torch.default_generator.manual_seed(seed)
    np.random.seed(derive_seed(seed, 1) & 0xFFFFFFFF)
    random.seed(derive_seed(seed, 2))


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """The generator that shuffles one epoch."""
    return torch.Generator().manual_seed(derive_seed(seed, epoch))


def rng_state(device: torch.device) -> dict[str, Any]:
    """The state of every generator a training step may draw from, as plain values and tensors."""
    version, internal, spare = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state = {
        "python": [version, torch.tensor(internal, dtype=torch.int64), spare],
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Whatever is drawn inside, after it the generators are as they were."""
    python, numpy, on_cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    on_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(on_cpu)
        if on_gpu is not None:
            torch.cuda.set_rng_state(on_gpu, device)


def restore_rng(state: dict[str, Any], device: torch.device) -> None:
    """Put every generator back to where `rng_state` saw it."""
    version, internal, spare = state["python"]
    random.setstate((version, tuple(internal.tolist()), spare))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
    elif "cuda" in state:
        warnings.warn(
            "the GPU's random numbers of this checkpoint are not restored: there is no GPU here", stacklevel=2
        )
