"""Ours: an ImageDataset in the stream of batches that the Trainer reads, whatever its format."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from photos import CLASSES, Source
from task import BATCH

from runner.contract.dataset_schema import IMAGE, SCHEMA_JSON, ArrayField, Schema
from runner.contract.jsonio import pretty_json
from runner.inside.dataset.examples import open_raw
from runner.inside.dataset.lists import Entry, write_list
from runner.inside.dataset.lmdb_file import KINDS, lmdb_path
from runner.inside.dataset.lmdb_write import write_lmdb
from runner.training.aside import Aside
from runner.training.data import BatchLoader, ImageDataset, make_feed

SPLIT = "train"


def write(source: Source, folder: Path, *, encoding: str, format: str) -> None:
    """A data set's folder: raw/, lists/, and lmdb/ if that is the format."""
    entries: Iterator[Entry]
    labels, raw, lists = source.labels.tolist(), folder / "raw", folder / "lists"
    if encoding == IMAGE:
        source.copy_files(raw)
        paths = (path.relative_to("files") for path in source.files)
        entries = (Entry(f"raw/{path}", label) for path, label in zip(paths, labels, strict=True))
    else:
        raw.mkdir()
        np.save(raw / "images.npy", source.images)
        entries = (Entry("raw/images.npy", label, record) for record, label in enumerate(labels))
    lists.mkdir()
    write_list(lists / f"{SPLIT}.txt", entries)
    image = ArrayField(dtype="uint8", shape=(3, source.side, source.side))
    schema = Schema(encoding=encoding, record={"image": image}, classes=tuple(f"{n}" for n in range(CLASSES)))
    (lists / SCHEMA_JSON).write_bytes(pretty_json(schema.to_json()))
    if format in KINDS:
        path = lmdb_path(folder, format, SPLIT)
        path.parent.mkdir(parents=True)
        write_lmdb(path, open_raw(folder, SPLIT, schema), lists / f"{SPLIT}.txt", schema, format)


def opened(folder: Path, *, encoding: str, format: str) -> Callable[[bool], Iterator[Any]]:
    """Passes over it."""
    dataset, epochs = ImageDataset(folder, SPLIT, format=format), itertools.count()
    feeds = [
        make_feed(BatchLoader(dataset, BATCH, shuffle=shuffle), how="auto", seed=0, aside=Aside(), endless=True)
        for shuffle in (False, True)
    ]

    def passes(shuffle: bool) -> Iterator[Any]:
        feed = feeds[shuffle]
        feed.start(next(epochs), 0)
        last = False
        while not last:
            fetched = feed.next()
            yield fetched.batch["image"], fetched.batch["label"]
            last = fetched.last

    return passes
