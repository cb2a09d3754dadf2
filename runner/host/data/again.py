"""The data of a run, found again by its fingerprint: where it was, or anywhere else below the datasets root."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runner.contract.dataset_file import dataset_names, load_dataset
from runner.contract.errors import RunnerError
from runner.contract.layout import DATASET_PARTS, TOY, RunPaths
from runner.contract.records import DataRecord
from runner.host.data import datasets
from runner.host.data.changed import differing_files
from runner.host.data.seen import SeenData, make_by_code, seen
from runner.host.engines.engine import Engine, Mount
from runner.host.house import House
from runner.host.launch.gather import Say
from runner.host.launch.here import Caller

DEPTH = 4
"""So many folders below the datasets root data is looked for."""


@dataclass(frozen=True, kw_only=True)
class DataAgain:
    """The data for a reproduction."""

    seen: SeenData
    problems: tuple[str, ...] = ()
    """One line for each data set that is not what the run saw; only with `force`."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which data, and how far to go for it."""

    run: RunPaths
    records: tuple[DataRecord, ...]
    full: bool = False
    """Read every byte again."""
    force: bool = False
    """Take what is there although it is other data."""
    dry_run: bool = False


def data_again(house: House, engine: Engine, wanted: Wanted, caller: Caller, say: Say) -> DataAgain:
    """The very data that a run saw. What is gone and code alone can make is made again, by its data set's own code.

    Raises:
        RunnerError: it is not here; the text names what is, the files that differ, and what to do.
    """
    records: list[DataRecord] = []
    mounts: list[Mount] = []
    inputs: dict[str, Path] = {}
    problems: list[str] = []
    for record in wanted.records:
        found, problem = _one(house, engine, wanted, record, caller, say)
        records += found.records
        mounts += found.mounts
        inputs |= found.inputs
        problems += [] if problem is None else [problem]
    return DataAgain(
        seen=SeenData(records=tuple(records), mounts=tuple(mounts), inputs=inputs), problems=tuple(problems)
    )


def _one(
    house: House, engine: Engine, wanted: Wanted, record: DataRecord, caller: Caller, say: Say
) -> tuple[SeenData, str | None]:
    cache = None if wanted.dry_run else house.cache
    home = house.datasets / record.name / (TOY if record.variant == TOY else "")
    if not _has_parts(home, record) and not wanted.dry_run and record.name in dataset_names(house.root):
        make_by_code(house, engine, load_dataset(house.root, record.name), record.variant, caller, say)
    here = None
    if _has_parts(home, record):
        here = seen(_resolved(home, record), cache, full=wanted.full)
        if here.records[0].fingerprint == record.fingerprint:
            return here, None
    for folder in _others(house.datasets, home, record):
        moved = seen(_resolved(folder, record), cache, full=wanted.full)
        if moved.records[0].fingerprint == record.fingerprint:
            say(f"note: {record.name} ({record.variant}) was found by its fingerprint in {folder}")
            return moved, None
    problem = _problem(house, wanted.run, record, home, here)
    if here is None or not wanted.force:
        raise RunnerError(problem + ("" if here is None else ", or run on what is there with FORCE=1"))
    say(f"note: {problem}")
    return here, problem


def _has_parts(folder: Path, record: DataRecord) -> bool:
    return all((folder / part).is_dir() for part in record.parts)


def _resolved(folder: Path, record: DataRecord) -> datasets.ResolvedDataset:
    """The run's parts in `folder`. A part that was made since is not mounted: the run did not see it."""
    return datasets.resolve_at(folder, record.name, record.variant, record.parts)


def _others(root: Path, home: Path, record: DataRecord) -> Iterator[Path]:
    """The other folders below the datasets root with the same parts, number of files and bytes."""
    from runner.contract.tree_walk import KEY_FIELDS, walk

    for folder in _folders(root, DEPTH):
        if folder == home or not _has_parts(folder, record):
            continue
        try:
            trees = [walk(folder / part) for part in record.parts]
        except RunnerError:  # a folder that cannot be walked is not the one that was launched
            continue
        files = sum(len(tree.names) for tree in trees)
        if files == record.files and sum(sum(tree.keys[2::KEY_FIELDS]) for tree in trees) == record.bytes:
            yield folder


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    """The folders below, parts and hidden ones left out: those hold the files of data sets, and may be many."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except OSError:  # one that may not be read holds nothing that could be mounted
        return
    for name in names:
        if name not in DATASET_PARTS and not name.startswith("."):
            yield folder / name
            if depth > 1:
                yield from _folders(folder / name, depth - 1)


def _problem(house: House, run: RunPaths, record: DataRecord, home: Path, here: SeenData | None) -> str:
    """What is wrong with the data, in one line."""
    wanted = f"{record.name} ({record.variant}, {record.files} files, fingerprint {record.fingerprint[:12]})"
    if here is None:
        return (
            f"{run.folder.name} saw {wanted}, which is nowhere below {house.datasets}; put it at {home}, or set "
            f"DATASETS_ROOT to where it is"
        )
    found, files = here.records[0], differing_files(run, here)
    return (
        f"{run.folder.name} saw {wanted}; {home} holds {found.files} files with fingerprint {found.fingerprint[:12]}"
        f"{f' ({files})' if files else ''}, and no other folder below {house.datasets} matches; bring the data back"
    )
