"""The examples that a list file names, read from raw/ as it is: binary records, rows of arrays, or image files.

Every kind gives the same: `images(indices)`, each (channels, height, width), and the `labels` of the list. What lmdb/ holds
is read by `lmdb_file` with the same two.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from runner.contract.dataset_schema import BINARY, IMAGE, ArrayField, Schema
from runner.contract.preparation import RAW
from runner.inside.dataset.gather import gather
from runner.inside.dataset.lists import DataError, Labels, ListFile
from runner.inside.dataset.pictures import Images, check_shape, decoded, opened, png, shown


class Examples(Protocol):
    """What a split holds, with random access."""

    labels: Labels
    """Of every example."""

    def __len__(self) -> int:
        """Number of examples."""

    def images(self, indices: NDArray[np.int64]) -> Images:
        """The images of these examples.

        Raises:
            DataError: a file is not there, damaged, or of another shape than the schema says.
        """

    def encoded(self, index: int) -> bytes:
        """One image as a file: its own where there is one, else a PNG of it."""

    def reference(self, index: int) -> str:
        """How the list file names it, for messages."""


def open_raw(root: Path, split: str, schema: Schema, *, raw: Path | None = None) -> "ArrayFiles | ImageFiles":
    """The examples of `lists/<split>.txt` below `root`. `raw` is where root/raw really lies.

    Raises:
        DataError: the list is not there or cannot be read.
    """
    listed = ListFile(root / "lists" / f"{split}.txt")
    return open_listed(root, listed, schema, raw=raw)


def open_listed(root: Path, listed: ListFile, schema: Schema, *, raw: Path | None = None) -> "ArrayFiles | ImageFiles":
    """The examples of a list file that is read already."""
    kind = ImageFiles if schema.encoding == IMAGE else ArrayFiles
    return kind(root, listed, schema, root / RAW if raw is None else raw)


class Listed:
    """Examples that a list file names."""

    def __init__(self, root: Path, listed: ListFile, schema: Schema, raw: Path) -> None:
        self.schema, self.labels = schema, listed.labels
        self._root, self._listed, self._raw = root, listed, raw

    def __len__(self) -> int:
        return len(self._listed)

    def reference(self, index: int) -> str:
        """The path of its list file."""
        return self._listed[index].reference

    def place(self, path: str) -> str:
        """Where a listed path lies on this machine. Text: making a Path takes longer than reading a small image."""
        return f"{self._raw}{path.removeprefix(RAW)}" if path.startswith(f"{RAW}/") else f"{self._root}/{path}"


class ArrayFiles(Listed):
    """Records of one size in files: mapped, not read, so that memory holds the pages in use, shared by all workers."""

    def __init__(self, root: Path, listed: ListFile, schema: Schema, raw: Path) -> None:
        super().__init__(root, listed, schema, raw)
        numbers: dict[bytes, int] = {}
        self._file_of, self._record_of = np.empty((2, len(listed)), np.int64)
        for index, reference in enumerate(listed.references()):
            file, mark, record = reference.partition(b"#")
            if not mark or not record.isdigit() or (len(record) > 1 and record.startswith(b"0")):
                raise DataError(f"{listed.path}:{index + 1}: found {reference!r}, expected a record: raw/file#17")
            self._file_of[index], self._record_of[index] = numbers.setdefault(file, len(numbers)), int(record)
        self._files = [listed[int(np.argmax(self._file_of == number))].path for number in numbers.values()]
        self._maps: dict[int, Any] = {}

    def check(self, progress: Callable[[int], None] = lambda done: None) -> None:
        """Look at every file, though at no image.

        Raises:
            DataError: one is not there or cut short, or lacks a record that the list names.
        """
        for number in range(len(self._files)):
            self._map(number)

    def images(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Gathered from the maps."""
        return self.rows("image", indices)

    def rows(self, name: str, indices: NDArray[np.int64]) -> NDArray[Any]:
        """One array of these examples, by its name in the record."""
        return gather(lambda file: self._map(file)[name], self._file_of[indices], self._record_of[indices])

    def encoded(self, index: int) -> bytes:
        """A PNG."""
        return png(self.images(np.array([index]))[0])

    def _map(self, number: int) -> Any:
        if number not in self._maps:
            path = Path(self.place(self._files[number]))
            mapped = map_binary if self.schema.encoding == BINARY else map_npy
            rows = mapped(path, self.schema)
            last = int(self._record_of[self._file_of == number].max())
            if last >= len(rows["image"]):
                raise DataError(
                    f"{path}: has {len(rows['image'])} records, and {self._listed.path} names number {last}: cut short, or "
                    f"the lists are of other data"
                )
            self._maps[number] = rows
        return self._maps[number]

    def __getstate__(self) -> dict[str, Any]:
        """Without the maps: a worker opens its own."""
        return {**self.__dict__, "_maps": {}}


def map_binary(path: Path, schema: Schema) -> Any:
    """The records of one file, by name.

    Raises:
        DataError: it is not there, or no whole number of records.
    """
    record = np.dtype([(name, field.dtype, field.shape) for name, field in schema.record.items()])
    size = _size_of(path)
    if size == 0 or size % record.itemsize:
        whole, rest = divmod(size, record.itemsize)
        raise DataError(
            f"{path}: found {size} bytes ({whole} records and {rest} bytes), expected a multiple of {record.itemsize}: "
            f"cut short"
        )
    return np.asarray(np.memmap(path, record, mode="r"))


def map_npy(path: Path, schema: Schema) -> Any:
    """The rows of one array.

    Raises:
        DataError: it is not there, no array of numpy, or of another shape or kind.
    """
    _size_of(path)
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(rows, np.ndarray):
            raise ValueError("an archive of several")
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path}: not an array of numpy, or cut short ({error})") from None
    field = schema.image
    if rows.dtype != field.dtype or rows.shape[1:] != field.shape:
        found = ArrayField(dtype=str(rows.dtype), shape=rows.shape[1:])
        raise DataError(f"{path}: holds {found}, expected {field} as dataset.yml says")
    return {"image": np.asarray(rows)}


class ImageFiles(Listed):
    """An image file each."""

    def check(self, progress: Callable[[int], None] = lambda done: None) -> None:
        """Look at the beginning of every file, not at its pixels.

        Raises:
            DataError: one is not there, is no image, or has another shape than the schema says.
        """
        for index in range(len(self)):
            path = Path(self.place(self._listed[index].path))
            if _size_of(path) == 0:
                raise DataError(f"{shown(path)}: found 0 bytes, expected an image")
            with opened(path, str(path)) as image:
                channels = self.schema.image.shape[0] or len(image.getbands())
                check_shape((channels, image.height, image.width), self.schema.image.shape, str(path))
            progress(index + 1)

    def images(self, indices: NDArray[np.int64]) -> Images:
        """Decoded; one array if the schema has one shape."""
        paths = [self.place(self._listed.path_of(index)) for index in np.asarray(indices).tolist()]
        return decoded(self.schema, ((read_file(path), path) for path in paths), len(paths))

    def encoded(self, index: int) -> bytes:
        """The file's bytes."""
        return read_file(self.place(self._listed.path_of(index)))


def read_file(path: Path | str) -> bytes:
    """The bytes of a file that must be there.

    Raises:
        DataError: it is not, or may not be read.
    """
    try:
        with open(path, "rb", buffering=0) as handle:
            return handle.readall()
    except OSError as error:
        raise DataError(f"{shown(path)}: {os.strerror(error.errno or 0)}, though a list names it") from None


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(f"{shown(path)}: {os.strerror(error.errno or 0)}, though a list names it") from None
