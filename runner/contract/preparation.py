"""What the host and a data set's prepare.py agree on: the stages, and how to tell that one is complete.

A data set's folder under the datasets root:

    raw/ lists/ lmdb/         the full data; each is one stage
    toy/{raw,lists,lmdb}      the same tree in small; one stage
    readme/                   the facts that README.md shows, and a picture, of each of the two; one stage
    .stages/                  lock, what is being built, and one marker for each stage that is complete

A stage's folder appears by one rename, so it is complete or absent. Its marker says what it was made from.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from runner.contract.errors import RunnerError
from runner.contract.jsonio import pretty_json, read_json, sha256_of, write_atomic
from runner.contract.layout import DATASETS_DIR, TOY
from runner.contract.tree_walk import shown_path

RAW = "raw"
LISTS = "lists"
LMDB = "lmdb"
README = "readme"
MADE_FROM: Mapping[str, Sequence[str]] = {
    RAW: (),
    LISTS: (RAW,),
    LMDB: (RAW, LISTS),
    TOY: (),
    README: (RAW, LISTS, LMDB, TOY),
}
"""Each stage, and the folders that it reads. Toy makes everything it needs; readme describes what there is."""
STAGES = tuple(MADE_FROM)
NEEDS_RAW = (LISTS, LMDB)
"""The stages that cannot be without the full raw data."""
LINT, EXPLORE = "lint", "explore"
LOOKS = (LINT, EXPLORE)
"""What prepare.py can do besides: it looks at the data, and changes nothing."""

ListFiles = Callable[[Path], list[tuple[str, int, int]]]
"""`files_below`, or what stands for it."""

DATASET_VARIABLE = "DATASET_DIR"
"""Names the data set's writable folder in a prepare launch."""
RAW_VARIABLE = "RAW_DIR"
"""Names the raw data, read-only: a raw/ that is a symlink to another disk would dangle inside DATASET_DIR."""
SOURCE_VARIABLE = "SOURCE_DIR"
"""Names the folder or archive that raw is taken from, read-only."""

RAW_TARGET = PurePosixPath("/run/raw")
SOURCE_TARGET = PurePosixPath("/run/source")

_SCHEMA_VERSION = 1


def dataset_target(name: str) -> PurePosixPath:
    """Where the data set `name` is seen inside."""
    return DATASETS_DIR / name


@dataclass(frozen=True)
class StagePaths:
    """The files of one stage in a data set's folder."""

    root: Path
    stage: str

    @property
    def folder(self) -> Path:
        """What the stage makes."""
        return self.root / self.stage

    @property
    def marker(self) -> Path:
        """Written after the folder is in place."""
        return self.root / ".stages" / f"{self.stage}.json"

    @property
    def unfinished(self) -> Path:
        """What is being built; on the same file system, so that one rename puts it in place."""
        return self.root / ".stages" / f"{self.stage}.tmp"

    @property
    def old(self) -> Path:
        """What is being replaced, until the new one is in place."""
        return self.root / ".stages" / f"{self.stage}.old"

    @property
    def lock(self) -> Path:
        """Held with flock while any stage of this data set is built."""
        return self.root / ".stages" / "lock"


@dataclass(frozen=True, kw_only=True)
class Marker:
    """A complete stage's record of itself."""

    stage: str
    inputs: str
    """Hash of what the stage was made from, see `stage_inputs`."""
    made: str
    """Hash of what the stage has made, see `listing_key`; of raw, which is not compared, as of the others."""
    files: int
    bytes: int

    def write(self, path: Path) -> None:
        """Write it beside, then rename."""
        write_atomic(path, pretty_json({"schema_version": _SCHEMA_VERSION, **self.__dict__}))


def read_marker(path: Path) -> Marker | None:
    """The marker at `path`; None where there is none.

    Raises:
        RunnerError: it is there and unreadable, or of another schema version.
    """
    if not path.exists():
        return None
    value: Any = read_json(path)
    if not isinstance(value, dict) or value.get("schema_version") != _SCHEMA_VERSION:
        raise RunnerError(
            f"{path}: not a marker of schema_version {_SCHEMA_VERSION}; remove it to have the stage checked"
        )
    try:
        return Marker(**{key: value[key] for key in ("stage", "inputs", "made", "files", "bytes")})
    except KeyError as missing:
        raise RunnerError(f"{path}: lacks {missing}; remove it to have the stage checked") from None


def stage_inputs(stage: str, recipe: str, root: Path, raw: Path, list_files: ListFiles | None = None) -> str:
    """The hash of what `stage` is made from: its `recipe` (see DatasetInfo), and the folders it reads, by the names, sizes
    and mtimes of their files. `raw` may lie elsewhere. Whoever asks about several stages gives a `list_files` that remembers.

    Raw itself has one hash for all: once there it is never made again.
    """
    if stage == RAW:
        return sha256_of({"stage": stage})
    read = {part: raw if part == RAW else root / part for part in MADE_FROM[stage]}
    found = list_files or files_below
    listings = {part: [[*entry] for entry in found(folder)] for part, folder in read.items()}
    return sha256_of({"stage": stage, "recipe": recipe, **listings})


def listing_key(folder: Path, list_files: ListFiles | None = None) -> str:
    """The hash of the names, sizes and mtimes of the files below `folder`: another one after any ordinary change."""
    return sha256_of([[*entry] for entry in (list_files or files_below)(folder)])


def count(folder: Path) -> tuple[int, int]:
    """The number of files below `folder`, and their bytes."""
    sizes = [size for _, size, _ in files_below(folder)]
    return len(sizes), sum(sizes)


def files_below(folder: Path) -> list[tuple[str, int, int]]:
    """Every file's path below `folder`, its size and mtime_ns, sorted.

    Raises:
        RunnerError: a file that cannot be asked, such as a symlink that leads nowhere.
    """
    found = []
    skip = len(os.fspath(folder)) + 1
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            try:
                status = os.stat(path)
            except OSError as error:
                why = "a symlink that leads nowhere" if os.path.islink(path) else os.strerror(error.errno or 0)
                raise RunnerError(f"{shown_path(os.fsencode(path))}: {why}; mend it or take it away") from None
            found.append((path[skip:], status.st_size, status.st_mtime_ns))
    return sorted(found)
