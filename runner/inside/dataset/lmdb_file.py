"""The examples of one split in one LMDB file, for fast reading: `lmdb/<kind>/<split>.mdb`.

    encoded    key = the example's number, value = the bytes of its image file
    arrays     images of one shape lie in blocks of some 64 MB, key = the block's number: a block is one array in the map, so
               that a batch is gathered from it as from a memmap; images of different shapes have a key each
    both       `labels`, and where shapes differ `shapes`, as arrays; `about`, a JSON object: the schema, the number of
               examples, the sha256 of the list file it was made from and that of all keys and values

A file is written by one writer, beside and renamed, and never changed. It is read without locks, so also from a read-only
mount, and opened in each process when that first reads.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.contract.dataset_schema import schema_from_json
from runner.contract.jsonio import file_sha256
from runner.inside.dataset.gather import gather
from runner.inside.dataset.lists import DataError, Labels
from runner.inside.dataset.pictures import Images, decoded, png, shown

ARRAYS, ENCODED = "arrays", "encoded"
KINDS = (ARRAYS, ENCODED)
SCHEMA_VERSION = 1
ABOUT, LABELS, SHAPES = b"about", b"labels", b"shapes"


def lmdb_path(root: Path, kind: str, split: str) -> Path:
    """Where a split lies in a data set's folder."""
    return root / "lmdb" / kind / f"{split}.mdb"


def key_of(number: int) -> bytes:
    """The key of an example or a block: LMDB keeps its keys in order."""
    return b"%010d" % number


class LmdbFile:
    """The examples of one file. Pickles without its map."""

    def __init__(self, path: Path, list_file: Path | None = None) -> None:
        """Read what `path` says about itself. With `list_file` it must have been made from that very list.

        Raises:
            DataError: it is not there, is no such file, is cut short, or was made from another list.
        """
        self.path = path
        about = self._read_about()
        self.kind: str = about["kind"]
        self.about = about
        self.schema = schema_from_json(about["schema"], shown(path))
        if list_file is not None and file_sha256(list_file) != about["list_sha256"]:
            raise DataError(
                f"{shown(path)}: was made from another {list_file.name} than the one that is there; make it again with "
                f"`make dataset DATASET=… STAGE=lmdb`"
            )
        self._rows: int | None = about["rows_per_block"]
        env = _open(path)
        with env.begin() as transaction:
            self.labels: Labels = np.frombuffer(transaction.get(LABELS), "<i8").astype(np.int64)
            shapes = transaction.get(SHAPES)
        self._shapes = None if shapes is None else np.frombuffer(shapes, "<i4").reshape(-1, 3)
        self._process = -1
        self._blocks: list[NDArray[Any]] = []
        self._transaction: Any = None

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices: NDArray[np.int64]) -> Images:
        """Gathered from the blocks, or decoded."""
        if self._process != os.getpid():
            self._attach()
        if self._rows is not None:
            return gather(self._blocks.__getitem__, *np.divmod(indices, self._rows))
        if self.kind == ENCODED:
            values = ((self._value(index), f"{self.path}#{index}") for index in np.asarray(indices).tolist())
            return decoded(self.schema, values, len(indices))
        found = [self._one(int(index)) for index in indices]
        return np.stack(found) if self.schema.fixed else found

    def encoded(self, index: int) -> bytes:
        """The image file's bytes, or a PNG of the array."""
        if self._process != os.getpid():
            self._attach()
        if self.kind == ENCODED:
            return bytes(self._transaction.get(key_of(index)))
        return png(self.images(np.array([index]))[0])

    def reference(self, index: int) -> str:
        """The file and the number in it."""
        return f"{self.path.name}#{index}"

    def _value(self, index: int) -> Any:
        value = self._transaction.get(key_of(index))
        if value is None:
            raise DataError(f"{shown(self.path)}: has no example {index}; make it again")
        return value

    def _one(self, index: int) -> NDArray[Any]:
        value = self._value(index)
        shape = tuple(self._shapes[index].tolist()) if self._shapes is not None else self.schema.image.sizes
        return np.frombuffer(value, self.schema.image.dtype).reshape(shape)

    def _attach(self) -> None:
        """Map the file in this process, and see its blocks as arrays. They hold as long as the transaction."""
        try:
            env = _open(self.path)
            self._transaction = env.begin(buffers=True)
            about = self._transaction.get(ABOUT)
        except OSError:
            about = None
        if about is None or json.loads(bytes(about)) != self.about:
            raise DataError(
                f"{shown(self.path)}: was replaced since it was opened: somebody prepared the data set anew; start again"
            )
        self._blocks = list(self._block_views()) if self._rows is not None else []
        self._process = os.getpid()

    def _block_views(self) -> Iterator[NDArray[Any]]:
        image = self.schema.image
        for number in range(-(-len(self) // (self._rows or 1))):
            value = self._transaction.get(key_of(number))
            if value is None:
                raise DataError(f"{shown(self.path)}: has no block {number}; make it again")
            yield np.frombuffer(value, image.dtype).reshape(-1, *image.sizes)

    def _read_about(self) -> dict[str, Any]:
        import lmdb

        again = "make it again with `make dataset DATASET=… STAGE=lmdb`"
        try:
            size = self.path.stat().st_size
        except OSError as error:
            raise DataError(f"{shown(self.path)}: {os.strerror(error.errno or 0)}; {again}") from None
        try:
            env = _open(self.path)
            need = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
            if size < need:  # the map would reach beyond the file's end, and reading there kills the process
                raise DataError(f"{shown(self.path)}: found {size} bytes, expected {need}: cut short; {again}")
            with env.begin() as transaction:
                about = transaction.get(ABOUT)
            if about is None:
                raise DataError(f"{shown(self.path)}: says nothing about itself: not one of ours; {again}")
            value: dict[str, Any] = json.loads(about)
        except (lmdb.Error, ValueError) as error:
            raise DataError(f"{shown(self.path)}: not an LMDB file of ours ({error}); {again}") from None
        if value.get("schema_version") != SCHEMA_VERSION:
            raise DataError(f"{shown(self.path)}: not of schema_version {SCHEMA_VERSION}; {again}")
        return value

    def __getstate__(self) -> dict[str, Any]:
        """Without the map: a worker opens its own."""
        return {**self.__dict__, "_process": -1, "_blocks": [], "_transaction": None}


_OPEN: dict[tuple[int, int], Any] = {}
"""By device and inode. LMDB refuses to open a file twice in a process, also by another path."""


def _open(path: Path) -> Any:
    """The file, opened once in this process."""
    import lmdb

    status = path.stat()
    key = status.st_dev, status.st_ino
    if key not in _OPEN:
        _OPEN[key] = lmdb.open(str(path), subdir=False, readonly=True, lock=False, readahead=True, max_spare_txns=4)
    return _OPEN[key]


def _close_all() -> None:
    """What a fork inherits must not be used, and keeps the file from being opened anew."""
    for env in _OPEN.values():
        env.close()
    _OPEN.clear()


os.register_at_fork(after_in_child=_close_all)
