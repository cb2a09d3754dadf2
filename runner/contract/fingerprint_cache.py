"""What a folder's files hashed to when they were last read. Its file may vanish, be damaged or be written by two."""

import hashlib
import os
import secrets
import struct
from array import array
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runner.contract.tree_walk import KEY_FIELDS, Tree

_MAGIC = b"runner fingerprint cache 1\n"
_HEAD = struct.Struct("<QQ32s32s")
_DIGEST = 32


@dataclass(frozen=True)
class Remembered:
    """One folder as it was hashed."""

    names: list[bytes]
    keys: "array[int]"
    modes: "array[int]"
    digests: bytes
    total: bytes
    modes_total: bytes

    def is_of(self, tree: Tree) -> bool:
        """Whether nothing in the folder has changed at all."""
        return self.keys == tree.keys and self.modes == tree.modes and self.names == tree.names


def cache_path(folder: Path, root: bytes) -> Path:
    """The cache file for one folder of data."""
    return folder / f"{hashlib.sha256(root).hexdigest()[:32]}.fingerprint"


def read_cache(path: Path) -> Remembered | None:
    """What is remembered; None if there is nothing or if it is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    body = memoryview(content)[len(_MAGIC) + _DIGEST :]
    if not content.startswith(_MAGIC) or hashlib.sha256(body).digest() != content[len(_MAGIC) :][:_DIGEST]:
        return None
    count, names_size, total, modes_total = _HEAD.unpack(body[: _HEAD.size])
    sizes = (names_size, count * KEY_FIELDS * 8, count * 4, count * _DIGEST)
    parts, start = [], _HEAD.size
    for size in sizes:
        parts.append(bytes(body[start : start + size]))
        start += size
    keys, modes = array("q"), array("I")
    keys.frombytes(parts[1])
    modes.frombytes(parts[2])
    names = parts[0].split(b"\0") if count else []
    return Remembered(names, keys, modes, parts[3], total, modes_total)


def write_cache(path: Path, remembered: Remembered) -> None:
    """Remember; readers see the old file or the new one. Where it cannot be written, nothing is remembered."""
    names = b"\0".join(remembered.names)
    head = _HEAD.pack(len(remembered.names), len(names), remembered.total, remembered.modes_total)
    body = b"".join((head, names, remembered.keys.tobytes(), remembered.modes.tobytes(), remembered.digests))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(_MAGIC + hashlib.sha256(body).digest() + body)
        os.replace(temporary, path)  # not synced: the checksum finds what a power cut leaves
    except OSError:  # a full or read-only disk must not stop a launch: the files are only read again next time
        with suppress(OSError):
            temporary.unlink()
