"""source.tar: one tree as one file, the same bytes for the same tree. Any tar reads it; we read back only our own.

GNU format, files and symlinks sorted by path, nothing else: no folders, no owners, no times. Reading is strict: a
member that `pack` would not have written is refused, which leaves no room for absolute paths, `..`, devices or writing
through a symlink.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from runner.contract.errors import RunnerError
from runner.host.source.git import printable
from runner.host.source.tree import EXECUTABLE, FILE, SYMLINK, Entry, blob_id, git_mode

_BLOCK = 512
_CHUNK = 1 << 22
_LONG = b"././@LongLink"
_TYPES = {FILE: b"0", EXECUTABLE: b"0", SYMLINK: b"2"}
_BITS = {FILE: 0o644, EXECUTABLE: 0o755, SYMLINK: 0o777}


class Sink(Protocol):
    """What an archive is written to."""

    def write(self, content: bytes, /) -> object:
        """Take `content`."""


class Changed(Exception):
    """A file changed or went away while it was being read."""


def _number(value: int) -> bytes:
    """Twelve bytes: octal, or from 8 GiB on GNU's binary form."""
    return b"%011o\0" % value if value < 1 << 33 else b"\x80" + value.to_bytes(11, "big")


def _header(name: bytes, bits: int, size: int, kind: bytes, target: bytes = b"") -> bytes:
    start = name.ljust(100, b"\0") + b"%07o\0" % bits + b"0000000\0" * 2 + _number(size) + b"%011o\0" % 0
    end = kind + target.ljust(100, b"\0") + b"ustar  \0"
    return (start + b"%06o\0 " % (sum(start) + sum(end) + 8 * 32) + end).ljust(_BLOCK, b"\0")


def _long(value: bytes, kind: bytes) -> bytes:
    """The extra member that carries a name of more than a hundred bytes."""
    return _header(_LONG, 0, len(value) + 1, kind) + _padded(value + b"\0")


def _padded(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % _BLOCK)


def member_head(path: bytes, mode: int, size: int, target: bytes = b"") -> bytes:
    """The header blocks of one member; `target` is where a symlink leads."""
    long = (_long(target, b"K") if len(target) > 100 else b"") + (_long(path, b"L") if len(path) > 100 else b"")
    return long + _header(path[:100], _BITS[mode], size, _TYPES[mode], target[:100])


def pack(root: bytes, paths: Iterable[bytes], out: Sink) -> list[Entry]:
    """Write the files below `root`, sorted, to `out`, reading each once; the entries tell what was written.

    Raises:
        Changed: a file went away, or changed its size or kind under the reader.
        RunnerError: a file cannot be read.
    """
    entries: list[Entry] = []
    for path in sorted(paths):
        name = root + b"/" + path
        try:
            entries.append(_pack_file(name, path, out))
        except PermissionError:
            raise RunnerError(f"{printable(path)} cannot be read: make it readable or add it to .gitignore") from None
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.EISDIR, errno.EINVAL):
                raise Changed(path) from None
            if error.errno != errno.ELOOP:
                raise
            entries.append(_pack_link(name, path, out))
    out.write(b"\0" * (2 * _BLOCK))
    return entries


def _pack_link(name: bytes, path: bytes, out: Sink) -> Entry:
    try:
        target = os.readlink(name)
    except OSError:
        raise Changed(path) from None
    out.write(member_head(path, SYMLINK, 0, target))
    return Entry(path, SYMLINK, blob_id(target))


def _pack_file(name: bytes, path: bytes, out: Sink) -> Entry:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        seen = os.fstat(descriptor)
        mode = git_mode(seen.st_mode)
        if mode is None:
            raise Changed(path)
        size = seen.st_size
        out.write(member_head(path, mode, size))
        if size < _CHUNK:
            content = os.read(descriptor, size + 1)
            if len(content) != size:
                raise Changed(path)
            out.write(_padded(content))
            return Entry(path, mode, blob_id(content))
        digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        rest = size
        while rest:
            content = os.read(descriptor, min(rest, _CHUNK))
            if not content:
                raise Changed(path)
            digest.update(content)
            out.write(content)
            rest -= len(content)
        out.write(b"\0" * (-size % _BLOCK))
        return Entry(path, mode, digest.hexdigest().encode())
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Member:
    """One file of an archive, about to be read."""

    path: bytes
    mode: int
    size: int
    """Of a symlink, the length of its target."""
    offset: int
    """Where its bytes start; a symlink has none."""
    target: bytes


def members(archive: IO[bytes], name: Path) -> Iterator[Member]:
    """The members in order, each spelled exactly as `pack` spells it, its path below the root and after the one before.

    Raises:
        RunnerError: the file is cut short or is not one of ours; the text names it and the member.
    """
    before = b""
    position = 0
    long: dict[bytes, bytes] = {}
    while True:
        archive.seek(position)
        block = archive.read(_BLOCK)
        position += _BLOCK
        if block == b"\0" * _BLOCK and not long:
            if archive.read() != b"\0" * _BLOCK:
                raise RunnerError(f"{name}: no whole source archive (its end is missing or followed by something)")
            return
        try:
            size = _size(block)
            kind = block[156:157]
            if kind in (b"L", b"K") and not 100 < size - 1 < 1 << 16:
                raise ValueError("a long name of impossible length")
            if kind in (b"L", b"K"):
                body = archive.read(size + -size % _BLOCK)
                long[kind] = body[: size - 1]
                if block + body != _long(long[kind], kind):
                    raise ValueError("not spelled the way source archives are")
                position += len(body)
                continue
            path = long.pop(b"L", block[:100].rstrip(b"\0"))
            target = long.pop(b"K", block[157:257].rstrip(b"\0"))
            mode = SYMLINK if kind == b"2" else EXECUTABLE if int(block[100:107], 8) & 0o100 else FILE
            if block != _header(path[:100], _BITS[mode], size, _TYPES[mode], target[:100]) or long:
                raise ValueError("not spelled the way source archives are")
            if (mode == SYMLINK) != bool(target) or (mode == SYMLINK and size):
                raise ValueError("a link without a target or a target without a link")
            if any(part in (b"", b".", b"..", b".git") for part in path.split(b"/")) or b"\0" in path + target:
                raise ValueError("a path that leads out of the source")
            if path <= before:
                raise ValueError("out of order")
        except ValueError as error:
            where = printable(block[:100].rstrip(b"\0")) or "its first bytes"
            raise RunnerError(f"{name}: no source archive of ours: {where}: {error}") from None
        before = path
        yield Member(path, mode, len(target) if mode == SYMLINK else size, position, target)
        position += size + -size % _BLOCK


def _size(block: bytes) -> int:
    if len(block) != _BLOCK:
        raise ValueError("cut short")
    field = block[124:136]
    return int.from_bytes(field[1:], "big") if field[:1] == b"\x80" else int(field[:11], 8)


def read_member(archive: IO[bytes], member: Member) -> Iterator[bytes]:
    """The bytes of one member, in pieces; the position is the archive's own, so finish one before the next."""
    if member.mode == SYMLINK:
        yield member.target
        return
    archive.seek(member.offset)
    rest = member.size
    while rest:
        content = archive.read(min(rest, _CHUNK))
        if not content:
            raise RunnerError(f"{printable(member.path)}: the source archive ends within it: copy the archive again")
        rest -= len(content)
        yield content
    if archive.read(-member.size % _BLOCK).strip(b"\0"):
        raise RunnerError(f"{printable(member.path)}: the source archive is damaged after it: copy the archive again")


def id_of(member: Member, pieces: Iterable[bytes], sink: Callable[[bytes], object] = lambda piece: None) -> bytes:
    """The blob id of a member whose bytes pass through to `sink`."""
    digest = hashlib.sha1(b"blob %d\0" % member.size, usedforsecurity=False)
    for piece in pieces:
        digest.update(piece)
        sink(piece)
    return digest.hexdigest().encode()


def verify(archive: IO[bytes], name: Path) -> list[Entry]:
    """The entries of a whole archive, every byte read."""
    return [Entry(m.path, m.mode, id_of(m, read_member(archive, m))) for m in members(archive, name)]


def unpack(archive: IO[bytes], name: Path, folder: bytes) -> list[Entry]:
    """Write the files of an archive below `folder`, which is new and empty; modes are plain whatever the umask.

    Raises:
        RunnerError: the archive is not one of ours, or one of its files lies below another.
    """
    made = {b""}
    entries: list[Entry] = []
    for member in members(archive, name):
        target = folder + b"/" + member.path
        try:
            _make_parents(folder, member.path, made)
            if member.mode == SYMLINK:
                os.symlink(member.target, target)
                entries.append(Entry(member.path, member.mode, blob_id(member.target)))
                continue
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise RunnerError(
                f"{name}: no source archive of ours: {printable(member.path)} lies below a file"
            ) from None
        with open(descriptor, "wb", buffering=0) as handle:
            entries.append(Entry(member.path, member.mode, id_of(member, read_member(archive, member), handle.write)))
            os.fchmod(descriptor, _BITS[member.mode])
    return entries


def _make_parents(folder: bytes, path: bytes, made: set[bytes]) -> None:
    parent = path.rpartition(b"/")[0]
    if parent not in made:
        _make_parents(folder, parent, made)
        os.mkdir(folder + b"/" + parent)
        os.chmod(folder + b"/" + parent, 0o755)
        made.add(parent)
