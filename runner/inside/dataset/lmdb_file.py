"""The examples of one split in one LMDB file, for fast reading: `lmdb/<kind>/<split>.mdb`.

    encoded    key = the example's number, value = the bytes of its image file
    arrays     images of one shape lie in blocks of some 64 MB, key = the block's number: a block is one array in the map, so
               that a batch is gathered from it as from a memmap; images of different shapes have a key each
    both       `labels`, and where shapes differ `shapes`, as arrays; `about`, a JSON object: the schema, the number of
               examples, the sha256 of the list file it was made from and that of all keys and values

A file is written by one writer, beside and renamed, and never changed. It is read without locks, so also from a read-only
mount, and opened in each process when that first reads.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.contract.dataset_schema import ArrayField, Schema, schema_from_json
from runner.contract.jsonio import atomic_path, canonical_json, file_sha256
from runner.inside.dataset.examples import MODES, Examples, Images, decode, png, shown
from runner.inside.dataset.lists import DataError, Labels

ARRAYS, ENCODED = "arrays", "encoded"
KINDS = (ARRAYS, ENCODED)
BLOCK_BYTES = 64 << 20
"""Of a block of arrays; one is in memory while it is written."""
FIRST_MAP_BYTES = 16 << 20
"""LMDB wants to know the most that a file may become; it doubles when that is not enough."""
SCHEMA_VERSION = 1
ABOUT, LABELS, SHAPES = b"about", b"labels", b"shapes"


def lmdb_path(root: Path, kind: str, split: str) -> Path:
    """Where a split lies in a data set's folder."""
    return root / "lmdb" / kind / f"{split}.mdb"


# ------------------------------------------------------------------------------------------------------------- writing


def check_kind(kind: str, schema: Schema) -> None:
    """Refuse what a kind cannot hold without loss.

    Raises:
        DataError: no such kind, or images that no PNG holds.
    """
    if kind not in KINDS:
        raise DataError(f"lmdb: found {kind!r}, expected one of {', '.join(KINDS)}")
    image = schema.image
    if kind == ENCODED and (image.dtype != "uint8" or len(image.shape) != 3 or image.shape[0] not in (*MODES, None)):
        raise DataError(f"lmdb: {image} fits in no image file; use the kind {ARRAYS}")


def write_lmdb(
    path: Path, examples: Examples, list_file: Path, schema: Schema, kind: str, progress: Any = None
) -> None:
    """Write all `examples`, those of `list_file`, to `path`: whole or not at all. `progress(done)` is called on the way.

    Raises:
        DataError: an example cannot be read, or does not fit the kind.
        OSError: the disk is full.
    """
    check_kind(kind, schema)
    with atomic_path(path) as temporary, _Store(temporary) as store:
        if kind == ARRAYS and schema.fixed:
            shapes = None
            _put_blocks(store, examples, schema.image, progress)
        else:
            shapes = _put_each(store, examples, kind, progress)
        store.put(LABELS, examples.labels.astype("<i8").tobytes())
        if shapes is not None:
            store.put(SHAPES, shapes.tobytes())
        about = {
            "schema_version": SCHEMA_VERSION,
            "kind": kind,
            "examples": len(examples),
            "rows_per_block": _rows_per_block(schema.image) if kind == ARRAYS and schema.fixed else None,
            "schema": schema.to_json(),
            "list_sha256": file_sha256(list_file),
            "content_sha256": store.sha256(),
        }
        store.put(ABOUT, canonical_json(about))


def _put_blocks(store: "_Store", examples: Examples, image: ArrayField, progress: Any) -> None:
    rows = _rows_per_block(image)
    for number, start in enumerate(range(0, len(examples), rows)):
        block = np.empty((min(rows, len(examples) - start), *image.sizes), image.dtype)
        for part in range(0, len(block), 1024):
            wanted = np.arange(start + part, start + min(part + 1024, len(block)))
            block[part : part + 1024] = examples.images(wanted)
            if progress is not None:
                progress(int(wanted[-1]) + 1)
        store.put(_key(number), block.data.cast("B"))


def _put_each(store: "_Store", examples: Examples, kind: str, progress: Any) -> NDArray[np.int32]:
    shapes = np.empty((len(examples), 3), "<i4")
    for index in range(len(examples)):
        image = examples.images(np.array([index]))[0]  # also where the bytes are kept: a damaged one is found now
        shapes[index] = image.shape
        store.put(_key(index), examples.encoded(index) if kind == ENCODED else image.tobytes())
        if progress is not None:
            progress(index + 1)
    return shapes


def _rows_per_block(image: ArrayField) -> int:
    size = np.dtype(image.dtype).itemsize * int(np.prod(image.sizes))
    return max(1, BLOCK_BYTES // size)


def _key(number: int) -> bytes:
    return b"%010d" % number


class _Store:
    """An LMDB file under way. What is put is kept until it is committed: a map that proves too small loses nothing."""

    def __init__(self, path: Path) -> None:
        self._path, self._size = path, FIRST_MAP_BYTES
        self._waiting: list[tuple[bytes, Any]] = []
        self._waiting_bytes = 0
        self._sha256 = hashlib.sha256()

    def __enter__(self) -> "_Store":
        import lmdb

        try:
            self._env = lmdb.open(
                str(self._path), subdir=False, lock=False, map_size=self._size, sync=False, metasync=False, max_dbs=0
            )
        except lmdb.Error as error:
            raise _as_os_error(error, self._path) from None
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None:
                self._commit()
        finally:
            self._env.close()

    def put(self, key: bytes, value: Any) -> None:
        """Add a value. Equal keys overwrite."""
        self._sha256.update(b"%d %d " % (len(key), len(value)))
        self._sha256.update(key)
        self._sha256.update(value)
        self._waiting.append((key, value))
        self._waiting_bytes += len(value)
        if self._waiting_bytes >= BLOCK_BYTES // 4:
            self._commit()

    def sha256(self) -> str:
        """Of all that was put so far."""
        return self._sha256.hexdigest()

    def _commit(self) -> None:
        import lmdb

        while True:
            try:
                with self._env.begin(write=True) as transaction:
                    for key, value in self._waiting:
                        transaction.put(key, value)
                break
            except lmdb.MapFullError:
                self._size *= 2
                self._env.set_mapsize(self._size)
            except lmdb.Error as error:
                raise _as_os_error(error, self._path) from None
        self._waiting, self._waiting_bytes = [], 0


def _as_os_error(error: Exception, path: Path) -> OSError:
    """LMDB's error as the system's, where it is one: a full disk is then said as everywhere else."""
    known = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
    number = next((one for one in known if os.strerror(one) in str(error)), errno.EIO)
    return OSError(number, str(error), str(path))


# ------------------------------------------------------------------------------------------------------------- reading


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
            return self._gathered(indices, self._rows)
        found = [self._one(int(index)) for index in indices]
        return np.stack(found) if self.schema.fixed else found

    def encoded(self, index: int) -> bytes:
        """The image file's bytes, or a PNG of the array."""
        if self._process != os.getpid():
            self._attach()
        if self.kind == ENCODED:
            return bytes(self._transaction.get(_key(index)))
        return png(self.images(np.array([index]))[0])

    def reference(self, index: int) -> str:
        """The file and the number in it."""
        return f"{self.path.name}#{index}"

    def _gathered(self, indices: NDArray[np.int64], rows: int) -> NDArray[Any]:
        if len(self._blocks) == 1:
            return self._blocks[0].take(indices, axis=0)
        image = self.schema.image
        out = np.empty((len(indices), *image.sizes), image.dtype)
        blocks, places = np.divmod(indices, rows)
        if out.nbytes > len(out) * LARGE_IMAGE:  # few large images: the copies cost more than the calls
            for row, (block, place) in enumerate(zip(blocks.tolist(), places.tolist(), strict=True)):
                out[row] = self._blocks[block][place]
            return out
        for number in np.unique(blocks).tolist():
            chosen = blocks == number
            out[chosen] = self._blocks[number][places[chosen]]
        return out

    def _one(self, index: int) -> NDArray[Any]:
        value = self._transaction.get(_key(index))
        if value is None:
            raise DataError(f"{shown(self.path)}: has no example {index}; make it again")
        if self.kind == ENCODED:
            image: NDArray[Any] = decode(value, self.schema.image.shape, f"{self.path}#{index}")
            return image
        shape = tuple(self._shapes[index].tolist()) if self._shapes is not None else self.schema.image.sizes
        return np.frombuffer(value, self.schema.image.dtype).reshape(shape)

    def _attach(self) -> None:
        """Map the file in this process, and see its blocks as arrays. They hold as long as the transaction."""
        env = _open(self.path)
        self._transaction = env.begin(buffers=True)
        self._blocks = list(self._block_views()) if self._rows is not None else []
        self._process = os.getpid()

    def _block_views(self) -> Iterator[NDArray[Any]]:
        image = self.schema.image
        for number in range(-(-len(self) // (self._rows or 1))):
            value = self._transaction.get(_key(number))
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


LARGE_IMAGE = 16 << 10
"""Bytes from which an image is copied by itself."""


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
