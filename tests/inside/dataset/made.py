"""Data sets of a few examples, in every encoding: real files in a folder as a reader finds it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runner.contract.dataset_schema import ArrayField, Schema
from runner.inside.dataset.lists import Entry, write_list

CLASSES = ("red", "green")
SHAPE = (3, 6, 5)


def pixels(count: int, seed: int = 0, shape: Sequence[int] = SHAPE) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def schema(encoding: str, shape: Sequence[int | None] = SHAPE) -> Schema:
    record = {"image": ArrayField(dtype="uint8", shape=tuple(shape))}
    if encoding == "binary":
        record = {"label": ArrayField(dtype="uint8", shape=()), **record}
    return Schema(encoding=encoding, record=record, classes=CLASSES)


def write_lists(root: Path, what: Schema, splits: Mapping[str, Sequence[Entry]]) -> None:
    (root / "lists").mkdir(parents=True, exist_ok=True)
    (root / "lists" / "schema.json").write_text(json.dumps(what.to_json()))
    for split, entries in splits.items():
        write_list(root / "lists" / f"{split}.txt", entries)


def binary(root: Path, images: NDArray[np.uint8], names: Sequence[str] = ("a.bin", "b.bin")) -> Schema:
    """Two files of records, the list in a mixed order; label n is n % 2."""
    what = schema("binary")
    (root / "raw").mkdir(parents=True)
    labels = np.arange(len(images)) % 2
    entries: list[Entry] = []
    for number, part in enumerate(np.array_split(np.arange(len(images)), len(names))):
        rows = [bytes([labels[index]]) + images[index].tobytes() for index in part]
        (root / "raw" / names[number]).write_bytes(b"".join(rows))
        entries += [Entry(f"raw/{names[number]}", int(labels[index]), row) for row, index in enumerate(part)]
    write_lists(root, what, {"train": entries})
    return what


def npy(root: Path, images: NDArray[Any]) -> Schema:
    what = schema("npy")
    (root / "raw").mkdir(parents=True)
    np.save(root / "raw" / "images.npy", images)
    write_lists(root, what, {"train": [Entry("raw/images.npy", index % 2, index) for index in range(len(images))]})
    return what


def files(root: Path, images: Sequence[NDArray[np.uint8]], shape: Sequence[int | None] = (3, None, None)) -> Schema:
    """A PNG each: lossless, so that every encoding holds the same pixels."""
    what = schema("image", shape)
    (root / "raw").mkdir(parents=True)
    for index, image in enumerate(images):
        save(root / "raw" / f"{index}.png", image)
    write_lists(root, what, {"train": [Entry(f"raw/{index}.png", index % 2) for index in range(len(images))]})
    return what


def save(path: Path, image: NDArray[np.uint8]) -> None:
    Image.fromarray(image.transpose(1, 2, 0)).save(path)
