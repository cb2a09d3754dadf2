"""The code of a launch: a new snapshot of the house, or the one that a run keeps in its inputs/."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runner.contract import layout
from runner.contract.errors import RunnerError
from runner.contract.layout import RunPaths
from runner.contract.records import Manifest, SourceRecord
from runner.host.engines.engine import Mount
from runner.host.house import House
from runner.host.source import exports
from runner.host.source.snapshot import Source, snapshot

ARCHIVE = "source.tar"


@dataclass(frozen=True, kw_only=True)
class Code:
    """The source of a launch: its record, where it lies as files, and what is kept of it in inputs/."""

    record: SourceRecord
    workspace: Path
    inputs: Mapping[str, Path]


def code_of(house: House, project: str | None, *, mode: str = "prod", dry_run: bool = False) -> Code:
    """Snapshot the house as it stands. prod runs an export of the snapshot, dev the live tree.

    A dry run computes the same tree id and keeps nothing.
    """
    if dry_run:
        with tempfile.TemporaryDirectory(prefix="runner-") as folder:
            source = _snapshot(house, Path(folder), project, keep=False)
        workspace = house.root if mode == "dev" else exports.tree_files(source.tree, house.cache)
        return Code(record=record_of(source), workspace=workspace, inputs={})
    source = _snapshot(house, house.cache, project, keep=True)
    workspace = house.root if mode == "dev" else exports.export(source.tree, house.cache)
    return Code(
        record=record_of(source), workspace=workspace, inputs={ARCHIVE: exports.archive(source.tree, house.cache)}
    )


def code_of_run(house: House, run: RunPaths, manifest: Manifest, *, dry_run: bool = False) -> Code:
    """The code that a run was made with, from its inputs/ alone; checked against the tree id in its manifest. A dry run
    only names where it would lie.

    Raises:
        RunnerError: the archive is gone or is not what the manifest names.
    """
    if manifest.source is None:
        raise RunnerError(f"{run.folder.name}: its manifest names no source")
    if dry_run:
        workspace = exports.tree_files(manifest.source.tree, house.cache)
        return Code(record=manifest.source, workspace=workspace, inputs={})
    tree = exports.import_archive(run.inputs / ARCHIVE, house.cache, manifest.source.tree)
    return Code(record=manifest.source, workspace=exports.export(tree, house.cache), inputs={})


def _snapshot(house: House, cache: Path, project: str | None, *, keep: bool) -> Source:
    return snapshot(
        house.root,
        cache,
        project=project,
        allow=house.allow_secrets,
        exclude=(*house.roots, *data_folders(house)),
        keep=keep,
    )


def data_folders(house: House) -> list[Path]:
    """The data that lies inside the repository by default; never part of a snapshot."""
    names = ("raw", "lmdb", "lists", "toy", ".stages")
    return [folder / name for folder in house.datasets.glob("*") if folder.is_dir() for name in names]


def shields(house: House) -> tuple[Mount, ...]:
    """What lies in the live tree by default and is no code, read-only over it: live code (dev) must not rewrite the records
    of runs, their data, or the cache that other launches take their source from."""
    folders = [path for path in (*house.roots, *data_folders(house)) if house.root in path.parents]
    return tuple(
        Mount(source=path, target=layout.WORKSPACE / path.relative_to(house.root))
        for path in folders
        if path.is_dir() and not path.is_symlink()
    )


def record_of(source: Source) -> SourceRecord:
    """A snapshot as it stands in a manifest."""
    return SourceRecord(
        tree=source.tree,
        trees=source.trees,
        commit=source.commit,
        branch=source.branch,
        dirty=(*source.dirty, *source.untracked)[:1000],
        dirty_count=source.dirty_total + source.untracked_total,
        remote=source.remote,
    )
