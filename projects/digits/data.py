"""The handwritten digits of datasets/digits, one split at a time. numpy alone: any framework reads a data set this way."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runner.contract.dataset_schema import read_schema
from runner.inside.dataset.examples import open_raw

Split = tuple[NDArray[np.float64], NDArray[np.int64]]
DARKEST = 16
"""Of the 17 shades of grey."""


def load_split(split: str) -> Split:
    """Images (n, 64) on the scale 0..1 and labels (n,) of train, val or test.

    Raises:
        DataError: no such split.
    """
    root = Path(os.environ["DATASETS_DIR"]) / "digits"
    examples = open_raw(root, split, read_schema(root))
    images = examples.images(np.arange(len(examples)))
    return np.asarray(images).reshape(len(examples), -1) / DARKEST, examples.labels
