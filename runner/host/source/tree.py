"""Git tree ids computed from the files themselves, and the table that spares reading what did not change.

A tree id is the SHA-1 that git gives to the same files, whatever kind of ids the user's repository has.
"""

import hashlib
import json
import os
import secrets
import stat
import sys
import time
from array import array
from binascii import unhexlify
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE, EXECUTABLE, SYMLINK, FOLDER = 0o100644, 0o100755, 0o120000, 0o040000
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_SETTLED_NS = 2_000_000_000
"""A file changed this shortly before it was looked at may change again with the same time: it is read again."""
_WIDTH = 5

Look = tuple[int, int, int, int, int]
"""mode, inode, size, mtime_ns, ctime_ns: what changes when a file does. ctime cannot be put back."""


@dataclass(frozen=True)
class Entry:
    """One file of a tree."""

    path: bytes
    """Relative, with slashes."""
    mode: int
    """FILE, EXECUTABLE or SYMLINK; FOLDER stands for a whole folder."""
    oid: bytes
    """Its git blob id in hex; a folder's tree id."""


def look(root: bytes, paths: Iterable[bytes]) -> dict[bytes, Look]:
    """lstat of each path below `root`; those that are gone are left out."""
    prefix = root.rstrip(b"/") + b"/"
    seen: dict[bytes, Look] = {}
    lstat = os.lstat
    for path in paths:
        try:
            s = lstat(prefix + path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        seen[path] = (s.st_mode, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
    return seen


def git_mode(mode: int) -> int | None:
    """The mode git would record for st_mode `mode`; None for what is no file of a tree (folders, sockets, devices)."""
    if stat.S_ISREG(mode):
        return EXECUTABLE if mode & stat.S_IXUSR else FILE
    return SYMLINK if stat.S_ISLNK(mode) else None


def blob_id(content: bytes) -> bytes:
    """The git blob id of `content` in hex."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest().encode()


def tree_ids(entries: Iterable[Entry]) -> dict[bytes, str]:
    """The git tree id of every folder that `entries` make up, by its path; the whole is b""."""
    folders: dict[bytes, list[tuple[bytes, bytes]]] = {b"": []}
    for entry in entries:
        folder, _, name = entry.path.rpartition(b"/")
        key = name + b"/" if entry.mode == FOLDER else name
        item = (key, b"%o %s\0%s" % (entry.mode, name, unhexlify(entry.oid)))
        try:
            folders[folder].append(item)
        except KeyError:
            folders[folder] = [item]
            while folder := folder.rpartition(b"/")[0]:
                folders.setdefault(folder, [])
    ids: dict[bytes, str] = {}
    for folder in sorted(folders, key=lambda path: path.count(b"/") + (path != b""), reverse=True):
        body = b"".join(line for _, line in sorted(folders[folder]))
        digest = hashlib.sha1(b"tree %d\0" % len(body) + body, usedforsecurity=False)
        ids[folder] = digest.hexdigest()
        if folder:
            parent, _, name = folder.rpartition(b"/")
            folders[parent].append((name + b"/", b"40000 %s\0%s" % (name, digest.digest())))
    return ids


def part_ids(entries: Iterable[Entry], ids: Mapping[bytes, str], project: str | None) -> dict[str, str]:
    """Tree ids of projects/<project>, of runner/, and of all the rest, so that a README edit changes only the rest.

    `ids` are the `tree_ids` of the entries: only the two upper levels have to be put together anew.
    """
    parts = {"runner": b"runner"}
    if project is not None:
        parts["project"] = b"projects/" + os.fsencode(project)
    upper = (b"", b"projects")
    rest = [entry for entry in entries if entry.path.rpartition(b"/")[0] in upper]
    rest += [
        Entry(path, FOLDER, tree.encode())
        for path, tree in ids.items()
        if path.rpartition(b"/")[0] in upper and path not in (*upper, *parts.values())
    ]
    return {name: ids.get(path, EMPTY_TREE) for name, path in sorted(parts.items())} | {"rest": tree_ids(rest)[b""]}


@dataclass(frozen=True)
class LookTable:
    """What a folder's files looked like, with a blob id each, and a few facts: one small file that loads in no time."""

    looks: Mapping[bytes, Look]
    oids: Mapping[bytes, bytes]
    """40 hex digits a path; for a folder's own line zeros."""
    facts: Mapping[str, Any]

    def save(self, path: Path) -> None:
        """Write the table whole or not at all. It is not synced: lost, it is made again."""
        header = {"schema_version": 1, "order": sys.byteorder, "paths": len(self.looks), "facts": dict(self.facts)}
        numbers = array("Q", (number for seen in self.looks.values() for number in seen))
        oids = b"".join(self.oids[name] for name in self.looks)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            with temporary.open("wb") as handle:
                handle.write(json.dumps(header).encode() + b"\n" + numbers.tobytes() + oids + b"\0".join(self.looks))
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> "LookTable | None":
        """The table in a file; None where there is none, or none that is whole and made here."""
        try:
            head, _, body = path.read_bytes().partition(b"\n")
            header = json.loads(head)
            count = header["paths"]
            if header["schema_version"] != 1 or header["order"] != sys.byteorder:
                return None
            numbers = array("Q")
            numbers.frombytes(body[: count * 8 * _WIDTH])
            oids = body[count * 8 * _WIDTH : count * (8 * _WIDTH + 40)]
            names = body[count * (8 * _WIDTH + 40) :].split(b"\0") if count else []
            columns = [iter(numbers)] * _WIDTH
            looks = dict(zip(names, zip(*columns, strict=True), strict=True))
            pieces = dict(zip(names, [oids[i : i + 40] for i in range(0, count * 40, 40)], strict=True))
            return cls(looks, pieces, header["facts"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None


def settled(looks: Mapping[bytes, Look], *, before_ns: int) -> dict[bytes, Look]:
    """`looks`, with zeros where a file was changed so shortly before `before_ns` that it may change again unseen."""
    limit = before_ns - _SETTLED_NS
    never: Look = (0, 0, 0, 0, 0)
    return {path: seen if seen[3] < limit and seen[4] < limit else never for path, seen in looks.items()}


def now_ns() -> int:
    """The clock that file times are compared with."""
    return time.time_ns()
