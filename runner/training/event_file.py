"""TensorBoard's event files, written without TensorBoard.

A file is a series of records (TFRecord: length, its checksum, content, its checksum), each content an Event message of
tensorflow/core/util/event.proto. A training logs thousands of scalars, and the stock writer spends 40 us of the
interpreter on each; here the points of a curve, if they are many, are encoded together by numpy, in another thread.
"""

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from runner.training.appended_file import AppendedFile

_POLYNOMIAL = 0x82F63B78
_FEW = 4096
"""Bytes below which numpy does not pay."""
_FEW_POINTS = 32
"""Points below which it does not pay either."""
_COUNT = iter(range(1 << 62))


Point = tuple[str, Any, int, float]
"""Of a curve: tag, value, step, wall time."""


class Rich(NamedTuple):
    """Anything else, as an encoded Summary.Value."""

    value: bytes
    step: int
    wall_time: float


class EventFile:
    """One event file, opened at the first write. With `purge_step`, what older files hold from that step on is void."""

    def __init__(self, folder: Path, tell: Callable[[str], None], *, purge_step: int | None = None) -> None:
        self._folder, self._tell, self._purge_step = folder, tell, purge_step
        self._file: AppendedFile | None = None
        self._begun = False

    def write(self, scalars: Mapping[str, list[Point]], rich: list[Rich]) -> None:
        """Append points by tag, and anything else."""
        with np.errstate(over="ignore"):  # what a float32 cannot hold is shown as infinite
            records = [part for tag, points in scalars.items() for part in _scalar_records(tag, points)]
        records += [_record(_event(item.wall_time, item.step, 5, _field(1, item.value))) for item in rich]
        now = time.time()
        if self._file is None:
            name = f"events.out.tfevents.{int(now):010d}.{socket.gethostname()}.{os.getpid()}.{next(_COUNT)}"
            self._file = AppendedFile(self._folder / name, self._tell)
        opening = [] if self._begun else [_record(content) for content in self._opening(now)]
        self._begun = self._file.append(b"".join([*opening, *records])) or self._begun

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _opening(self, now: float) -> list[bytes]:
        """Its first events say the version and where this attempt begins."""
        opening = [_double(1, now) + _field(3, b"brain.Event:2")]
        if self._purge_step is not None:
            session_start = _varint_field(1, 1)
            opening.append(_event(now, self._purge_step, 7, session_start))
        return opening


def _event(wall_time: float, step: int, what: int, content: bytes) -> bytes:
    return _double(1, wall_time) + _varint_field(2, step) + _field(what, content)


def _scalar_records(tag: str, points: list[Point]) -> Iterator[bytes]:
    """The records of one curve. Those whose steps take equally many bytes have one layout, and are filled in together."""
    if len(points) < _FEW_POINTS:
        for _, value, step, wall_time in points:
            yield _record(_event(wall_time, step, 5, _field(1, _tag(tag) + b"\x15" + np.array(value, "<f4").tobytes())))
        return
    _, raw_values, raw_steps, raw_times = zip(*points, strict=True)
    steps = np.array(raw_steps, np.int64).view(np.uint64)
    values, times = np.array(raw_values, "<f4"), np.array(raw_times, "<f8")
    bits = np.maximum(1, np.ceil(np.log2(steps.astype(np.float64) + 1)))
    widths = np.ceil(bits / 7).astype(np.int64)
    for width in np.unique(widths):
        rows = widths == width
        yield _equal_records(tag, steps[rows], values[rows], times[rows], int(width))


def _equal_records(
    tag: str, steps: npt.NDArray[np.uint64], values: npt.NDArray[Any], times: npt.NDArray[Any], width: int
) -> bytes:
    """Records whose contents are equally long; see _event for the layout."""
    n = len(steps)
    summary = _field(1, _tag(tag) + b"\x15" + bytes(4))
    template = b"\x09" + bytes(8) + b"\x10" + bytes(width) + _field(5, summary)
    rows = np.tile(np.frombuffer(template, np.uint8), (n, 1))
    rows[:, 1:9] = times.view(np.uint8).reshape(n, 8)
    for place in range(width):
        more = np.uint64(0x80 if place + 1 < width else 0)
        rows[:, 10 + place] = (steps >> np.uint64(7 * place)) & np.uint64(0x7F) | more
    rows[:, -4:] = values.view(np.uint8).reshape(n, 4)
    header = np.tile(np.frombuffer(_header(len(template)), np.uint8), (n, 1))
    checksums = masked_crc32c(rows).astype("<u4").view(np.uint8).reshape(n, 4)
    return np.concatenate([header, rows, checksums], axis=1).tobytes()


@cache
def _tag(tag: str) -> bytes:
    return _field(1, tag.encode())


def image_value(tag: str, png: bytes, height: int, width: int, channels: int) -> bytes:
    """A Summary.Value that holds a picture."""
    image = _varint_field(1, height) + _varint_field(2, width) + _varint_field(3, channels) + _field(4, png)
    return _tag(tag) + _field(4, image)


def text_value(tag: str, text: str) -> bytes:
    """A Summary.Value that holds text, as a string tensor for the text plugin."""
    tensor = _varint_field(1, 7) + _field(2, _field(2, _varint_field(1, 1))) + _field(8, text.encode())
    plugin = _field(1, _field(1, b"text"))
    return _field(1, f"{tag}/text_summary".encode()) + _field(9, plugin) + _field(8, tensor)


def histogram_value(tag: str, values: npt.NDArray[np.float64], bins: int = 64) -> bytes:
    """A Summary.Value that holds a histogram of all finite values."""
    values = values[np.isfinite(values)]
    if not values.size:
        values = np.zeros(1)
    counts, edges = np.histogram(values, bins=bins)
    histogram = _double(1, values.min()) + _double(2, values.max()) + _double(3, values.size) + _double(4, values.sum())
    histogram += _double(5, np.square(values).sum())
    histogram += _field(6, edges[1:].astype("<f8").tobytes()) + _field(7, counts.astype("<f8").tobytes())
    return _tag(tag) + _field(5, histogram)


def _double(number: int, value: float) -> bytes:
    return bytes((number << 3 | 1,)) + struct.pack("<d", value)


def _field(number: int, content: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + _varint(len(content)) + content


def _varint_field(number: int, value: int) -> bytes:
    return bytes((number << 3,)) + _varint(value)


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _record(content: bytes) -> bytes:
    checksum = masked_crc32c(np.frombuffer(content, np.uint8)[None])
    return _header(len(content)) + content + struct.pack("<I", int(checksum[0]))


@cache
def _header(length: int) -> bytes:
    content = struct.pack("<Q", length)
    return content + struct.pack("<I", int(masked_crc32c(np.frombuffer(content, np.uint8)[None])[0]))


def masked_crc32c(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """The masked CRC-32C (RFC 3720; masked as TFRecord does) of each row, shape (rows, bytes) -> (rows,)."""
    crc = crc32c(rows)
    return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)


def crc32c(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """CRC-32C of each row. Few long rows are cut into many short ones, whose checksums are then joined."""
    n, length = rows.shape
    if n * length < _FEW:
        return np.array([_crc_of_one(row.tobytes()) for row in rows], np.uint32)
    piece = 64
    start = np.full(n, 0xFFFFFFFF, np.uint32)
    if length < 4 * piece or n > length:
        return ~_advance(start, rows)
    while piece * piece < length and piece < 4096:
        piece *= 2
    whole = length // piece * piece
    pieces = _advance(np.zeros(n * (whole // piece), np.uint32), rows[:, :whole].reshape(-1, piece)).reshape(n, -1)
    shift = _shift_tables(piece)
    crc = start
    for column in pieces.T:
        crc = _shift(shift, crc) ^ column
    return ~_advance(crc, rows[:, whole:])


def _crc_of_one(content: bytes) -> int:
    """Byte by byte: faster than numpy's many small calls while there is little to do."""
    table = _table_of_ints()
    crc = 0xFFFFFFFF
    for byte in content:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _advance(crc: npt.NDArray[np.uint32], rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """Take the bytes of every row into its checksum, all rows at once."""
    table = _table()
    for column in np.ascontiguousarray(rows.T):
        crc = np.bitwise_xor(table[(crc ^ column) & np.uint32(0xFF)], crc >> np.uint32(8))
    return crc


@cache
def _table_of_ints() -> list[int]:
    return [int(entry) for entry in _table()]


@cache
def _table() -> npt.NDArray[np.uint32]:
    crc = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        crc = np.where(crc & 1, (crc >> np.uint32(1)) ^ np.uint32(_POLYNOMIAL), crc >> np.uint32(1)).astype(np.uint32)
    return crc


@cache
def _shift_tables(length: int) -> npt.NDArray[np.uint32]:
    """Tables (4, 256) that take a checksum over `length` zero bytes, `length` a power of two, by repeated doubling."""
    if length == 1:
        bytes_ = np.arange(256, dtype=np.uint32)
        tables = np.stack([bytes_ << np.uint32(8 * place) for place in range(4)])
        one: npt.NDArray[np.uint32] = _table()[tables & np.uint32(0xFF)] ^ (tables >> np.uint32(8))
        return one
    half = _shift_tables(length // 2)
    return _shift(half, half)


def _shift(tables: npt.NDArray[np.uint32], crc: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    low, high = tables[0][crc & np.uint32(0xFF)], tables[3][crc >> np.uint32(24)]
    middle = tables[1][(crc >> np.uint32(8)) & np.uint32(0xFF)] ^ tables[2][(crc >> np.uint32(16)) & np.uint32(0xFF)]
    result: npt.NDArray[np.uint32] = low ^ middle ^ high
    return result
