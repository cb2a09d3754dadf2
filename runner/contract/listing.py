"""Every file of a folder with its checksum, size and mode; on disk one line a file, to be compared later."""

import gzip
import io
import json
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.contract.errors import RunnerError
from runner.contract.jsonio import atomic_path

_DIGEST = 32


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file."""

    path: str
    """Below the folder; bytes that are not UTF-8 as surrogates (os.fsencode gives them back)."""
    sha256: str
    size: int
    """Bytes."""
    mode: int
    """Permission bits."""


@dataclass(frozen=True)
class Listing(Sequence[FileEntry]):
    """The files in the order of their paths' bytes, in flat columns."""

    names: list[bytes]
    digests: bytes
    """32 bytes a file."""
    sizes: "array[int]"
    modes: "array[int]"

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        return FileEntry(
            path=os.fsdecode(self.names[index]),
            sha256=self.digest(index).hex(),
            size=self.sizes[index],
            mode=self.modes[index],
        )

    def digest(self, index: int) -> bytes:
        """The sha256 of one file, 32 bytes."""
        return self.digests[index * _DIGEST : (index + 1) * _DIGEST]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Paths, in order."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    """Other bytes."""
    mode_changed: tuple[str, ...] = ()
    """The same bytes with other permission bits."""

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.mode_changed)


def compare(before: Listing, after: Listing) -> Difference:
    """What became of the files between two listings."""
    added, removed, changed, mode_changed = [], [], [], []
    for old, new in _pairs(before.names, after.names):
        if old is None and new is not None:
            added.append(os.fsdecode(after.names[new]))
        elif new is None and old is not None:
            removed.append(os.fsdecode(before.names[old]))
        elif old is not None and new is not None:
            if before.digest(old) != after.digest(new):
                changed.append(os.fsdecode(after.names[new]))
            elif before.modes[old] != after.modes[new]:
                mode_changed.append(os.fsdecode(after.names[new]))
    return Difference(
        added=tuple(added), removed=tuple(removed), changed=tuple(changed), mode_changed=tuple(mode_changed)
    )


def _pairs(before: list[bytes], after: list[bytes]) -> Iterator[tuple[int | None, int | None]]:
    """Indices of equal names in two sorted lists; None where a name is in one of them only."""
    old = new = 0
    while old < len(before) and new < len(after):
        if before[old] == after[new]:
            yield old, new
            old, new = old + 1, new + 1
        elif before[old] < after[new]:
            yield old, None
            old += 1
        else:
            yield None, new
            new += 1
    yield from ((index, None) for index in range(old, len(before)))
    yield from ((None, index) for index in range(new, len(after)))


def write_listing(path: Path, listing: Listing) -> None:
    """One line a file: sha256, size, mode, path (a JSON string), tabs between. Compressed if `path` ends in .gz."""
    with atomic_path(path) as temporary, temporary.open("wb") as plain:
        packed = gzip.GzipFile("", "wb", 6, plain, mtime=0) if path.suffix == ".gz" else plain
        for entry in listing:
            packed.write(f"{entry.sha256}\t{entry.size}\t{entry.mode:04o}\t{json.dumps(entry.path)}\n".encode())
        if packed is not plain:
            packed.close()


def read_listing(path: Path) -> Listing:
    """The listing that `write_listing` wrote.

    Raises:
        RunnerError: not there, or not such a file; the text names it and the line.
    """
    names: list[bytes] = []
    digests, sizes, modes = io.BytesIO(), array("q"), array("I")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as handle:
            for line in handle:
                digest, size, mode, name = line.rstrip(b"\n").split(b"\t", 3)
                if digests.write(bytes.fromhex(digest.decode())) != _DIGEST:
                    raise ValueError("not a sha256")
                sizes.append(int(size))
                modes.append(int(mode, 8))
                names.append(os.fsencode(json.loads(name)))
    except FileNotFoundError:
        raise RunnerError(f"{path}: not there") from None
    except (ValueError, OverflowError, TypeError, EOFError, gzip.BadGzipFile) as error:
        raise RunnerError(f"{path}:{len(names) + 1}: not a listing of files ({error})") from None
    return Listing(names, digests.getvalue(), sizes, modes)
