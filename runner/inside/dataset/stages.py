"""Builds one stage of a data set: complete or absent, once, and by one process at a time."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
    """Whether the folder that is there stays. Without a marker it came by hand, or its writer was killed."""
    if stage.name == RAW:
        if marker is None:
            stage.check(places, paths.folder)
            _mark(paths, inputs)
        if places.source is not None:
            _refuse_other_source(stage, places, paths)
        return True
    if marker is not None and marker.inputs == inputs:
        return True
    _write_unfinished(stage, places, paths)
    if _contents(paths.unfinished) == _contents(paths.folder):  # then a run that reads it is not disturbed
        shutil.rmtree(paths.unfinished)
        _mark(paths, inputs)
        return True
    if marker is None:
        shutil.rmtree(paths.unfinished)
        raise DataError(
            f"{paths.folder}: holds something that this stage did not make; move it away and run the same command again"
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
        shutil.rmtree(paths.unfinished)


def _write_unfinished(stage: Stage, places: Places, paths: StagePaths) -> None:
    shutil.rmtree(paths.unfinished, ignore_errors=True)
    paths.unfinished.mkdir()
    try:
        stage.write(places, paths.unfinished)
        stage.check(places, paths.unfinished)
    except DataError as error:
        shutil.rmtree(paths.unfinished, ignore_errors=True)
        raise DataError(str(error).replace(str(paths.unfinished), stage.name)) from None
    except BaseException:
        shutil.rmtree(paths.unfinished, ignore_errors=True)
        raise


def _write_whole(stage: Stage, places: Places, paths: StagePaths) -> None:
    """Build beside, sync, rename. An older version goes only when the new one is whole."""
    _write_unfinished(stage, places, paths)
    _sync_tree(paths.unfinished)
    old = paths.unfinished.with_suffix(".old")
    shutil.rmtree(old, ignore_errors=True)
    paths.marker.unlink(missing_ok=True)
    if paths.folder.exists():
        os.rename(paths.folder, old)
    os.rename(paths.unfinished, paths.folder)
    sync_folder(paths.root)
    shutil.rmtree(old, ignore_errors=True)


def _mark(paths: StagePaths, inputs: str) -> None:
    files, size = count(paths.folder)
    Marker(stage=paths.stage, inputs=inputs, files=files, bytes=size).write(paths.marker)


def _contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _clear(paths: StagePaths) -> None:
    """Remove what a kill has left: a folder half-built, a marker half-written."""
    shutil.rmtree(paths.unfinished, ignore_errors=True)
    for marker in paths.marker.parent.glob(f".{paths.marker.name}.*"):
        marker.unlink(missing_ok=True)


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
