"""The 1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn, in three fixed splits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

Split = tuple[NDArray[np.float64], NDArray[np.int64]]
HELD_OUT = 300
"""Images each of val and test."""


def load_split(split: str) -> Split:
    """Images (n, 64) on the scale 0..1 and labels (n,) of train, val or test. The split is the same for every config.

    Raises:
        ValueError: no such split.
    """
    data: Any = load_digits()
    images, labels = data.data / 16.0, data.target
    rest, test = train_test_split(np.arange(len(labels)), test_size=HELD_OUT, random_state=0, stratify=labels)
    train, val = train_test_split(rest, test_size=HELD_OUT, random_state=0, stratify=labels[rest])
    chosen = {"train": train, "val": val, "test": test}
    if split not in chosen:
        raise ValueError(f"split {split!r}: expected one of {', '.join(chosen)}")
    return images[chosen[split]], labels[chosen[split]]
