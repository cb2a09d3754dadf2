"""LMDB of image files, decoded by Pillow, an example at a time."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from contestants import lmdb_arrays
from photos import Source
from PIL import Image
from task import loader, to_tensor


class Files(lmdb_arrays.Records):
    """An image file a key."""

    def __getitem__(self, index: int) -> Any:
        with Image.open(io.BytesIO(self.transaction.get(b"%08d" % index))) as image:
            return to_tensor(image), self.labels[index]


def write(source: Source, folder: Path) -> None:
    """One file."""
    lmdb_arrays.store(source, folder, ((source.folder / path).read_bytes() for path in source.files))


def opened(folder: Path) -> Callable[[bool], Iterator[Any]]:
    """Passes over it."""
    dataset = Files(folder)
    return lambda shuffle: iter(loader(dataset, shuffle))
