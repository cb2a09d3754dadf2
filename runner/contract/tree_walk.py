"""The files below a folder with what the file system says of each, in one fixed order, symlinks followed."""

import os
import stat
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from runner.contract.errors import RunnerError

KEY_FIELDS = 5
"""Device, inode, size, mtime_ns, ctime_ns: while these five stay, so do a file's bytes. No program can set ctime."""

_INODE_MASK = 2**63 - 1
_TYPE = 0o170000
_FILE, _FOLDER, _LINK = 0o100000, 0o040000, 0o120000
_SLASH = ord("/")


@dataclass(frozen=True)
class Tree:
    """Files in the order of their paths' bytes. Three flat columns: a million files stay below 200 MB."""

    root: bytes
    """The folder's real path."""
    names: list[bytes] = field(default_factory=list)
    """Paths below root: bytes, because a file name need not be text."""
    keys: "array[int]" = field(default_factory=lambda: array("q"))
    """KEY_FIELDS numbers a file. Empty, like `modes`, where `walk` was told not to ask for them."""
    modes: "array[int]" = field(default_factory=lambda: array("I"))
    """Permission bits."""

    def key(self, index: int) -> "array[int]":
        """The key of one file."""
        return self.keys[index * KEY_FIELDS : (index + 1) * KEY_FIELDS]


def shown_path(path: bytes) -> str:
    """A path as a message shows it: one line, whatever bytes it is made of."""
    return path.decode("utf-8", "backslashreplace").replace("\n", "\\n").replace("\r", "\\r")


def walk(root: Path, *, ask: bool = True) -> Tree:
    """The files below `root`, which may itself be a symlink to another disk; with their keys and modes, if `ask`.

    A symlink counts as what it points to, if that is below the root by a relative way: anything else dangles once the
    folder is mounted elsewhere.

    Raises:
        RunnerError: not a folder, not readable, a symlink that dangles, loops or leads out, a file of no ordinary type.
    """
    top = os.path.realpath(os.fsencode(root))
    try:
        status = os.stat(top)
        if not stat.S_ISDIR(status.st_mode):
            raise RunnerError(f"{shown_path(os.fsencode(root))}: not a folder")
        walker = _Walker(Tree(top), ask)
        walker.folder(top, b"", (_identity(status),))
    except FileNotFoundError:
        raise RunnerError(f"{shown_path(os.fsencode(root))}: not there, or files vanished while it was read") from None
    except RecursionError:
        raise RunnerError(f"{shown_path(top)}: folders nested too deeply") from None
    except OSError as error:
        raise RunnerError(f"{shown_path(os.fsencode(error.filename or root))}: {error.strerror}") from None
    return walker.tree


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


class _Walker:
    def __init__(self, tree: Tree, ask: bool) -> None:
        self.tree = tree
        self._ask = ask

    def folder(self, path: bytes, below: bytes, above: tuple[tuple[int, int], ...]) -> None:
        """Add what is in one folder. `above` identifies it and the folders that lead to it."""
        names, keys, modes, lstat = self.tree.names, self.tree.keys, self.tree.modes, os.lstat
        with os.scandir(path) as entries:  # with "/" behind a folder's name, this order is that of the whole paths
            found = [
                (entry.name + b"/" if _leads_to_folder(entry) else entry.name, entry.is_file(follow_symlinks=False))
                for entry in entries
            ]
        found.sort()
        path += b"/"
        for name, is_plain in found:
            if is_plain and not self._ask:
                names.append(below + name)
                continue
            is_folder = name[-1] == _SLASH
            status = lstat(path + name[:-1] if is_folder else path + name)
            kind = status.st_mode & _TYPE
            if kind == _LINK:
                status = self._followed(path + name.rstrip(b"/"), below + name.rstrip(b"/"))
                kind = status.st_mode & _TYPE
            if kind == _FILE:
                names.append(below + name)
                if self._ask:
                    inode = status.st_ino & _INODE_MASK
                    keys.extend((status.st_dev, inode, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
                    modes.append(status.st_mode & 0o7777)
            elif kind == _FOLDER and is_folder:
                if _identity(status) in above:
                    self._refuse(below + name[:-1], "is a symlink that leads back to a folder it is in")
                self.folder(path + name[:-1], below + name, (*above, _identity(status)))
            else:
                self._refuse(below + name, "is no file, folder or symlink (a socket, pipe or device); take it away")

    def _followed(self, path: bytes, below: bytes) -> os.stat_result:
        """What a symlink leads to."""
        target = os.readlink(path)
        to = f"is a symlink to {shown_path(target)}, which"
        real_folder = os.path.realpath(os.path.dirname(path))
        way = os.path.normpath(os.path.join(os.path.relpath(real_folder, self.tree.root), target))
        if os.path.isabs(target) or way == b".." or way.startswith(b"../"):
            self._refuse(below, f"{to} leads out of the folder; make it relative to what is inside, or copy the file")
        try:
            status = os.stat(path)
        except FileNotFoundError:
            self._refuse(below, f"{to} is not there")
        except OSError as error:
            self._refuse(below, f"{to} cannot be followed ({error.strerror})")
        real = os.path.realpath(path)
        if not (real + b"/").startswith(self.tree.root.rstrip(b"/") + b"/"):
            self._refuse(below, f"{to} leads out of the folder by another symlink; copy the file")
        return status

    def _refuse(self, below: bytes, problem: str) -> NoReturn:
        raise RunnerError(f"{shown_path(self.tree.root + b'/' + below)}: {problem}")


def _leads_to_folder(entry: "os.DirEntry[bytes]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symlink that loops; `_followed` says so
        return False
