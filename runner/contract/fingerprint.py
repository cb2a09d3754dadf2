"""The identity of a folder of data: one sha256 over the path and the bytes of every file in it.

Anybody can compute it again with coreutils:

    cd FOLDER && find -L . -type f -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 sha256sum -z -- | sha256sum

Empty folders and times count for nothing, permission bits have a hash of their own. Files whose device, inode, size,
mtime and ctime are what they were are not read again, unless asked for.
"""

import hashlib
import os
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from runner.contract.errors import RunnerError
from runner.contract.fingerprint_cache import Remembered, cache_path, read_cache, write_cache
from runner.contract.hashing import CHANGED, hash_files
from runner.contract.listing import Listing
from runner.contract.tree_walk import KEY_FIELDS, Tree, shown_path, walk

_DIGEST = 32
_RACY_NS = 2_000_000_000
"""A file changed this shortly before it was read may change again within the same tick of the clock: read it again."""
_PART = 10_000

Progress = Callable[[int, int], None]
"""Called with the bytes read so far and the bytes to read, from any thread, not for every file."""


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """A folder of data, identified."""

    sha256: str
    """Over sorted paths and bytes."""
    files: int
    bytes: int
    modes_sha256: str
    """Over sorted paths and permission bits."""
    cached: int
    """How many files were answered from the cache instead of being read."""
    listing: Listing = field(repr=False, compare=False)
    """Every file."""


def fingerprint(
    root: Path, *, cache: Path | None = None, full: bool = False, progress: Progress | None = None
) -> Fingerprint:
    """The fingerprint of the folder `root`, which may be a symlink to one.

    `cache` is a folder that remembers checksums; `full` reads every file all the same.

    Raises:
        RunnerError: see `walk`; and a file that cannot be read or that changes meanwhile.
    """
    path = None if cache is None else cache_path(cache, os.path.realpath(os.fsencode(root)))
    remembered = None if path is None or full else read_cache(path)
    tree = walk(root, ask=remembered is not None or progress is not None)
    if remembered is not None and remembered.is_of(tree):
        return _result(tree, remembered, cached=len(tree.names))
    started_ns = time.time_ns()
    digests, missing = _known(tree, remembered)
    _hash(tree, missing, digests, progress)
    found = Remembered(tree.names, tree.keys, tree.modes, bytes(digests), _total(tree, digests), _modes_total(tree))
    if path is not None:
        write_cache(path, _trusted(found, started_ns))
    return _result(tree, found, cached=len(tree.names) - len(missing))


def _result(tree: Tree, found: Remembered, *, cached: int) -> Fingerprint:
    sizes = tree.keys[2::KEY_FIELDS]
    return Fingerprint(
        sha256=found.total.hex(),
        files=len(tree.names),
        bytes=sum(sizes),
        modes_sha256=found.modes_total.hex(),
        cached=cached,
        listing=Listing(tree.names, found.digests, sizes, tree.modes),
    )


def _known(tree: Tree, remembered: Remembered | None) -> tuple[bytearray, list[int]]:
    """The digests that are remembered, and the indices of the files to read. Both lists are sorted: one pass."""
    digests = bytearray(_DIGEST * len(tree.names))
    if remembered is None:
        return digests, list(range(len(tree.names)))
    missing, old, count = [], 0, len(remembered.names)
    for index, name in enumerate(tree.names):
        while old < count and remembered.names[old] < name:
            old += 1
        same = old < count and remembered.names[old] == name
        if (
            same
            and remembered.keys[old * KEY_FIELDS : (old + 1) * KEY_FIELDS]
            == tree.keys[index * KEY_FIELDS : (index + 1) * KEY_FIELDS]
        ):
            digests[index * _DIGEST : (index + 1) * _DIGEST] = remembered.digests[old * _DIGEST : (old + 1) * _DIGEST]
        else:
            missing.append(index)
    return digests, missing


def _hash(tree: Tree, indices: list[int], digests: bytearray, progress: Progress | None) -> None:
    """Read the files and fill in their digests; and their keys and modes, if nothing has asked for these so far."""
    paths = [tree.root + b"/" + tree.names[index] for index in indices]
    total = sum(tree.keys[index * KEY_FIELDS + 2] for index in indices) if progress is not None else 0
    try:
        hashed = hash_files(paths, _meter(total, progress))
    except OSError as error:
        raise RunnerError(f"{shown_path(tree.root)}: cannot be hashed ({error.strerror})") from None
    if any(hashed.problems):
        _refuse(paths, hashed.problems)
    if not tree.keys:
        tree.keys.extend(hashed.keys)
        tree.modes.extend(hashed.modes)
    if len(indices) == len(tree.names) and hashed.keys == tree.keys:
        digests[:] = hashed.digests
        return
    for number, index in enumerate(indices):
        if hashed.keys[number * KEY_FIELDS : (number + 1) * KEY_FIELDS] != tree.key(index):
            _refuse([paths[number]], [CHANGED])
        digests[index * _DIGEST : (index + 1) * _DIGEST] = hashed.digests[number * _DIGEST : (number + 1) * _DIGEST]


def _refuse(paths: Sequence[bytes], problems: Sequence[int]) -> NoReturn:
    """Raise for the first file that has a problem."""
    path, problem = next((path, problem) for path, problem in zip(paths, problems, strict=True) if problem)
    if problem == CHANGED:
        raise RunnerError(f"{shown_path(path)}: changed while it was being read; wait until nothing writes to it")
    raise RunnerError(f"{shown_path(path)}: cannot be read ({os.strerror(problem)})")


def _meter(total: int, progress: Progress | None) -> Callable[[int], None]:
    """Adds up what is read and reports about a hundred times in all."""
    if progress is None:
        return lambda size: None
    done, shown = 0, 0

    def note(size: int) -> None:
        nonlocal done, shown
        done += size
        if done - shown >= max(total // 100, 1):
            shown = done
            progress(done, total)

    return note


def _total(tree: Tree, digests: bytearray) -> bytes:
    def lines(start: int, end: int) -> Iterator[bytes]:
        text = digests[start * _DIGEST : end * _DIGEST].hex().encode()
        for number, name in enumerate(tree.names[start:end]):
            yield b"%s  %s" % (text[2 * _DIGEST * number : 2 * _DIGEST * (number + 1)], name)

    return _hashed(lines, len(tree.names))


def _modes_total(tree: Tree) -> bytes:
    def lines(start: int, end: int) -> Iterator[bytes]:
        for mode, name in zip(tree.modes[start:end], tree.names[start:end], strict=True):
            yield b"%04o %s" % (mode, name)

    return _hashed(lines, len(tree.names))


def _hashed(lines: Callable[[int, int], Iterator[bytes]], count: int) -> bytes:
    """The sha256 of lines that each end with NUL, which no file name holds. A part at a time, for the memory's sake."""
    found = hashlib.sha256()
    for start in range(0, count, _PART):
        found.update(b"\0".join([*lines(start, min(start + _PART, count)), b""]))
    return found.digest()


def _trusted(found: Remembered, started_ns: int) -> Remembered:
    """What may be remembered: files that changed too lately get a key that no file has."""
    keys = array("q", found.keys)
    lately = started_ns - _RACY_NS
    for index, changed in enumerate(map(max, keys[3::KEY_FIELDS], keys[4::KEY_FIELDS])):
        if changed > lately:
            keys[index * KEY_FIELDS + 1] = -1
    return Remembered(found.names, keys, found.modes, found.digests, found.total, found.modes_total)
