"""Writes the LMDB files that `lmdb_file` describes and reads."""

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.contract.dataset_schema import ArrayField, Schema
from runner.contract.jsonio import atomic_path, canonical_json, file_sha256
from runner.inside.dataset.examples import Examples
from runner.inside.dataset.lists import DataError
from runner.inside.dataset.lmdb_file import ABOUT, ARRAYS, ENCODED, KINDS, LABELS, SCHEMA_VERSION, SHAPES, key_of
from runner.inside.dataset.pictures import MODES

BLOCK_BYTES = 64 << 20
"""Of a block of arrays; one is in memory while it is written."""
FIRST_MAP_BYTES = 16 << 20
"""LMDB wants to know the most that a file may become; it doubles when that is not enough."""
Progress = Callable[[int], None]


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
    path: Path, examples: Examples, list_file: Path, schema: Schema, kind: str, progress: Progress = lambda done: None
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


def _put_blocks(store: "_Store", examples: Examples, image: ArrayField, progress: Progress) -> None:
    rows = _rows_per_block(image)
    for number, start in enumerate(range(0, len(examples), rows)):
        block = np.empty((min(rows, len(examples) - start), *image.sizes), image.dtype)
        for part in range(0, len(block), 1024):
            wanted = np.arange(start + part, start + min(part + 1024, len(block)))
            block[part : part + 1024] = examples.images(wanted)
            progress(int(wanted[-1]) + 1)
        store.put(key_of(number), block.data.cast("B"))


def _put_each(store: "_Store", examples: Examples, kind: str, progress: Progress) -> NDArray[np.int32]:
    shapes = np.empty((len(examples), 3), "<i4")
    for index in range(len(examples)):
        image = examples.images(np.array([index]))[0]  # also where the bytes are kept: a damaged one is found now
        shapes[index] = image.shape
        store.put(key_of(index), examples.encoded(index) if kind == ENCODED else image.tobytes())
        progress(index + 1)
    return shapes


def _rows_per_block(image: ArrayField) -> int:
    size = np.dtype(image.dtype).itemsize * int(np.prod(image.sizes))
    return max(1, BLOCK_BYTES // size)


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
