"""Data sets as the host sees them: what dataset.yml says, which parts are there, and how a missing one is prepared.

dataset.yml and prepare.py stand in the repository's datasets/<name>/. The data (raw/ lmdb/ lists/ toy/) stands in the
folder <name>/ of the datasets root, which may be another disk; by default it is the same folder.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner.contract.dataset_file import DatasetInfo, ImageChoice
from runner.contract.errors import RunnerError
from runner.contract.jsonio import sha256_of
from runner.contract.layout import DATASET_PARTS, TOY
from runner.contract.names import unknown
from runner.contract.preparation import (
    DATASET_VARIABLE,
    LISTS,
    LOOKS,
    MADE_FROM,
    NEEDS_RAW,
    RAW,
    RAW_TARGET,
    RAW_VARIABLE,
    SOURCE_TARGET,
    SOURCE_VARIABLE,
    ListFiles,
    StagePaths,
    dataset_target,
    listing_key,
    read_marker,
    stage_inputs,
)
from runner.contract.records import DataRecord
from runner.host.data.download import Progress, download
from runner.host.engines.engine import Mount

if TYPE_CHECKING:  # its helpers are loaded where something is hashed
    from runner.contract.fingerprint import Fingerprint

FULL = "full"
VARIANTS = (FULL, TOY)


class DatasetMissing(RunnerError):
    """A part of a data set is not there. `stage` says what a prepare launch would have to make."""

    def __init__(self, message: str, *, dataset: str, variant: str, stage: str) -> None:
        super().__init__(message)
        self.dataset = dataset
        self.variant = variant
        self.stage = stage


@dataclass(frozen=True, kw_only=True)
class ResolvedDataset:
    """The parts of one variant, as they are on this machine."""

    name: str
    variant: str
    parts: Mapping[str, Path]
    """Part → folder, absolute, symlinks resolved."""
    submounts: tuple[Mount, ...] = ()
    """Other file systems mounted below a part. A bind takes them along writable, so each is mounted again read-only."""
    seen_as: str = ""
    """The data set in whose place it is seen inside: its own, or the one that a run was trained on."""

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """Each part by itself, read-only."""
        target = dataset_target(self.seen_as or self.name)
        return tuple(Mount(source=path, target=target / part) for part, path in self.parts.items())

    def without(self, part: str) -> "ResolvedDataset":
        """The same, less one part."""
        below = dataset_target(self.seen_as or self.name) / part
        return replace(
            self,
            parts={name: path for name, path in self.parts.items() if name != part},
            submounts=tuple(mount for mount in self.submounts if below not in mount.target.parents),
        )


@dataclass(frozen=True, kw_only=True)
class PrepareRequest:
    """What a prepare launch of one stage needs."""

    dataset: str
    stage: str
    argv: tuple[str, ...]
    image: ImageChoice
    mounts: tuple[Mount, ...]
    """The data set's folder, writable; where the stage needs them, raw and the source, read-only."""
    environment: Mapping[str, str]
    network: bool
    """For raw alone, and there only if the host could not bring the source."""


# ------------------------------------------------------------------------------------------------------ what there is


def resolve(info: DatasetInfo, datasets_root: Path, variant: str = FULL, seen_as: str | None = None) -> ResolvedDataset:
    """The parts of `variant` on this machine: raw and lists (where the data set has them), lmdb if it was made.

    Inside they are seen as those of the data set `seen_as`, if it is given.

    Raises:
        DatasetMissing: a part that is needed is not there; the text says how to get it.
        RunnerError: no such variant, or a part that is no readable folder.
    """
    if variant not in VARIANTS:
        raise RunnerError(f"DATA={variant!r}: expected one of {', '.join(VARIANTS)}")
    root = _variant_root(info, datasets_root, variant)
    needed = [part for part in DATASET_PARTS if part == RAW or (part == LISTS and LISTS in info.stages)]
    parts = {}
    for part in DATASET_PARTS:
        path = root / part
        if os.path.lexists(path):
            parts[part] = _real_folder(path)
        elif part in needed:
            stage = TOY if variant == TOY else part
            command = f"make dataset DATASET={info.name}" + (f" STAGE={TOY}" if variant == TOY else "")
            message = f"data set {info.name}: {path} is not there; make it with `{command}`"
            raise DatasetMissing(message, dataset=info.name, variant=variant, stage=stage)
    target = seen_as or info.name
    return ResolvedDataset(
        name=info.name, variant=variant, parts=parts, submounts=_submounts(target, parts), seen_as=target
    )


def is_missing(info: DatasetInfo, datasets_root: Path, variant: str) -> bool:
    """Whether `resolve` would raise DatasetMissing."""
    try:
        resolve(info, datasets_root, variant)
    except DatasetMissing:
        return True
    return False


def is_complete(info: DatasetInfo, datasets_root: Path, stage: str, list_files: ListFiles | None = None) -> bool:
    """Whether `stage` is there and made from what is there now, so that a prepare launch would do nothing.

    A raw/ that is a symlink was put there by hand and counts as complete. `list_files` as for `stage_inputs`.
    """
    paths = StagePaths(datasets_root / info.name, _known_stage(info, stage))
    if stage == RAW and paths.folder.is_symlink():
        return paths.folder.is_dir()
    if not paths.folder.is_dir():
        return False
    marker = read_marker(paths.marker)
    raw = StagePaths(paths.root, RAW).folder
    if marker is None or marker.inputs != stage_inputs(stage, info.recipe, paths.root, raw, list_files):
        return False
    return stage == RAW or marker.made == listing_key(paths.folder, list_files)


def data_record(resolved: ResolvedDataset, cache: Path | None = None, full: bool = False) -> DataRecord:
    """The fingerprint of every part that a launch sees. `cache` names a folder; `full` reads every file again."""
    return record_of(resolved, fingerprints(resolved, cache, full))


def fingerprints(resolved: ResolvedDataset, cache: Path | None = None, full: bool = False) -> "dict[str, Fingerprint]":
    """The fingerprint of each part, with the list of its files."""
    from runner.contract.fingerprint import fingerprint

    return {part: fingerprint(path, cache=cache, full=full) for part, path in resolved.parts.items()}


def record_of(resolved: ResolvedDataset, prints: "Mapping[str, Fingerprint]") -> DataRecord:
    """The record of one variant from the fingerprints of its parts."""
    parts = {part: found.sha256 for part, found in prints.items()}
    return DataRecord(
        name=resolved.name,
        variant=resolved.variant,
        fingerprint=sha256_of(parts),
        parts=parts,
        files=sum(found.files for found in prints.values()),
        bytes=sum(found.bytes for found in prints.values()),
        cached=sum(found.cached for found in prints.values()),
    )


def resolve_at(root: Path, name: str, variant: str, parts: Iterable[str]) -> ResolvedDataset:
    """These parts of the folder `root`, to be seen inside as those of data set `name`.

    Raises:
        RunnerError: one of them is not there.
    """
    found = {part: _real_folder(root / part) for part in parts}
    return ResolvedDataset(name=name, variant=variant, parts=found, submounts=_submounts(name, found))


def _variant_root(info: DatasetInfo, datasets_root: Path, variant: str) -> Path:
    return datasets_root / info.name / TOY if variant == TOY else datasets_root / info.name


def _real_folder(path: Path) -> Path:
    real = Path(os.path.realpath(path))
    link = f" (a symlink to {real})" if path.is_symlink() or real != path else ""
    if not real.is_dir():
        found = "something that is no folder" if real.exists() else "nothing"
        raise RunnerError(f"{path}{link}: found {found}, expected a folder of data; mend the link or remove it")
    if not os.access(real, os.R_OK | os.X_OK):
        raise RunnerError(f"{path}{link}: may not be read by you; ask its owner for read access")
    return real


def _submounts(name: str, parts: Mapping[str, Path]) -> tuple[Mount, ...]:
    points = mount_points()
    return tuple(
        Mount(source=point, target=dataset_target(name) / part / point.relative_to(path))
        for part, path in parts.items()
        for point in points
        if path in point.parents
    )


def mount_points(table: Path = Path("/proc/self/mountinfo")) -> tuple[Path, ...]:
    """Where file systems are mounted on this machine; () where the kernel keeps no such table."""
    if not table.exists():
        return ()
    escaped = (line.split()[4] for line in table.read_text(errors="surrogateescape").splitlines())
    return tuple(sorted({Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), point)) for point in escaped}))


# ---------------------------------------------------------------------------------------------------------- preparing


def fetch_sources(info: DatasetInfo, cache_root: Path, progress: Progress = lambda have, total: None) -> Path:
    """The data set's source, downloaded on the host with its checksum: the file, or the folder if there are several.

    Proxies and certificate authorities then work as the user has set them up, and nothing of them enters a container.

    Raises:
        RunnerError: the data set names no source, or it cannot be fetched.
    """
    if not info.sources:
        raise RunnerError(
            f"data set {info.name}: dataset.yml names no source; give a folder or an archive with SOURCE="
        )
    folder = cache_root / "downloads" / info.name
    files = [download(f.url, folder / f.file_name, checksum=f.checksum, progress=progress) for f in info.sources]
    return files[0] if len(files) == 1 else folder


def prepare_request(info: DatasetInfo, datasets_root: Path, word: str, source: Path | None = None) -> PrepareRequest:
    """What a prepare launch needs for a stage, or for one of LOOKS, which see the data set's folder read-only.

    Pure but for looking: the data set's folder must be there when it starts.

    Raises:
        RunnerError: the data set has no such stage, `source` is not there, or raw has no source.
        DatasetMissing: the stage is made from raw, which is not there.
    """
    root, target = datasets_root / info.name, dataset_target(info.name)
    if word not in LOOKS:
        _known_stage(info, word)
    mounts = [Mount(source=Path(os.path.realpath(root)), target=target, read_only=word in LOOKS)]
    environment = {DATASET_VARIABLE: str(target)}
    raw = StagePaths(root, RAW).folder
    if word == RAW and raw.is_symlink():
        raise RunnerError(f"{raw}: is a symlink to {os.readlink(raw)}, put there by hand; mend it, or remove it first")
    if word in LOOKS or RAW in MADE_FROM[word]:
        if os.path.lexists(raw):
            mounts.append(Mount(source=_real_folder(raw), target=RAW_TARGET))
            environment[RAW_VARIABLE] = str(RAW_TARGET)
        elif word in NEEDS_RAW:
            message = (
                f"data set {info.name}: {raw} is not there; {word} is made from it: `make dataset DATASET={info.name}`"
            )
            raise DatasetMissing(message, dataset=info.name, variant=FULL, stage=RAW)
    if word == RAW and source is not None:
        if not source.exists():
            raise RunnerError(
                f"SOURCE={str(source)!r}: not there; expected a folder or an archive with the data set's files"
            )
        mounts.append(Mount(source=Path(os.path.realpath(source)), target=SOURCE_TARGET))
        environment[SOURCE_VARIABLE] = str(SOURCE_TARGET)
    return PrepareRequest(
        dataset=info.name,
        stage=word,
        argv=info.command(word),
        image=info.image,
        mounts=tuple(mounts),
        environment=environment,
        network=word == RAW and source is None and not info.made_by_code,
    )


def _known_stage(info: DatasetInfo, stage: str) -> str:
    if stage not in info.stages:
        raise unknown("STAGE", stage, info.stages)
    return stage
