"""Builds one stage of a data set: complete or absent, once, and by one process at a time."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from runner.contract.errors import RunnerError
from runner.contract.jsonio import file_sha256, sync_folder
from runner.contract.preparation import (
    DATASET_VARIABLE,
    RAW,
    RAW_VARIABLE,
    SOURCE_VARIABLE,
    Marker,
    StagePaths,
    count,
    listing_key,
    read_marker,
    stage_inputs,
)
from runner.inside.dataset.lists import DataError


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where a prepare launch reads and writes."""

    root: Path
    """The data set's folder, writable."""
    raw: Path
    """The full raw data."""
    source: Path | None
    """What raw is taken from: a folder or an archive; None if nothing was given."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What one stage writes and how it is checked."""

    name: str
    write: Callable[[Places, Path], None]
    """Fills an empty folder. Raises DataError where the input is not right; then nothing of it stays."""
    check: Callable[[Places, Path], None]
    """Raises DataError unless the folder is right and whole."""


def build(stage: Stage, places: Places, recipe: str, say: Callable[[str], None] = print) -> bool:
    """Make `stage` unless it is complete and made from the same inputs, by the same `recipe`; True if this call made it.

    Raises:
        DataError: the source or what is there already is not right. Nothing half-written stays.
    """
    paths = StagePaths(places.root, stage.name)
    paths.lock.parent.mkdir(exist_ok=True)
    with _locked(paths.lock):
        _clear(paths)
        inputs = stage_inputs(stage.name, recipe, places.root, places.raw)
        marker = read_marker(paths.marker)
        if paths.folder.is_dir() and _keep(stage, places, paths, marker, inputs):
            say(f"{stage.name}: complete, kept as it is ({paths.folder})")
            return False
        _write_whole(stage, places, paths)
        _mark(paths, inputs)
        files, size = count(paths.folder)
        say(f"{stage.name}: {files} files, {size / 1e6:.1f} MB in {paths.folder}")
        return True


def places_of(environment: Mapping[str, str]) -> Places:
    """Where to read and write, as the launch's variables say.

    Raises:
        RunnerError: DATASET_DIR is not set.
    """
    root = environment.get(DATASET_VARIABLE)
    if not root:
        raise RunnerError(f"{DATASET_VARIABLE} is not set; a data set is prepared with `make dataset DATASET=<name>`")
    source = environment.get(SOURCE_VARIABLE)
    return Places(
        root=Path(root),
        raw=Path(environment.get(RAW_VARIABLE) or Path(root) / RAW),
        source=Path(source) if source else None,
    )


def _keep(stage: Stage, places: Places, paths: StagePaths, marker: Marker | None, inputs: str) -> bool:
    """Whether the folder that is there stays. What is not as its marker says came by hand, was changed by hand, or its
    writer was killed: only what this stage would write in its place tells which."""
    if stage.name == RAW:
        if marker is None:
            stage.check(places, paths.folder)
            _mark(paths, inputs)
        if places.source is not None:
            _refuse_other_source(stage, places, paths)
        return True
    as_made = marker is not None and marker.made == listing_key(paths.folder)
    if as_made and marker is not None and marker.inputs == inputs:
        return True
    _write_unfinished(stage, places, paths)
    if _contents(paths.unfinished) == _contents(paths.folder):  # then a run that reads it is not disturbed
        remove(paths.unfinished)
        _mark(paths, inputs)
        return True
    if not as_made:
        remove(paths.unfinished)
        raise DataError(
            f"{paths.folder}: holds something that this stage did not make, or was changed since; move it away and run the "
            f"same command again"
        )
    return False


def _refuse_other_source(stage: Stage, places: Places, paths: StagePaths) -> None:
    _write_unfinished(stage, places, paths)
    try:
        if _contents(paths.unfinished) != _contents(paths.folder):
            raise DataError(
                f"{paths.folder}: already holds other data than {places.source}; raw data is never overwritten, "
                f"move that folder away first"
            )
    finally:
        remove(paths.unfinished)


def _write_unfinished(stage: Stage, places: Places, paths: StagePaths) -> None:
    remove(paths.unfinished)
    paths.unfinished.mkdir()
    try:
        stage.write(places, paths.unfinished)
        stage.check(places, paths.unfinished)
    except DataError as error:
        remove(paths.unfinished)
        raise DataError(str(error).replace(str(paths.unfinished), stage.name)) from None
    except BaseException:
        remove(paths.unfinished)
        raise


def _write_whole(stage: Stage, places: Places, paths: StagePaths) -> None:
    """Build beside, sync, rename. An older version goes only when the new one is whole."""
    _write_unfinished(stage, places, paths)
    _sync_tree(paths.unfinished)
    if paths.folder.exists():
        os.rename(paths.folder, paths.old)
    os.rename(paths.unfinished, paths.folder)
    sync_folder(paths.root)
    remove(paths.old)


def _mark(paths: StagePaths, inputs: str) -> None:
    files, size = count(paths.folder)
    made = listing_key(paths.folder)
    Marker(stage=paths.stage, inputs=inputs, made=made, files=files, bytes=size).write(paths.marker)


def _contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _clear(paths: StagePaths) -> None:
    """Put right what a kill has left: a folder half-built, a marker half-written, an older version that was to be replaced."""
    remove(paths.unfinished)
    if paths.old.exists() and not paths.folder.exists():
        os.rename(paths.old, paths.folder)
    remove(paths.old)
    for marker in paths.marker.parent.glob(f".{paths.marker.name}.*"):
        marker.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Delete a folder, also one with folders in it that may not be written to; nothing if it is not there."""
    for parent, names, _ in os.walk(folder):
        for path in [parent, *(os.path.join(parent, name) for name in names)]:
            if not os.path.islink(path):
                os.chmod(path, os.stat(path).st_mode | 0o700)
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _sync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            descriptor = os.open(os.path.join(parent, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(parent))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
