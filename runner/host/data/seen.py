"""The data of a launch: the variants that its config names, as mounts and as records. What code alone can make is made."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from runner.contract.dataset_file import DatasetInfo, load_dataset
from runner.contract.jsonio import sha256_of
from runner.contract.layout import DATASET_PARTS, TOY
from runner.contract.preparation import LISTS, LMDB, files_below
from runner.contract.records import DataRecord
from runner.host.data import datasets
from runner.host.engines.engine import Engine, Mount
from runner.host.house import House
from runner.host.launch.gather import Resolved
from runner.host.launch.here import Caller

if TYPE_CHECKING:
    from runner.contract.fingerprint import Fingerprint

LISTINGS = "data"
"""Folder of inputs/ that holds the lists of files."""


@dataclass(frozen=True, kw_only=True)
class SeenData:
    """What a launch sees of its data sets."""

    records: tuple[DataRecord, ...]
    mounts: tuple[Mount, ...]
    inputs: Mapping[str, Path] = field(default_factory=dict)
    """The list of every part's files for inputs/: what tells later which file changed."""


NO_DATA = SeenData(records=(), mounts=())


def data_of(
    house: House,
    engine: Engine,
    resolved: Resolved,
    caller: Caller,
    say: Callable[[str], None],
    *,
    dry_run: bool,
    full: bool = False,
    instead: str | None = None,
) -> SeenData:
    """Resolve and fingerprint the data set that the config names; with `full` every byte is read again.

    `instead` is another data set, to be seen in its place.

    Raises:
        RunnerError: it is unknown, or not there and nothing that code can make; the text says how to get it.
    """
    if resolved.dataset is None:
        return NO_DATA
    variant = resolved.values["data"]
    info = load_dataset(house.root, instead or resolved.dataset)
    if not dry_run:
        make_by_code(house, engine, info, variant, caller, say)
    if dry_run and datasets.is_missing(info, house.datasets, variant):
        say(f"note: data set {info.name} ({variant}) is not there yet; its mounts are left out of this plan")
        return NO_DATA
    found = datasets.resolve(info, house.datasets, variant, resolved.dataset)
    found = without_stale(info, house.datasets, found, say)
    return seen(found, None if dry_run else house.cache, full=full)


def without_stale(
    info: DatasetInfo, root: Path, found: datasets.ResolvedDataset, say: Callable[[str], None]
) -> datasets.ResolvedDataset:
    """What was made from other data than is there now must not be read in its place: such an lmdb is left out, and of such
    lists it is said. The toy set is made anew by the launch itself."""
    list_files = cache(files_below)  # lists and lmdb are both made from raw, which may be a million files
    stale = [
        part
        for part in (LISTS, LMDB)
        if part in found.parts and found.variant != TOY and not datasets.is_complete(info, root, part, list_files)
    ]
    for part in stale:
        what = "left out" if part == LMDB else "used as it is"
        say(
            f"note: {part} of {info.name} was made from other data or by another prepare.py than is there now; it is {what}; "
            f"`make dataset DATASET={info.name}` makes it again"
        )
    return found.without(LMDB) if LMDB in stale else found


def make_by_code(
    house: House, engine: Engine, info: DatasetInfo, variant: str, caller: Caller, say: Callable[[str], None]
) -> None:
    """Make the stages of a variant that need no source, unless they are complete."""
    by_code = [TOY] if variant == TOY else [part for part in info.stages if part in DATASET_PARTS] * info.made_by_code
    for stage in by_code:
        if not datasets.is_complete(info, house.datasets, stage):
            from runner.host.verbs.prepare import prepare_stage  # prepare launches, and so imports what launches need

            prepare_stage(house, engine, info, stage, None, caller, say)


def seen(found: datasets.ResolvedDataset, cache: Path | None, *, full: bool = False) -> SeenData:
    """One variant as a launch sees it. Without a cache nothing is remembered and no list is kept (a dry run)."""
    prints = datasets.fingerprints(found, cache, full)
    kept = {} if cache is None else {listing_name(found.name, part): _listing(p, cache) for part, p in prints.items()}
    return SeenData(records=(datasets.record_of(found, prints),), mounts=(*found.mounts, *found.submounts), inputs=kept)


def listing_name(name: str, part: str) -> str:
    """Where the list of a part's files lies in a run's inputs/."""
    return f"{LISTINGS}/{name}.{part}.tsv.gz"


def _listing(found: "Fingerprint", cache: Path) -> Path:
    """The list of a part's files, written once for equal data; runs link it."""
    from runner.contract.listing import write_listing

    path = cache / "listings" / f"{sha256_of([found.sha256, found.modes_sha256])}.tsv.gz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_listing(path, found.listing)
    return path
