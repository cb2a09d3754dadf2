"""What only the handwritten digits know of their own preparation: they come inside scikit-learn."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from runner.inside.dataset.lists import DataError, Entry
from runner.inside.dataset.recipe import Recipe, main
from runner.inside.dataset.stages import Places

IMAGES, LABELS = "images.npy", "labels.npy"
HELD_OUT = 6
"""One in so many images is for test, and as many are for val."""
TOY_OF_CLASS = 12


def write_raw(places: Places, folder: Path) -> None:
    """The arrays of the wheel: images, uint8 (1797, 1, 8, 8) from 0 to 16, and labels, uint8 (1797,)."""
    data: Any = load_digits()
    _save(folder, data.images.astype(np.uint8), data.target)


def write_toy(folder: Path) -> None:
    """Digits as on a small display of seven bars, a little moved and unevenly inked; from integers alone."""
    labels = np.arange(10 * TOY_OF_CLASS) % 10
    images = np.zeros((len(labels), 8, 8), np.int64)
    for index, label in enumerate(labels.tolist()):
        turn = index // 10
        ink = 10 + (index * 7) % 7
        for bar in BARS[label]:
            images[index][PLACES[bar]] = ink - (turn * 3 + ord(bar)) % 4
        images[index] = np.roll(images[index], turn % 3 - 1, axis=1)
    _save(folder, images.astype(np.uint8), labels)


BARS = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg")
"""The bars of each digit, named as on any seven-segment display."""
PLACES = {
    "a": np.s_[0, 2:6],
    "b": np.s_[0:4, 5],
    "c": np.s_[4:8, 5],
    "d": np.s_[7, 2:6],
    "e": np.s_[4:8, 2],
    "f": np.s_[0:4, 2],
    "g": np.s_[4, 2:6],
}


def _save(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    np.save(folder / IMAGES, images.reshape(-1, 1, 8, 8))
    np.save(folder / LABELS, labels.astype(np.uint8))


def check_raw(raw: Path) -> None:
    """Refuse arrays that are not there or not of one length."""
    for name in (IMAGES, LABELS):
        if not (raw / name).is_file():
            raise DataError(f"{raw / name}: not there; expected {IMAGES} and {LABELS}")
    images, labels = (np.load(raw / name, mmap_mode="r", allow_pickle=False) for name in (IMAGES, LABELS))
    if len(images) != len(labels):
        raise DataError(f"{raw}: found {len(images)} images and {len(labels)} labels, expected as many")


def splits(raw: Path) -> dict[str, list[Entry]]:
    """In every class a sixth for test, then a sixth for val; drawn by scikit-learn with a fixed seed."""
    labels = np.load(raw / LABELS)
    held_out = len(labels) // HELD_OUT
    rest, test = train_test_split(np.arange(len(labels)), test_size=held_out, random_state=0, stratify=labels)
    train, val = train_test_split(rest, test_size=held_out, random_state=0, stratify=labels[rest])
    return {
        name: [Entry(f"raw/{IMAGES}", int(labels[index]), int(index)) for index in chosen]
        for name, chosen in (("train", train), ("val", val), ("test", test))
    }


RECIPE = Recipe(write_raw=write_raw, write_toy=write_toy, check_raw=check_raw, splits=splits)

if __name__ == "__main__":
    sys.exit(main(RECIPE, __file__, sys.argv[1:]))
