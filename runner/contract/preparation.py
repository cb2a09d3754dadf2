"""What the host and a data set's prepare.py agree on: the stages, and how to tell that one is complete.

A data set's folder under the datasets root:

    raw/ lmdb/ lists/       the full data; each is one stage
    toy/{raw,lmdb,lists}    the same tree in small; one stage
    .stages/                lock, what is being built, and one marker for each stage that is complete

A stage's folder appears by one rename, so it is complete or absent. Its marker says what it was made from.
"""

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from runner.contract.errors import RunnerError
from runner.contract.jsonio import file_sha256, pretty_json, read_json, sha256_of, write_atomic
from runner.contract.layout import DATASETS_DIR, TOY

RAW = "raw"
LMDB = "lmdb"
LISTS = "lists"
STAGES = (RAW, TOY, LMDB, LISTS)
NEEDS_RAW = (LMDB, LISTS)
"""The stages that are made from the full raw data; toy makes everything it needs."""

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
    def lock(self) -> Path:
        """Held with flock while any stage of this data set is built."""
        return self.root / ".stages" / "lock"


@dataclass(frozen=True, kw_only=True)
class Marker:
    """A complete stage's record of itself."""

    stage: str
    inputs: str
    """Hash of what the stage was made from, see `stage_inputs`."""
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
        return Marker(stage=value["stage"], inputs=value["inputs"], files=value["files"], bytes=value["bytes"])
    except KeyError as missing:
        raise RunnerError(f"{path}: lacks {missing}; remove it to have the stage checked") from None


def stage_inputs(stage: str, code: Path, raw: Path) -> str:
    """The hash of what `stage` is made from: prepare.py and, where it is read, the raw data by name, size and mtime.

    Raw itself has one hash for all: once there it is never made again.
    """
    if stage == RAW:
        return sha256_of({"stage": stage})
    listing = [[name, size, mtime] for name, size, mtime in _listing(raw)] if stage in NEEDS_RAW else []
    return sha256_of({"stage": stage, "code": file_sha256(code), "raw": listing})


def count(folder: Path) -> tuple[int, int]:
    """The number of files below `folder`, and their bytes."""
    sizes = [size for _, size, _ in _listing(folder)]
    return len(sizes), sum(sizes)


def _listing(folder: Path) -> list[tuple[str, int, int]]:
    found = []
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            status = os.stat(path)
            found.append((os.path.relpath(path, folder), status.st_size, status.st_mtime_ns))
    return sorted(found)
