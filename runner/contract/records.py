"""The records of a launch as values: what the host writes and everybody reads. Each file carries a schema_version.

A record is read back as it was written: a field that an older writer did not know reads as None, never as a fact about
the reader's own machine; a file of a newer schema is refused by name.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from runner.contract.errors import RunnerError
from runner.contract.jsonio import read_json

SCHEMA_VERSION = 1


class State(StrEnum):
    """Where a launch stands. Computed from files and the engine, never stored while it may still change."""

    CREATED = "CREATED"
    """Being prepared: its folder is there, its container is not yet."""
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    """The command ended with an exit code other than 0."""
    INTERRUPTED = "INTERRUPTED"
    """Asked to stop (Ctrl-C, SIGTERM) and ended by itself within its grace time."""
    KILLED = "KILLED"
    """Ended by SIGKILL, ours or somebody's, not for memory."""
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    TIMED_OUT = "TIMED_OUT"
    """Ran longer than resources.timeout_s and was stopped."""
    LOST = "LOST"
    """The engine that ran it no longer knows it, and nothing says how it ended."""
    UNKNOWN = "UNKNOWN"
    """Its engine cannot be asked from here (another machine, or it is down)."""

    @property
    def final(self) -> bool:
        """Whether it can still change."""
        return self not in (State.CREATED, State.RUNNING, State.UNKNOWN)


@dataclass(frozen=True, kw_only=True)
class SourceRecord:
    """The code that ran."""

    tree: str
    """git tree id of the whole snapshot, byte for byte."""
    trees: Mapping[str, str]
    """Separate tree ids: project, runner, rest."""
    commit: str | None = None
    branch: str | None = None
    dirty: tuple[str, ...] = ()
    """Files that differed from the commit, untracked ones included; the first thousand by name."""
    dirty_count: int = 0
    remote: str | None = None
    """URL of the branch's remote, credentials removed."""


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """The environment it ran in."""

    id: str
    """What was launched: an image id, or the key of a virtual environment."""
    digest: str | None = None
    """name@sha256:… in a registry, None for an image that is only here."""
    key: str = ""
    """Content key: Dockerfile, locks, base, platform, mode."""
    tag: str | None = None
    base: str | None = None
    """Reference of the root image."""
    base_origin: str | None = None
    """registry, or debian: built here from Debian's packages."""
    lock_sha256: str | None = None
    dockerfile_sha256: str | None = None
    python: str | None = None
    platform: str | None = None


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """One data set as it was at launch."""

    name: str
    variant: str
    """full or toy."""
    fingerprint: str
    """sha256 over relative paths and bytes of all parts."""
    parts: Mapping[str, str]
    """Fingerprint by part: raw, lmdb, lists."""
    files: int
    bytes: int
    cached: int = 0
    """How many of the files were answered from the cache instead of being read."""


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """A model that a training began with."""

    name: str
    version: str
    sha256: str
    """Of its weights."""


@dataclass(frozen=True, kw_only=True)
class EngineRecord:
    """Which engine ran it; only the same one may rule that it is lost."""

    kind: str
    id: str
    boot_id: str
    host: str
    version: str
    flavour: str = ""
    not_enforced: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GpuRecord:
    """One GPU that was passed through."""

    uuid: str
    index: int
    name: str
    memory_mib: int
    driver: str


@dataclass(frozen=True, kw_only=True)
class MachineRecord:
    """What results may depend on beside code, data and packages."""

    name: str
    cpu: str
    cpu_capability: str
    """Widest vector extension: AVX512, AVX2, DEFAULT …; results depend on it."""
    cores: int
    memory_bytes: int
    kernel: str
    system: str
    gpus: tuple[GpuRecord, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MountRecord:
    """One mount, by the path inside; host paths stand under `host` only."""

    target: str
    read_only: bool


@dataclass(frozen=True, kw_only=True)
class HostRecord:
    """Facts of the host that mean nothing elsewhere. The only place where host paths stand."""

    user: str
    uid: int
    gid: int
    root: str
    folder: str
    mounts: Mapping[str, str]
    """Container path → host path."""
    argv: tuple[str, ...]
    """The command that was typed."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Inputs and environment of one launch: written before the start, never edited."""

    kind: str
    """train, evaluate, prepare …"""
    run: str
    """Session name; for a preparation, the name of its own folder."""
    attempt: int
    project: str | None
    dataset: str | None
    tag: str
    number: int | None
    """n of RUN=<tag>/<n>; counted per project and tag."""
    created: str
    """UTC, ISO 8601."""
    mode: str
    """prod or dev."""
    command: tuple[str, ...]
    """The project's argv; the supervisor in front of it is left out."""
    config_sha256: str | None
    """Identity of the resolved config without resources and tag."""
    files: Mapping[str, str]
    """sha256 of each file of the record that was written before the start, by its name in the folder."""
    source: SourceRecord | None
    image: ImageRecord
    data: tuple[DataRecord, ...]
    environment: Mapping[str, str]
    resources: Mapping[str, Any]
    """Threads, memory, shm … as imposed."""
    network: bool
    mounts: tuple[MountRecord, ...]
    engine: EngineRecord
    machine: MachineRecord
    supervisor_sha256: str
    runner_version: str
    reproducible: bool
    not_reproducible_because: tuple[str, ...]
    host: HostRecord
    parent: str | None = None
    """The run that this one evaluates or reproduces."""
    checkpoint: str | None = None
    """File name of the checkpoint that an evaluation or a resume starts from."""
    checkpoint_sha256: str | None = None
    split: str | None = None
    overrides: tuple[str, ...] = ()
    """SET= as typed."""
    experiment: str | None = None
    """CONFIG= as typed."""
    models: tuple[ModelRecord, ...] = ()
    """What init_from names."""
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What happened to one launch. Published once; holds what a list of runs shows, so that listing reads one file."""

    state: State
    exit_code: int | None
    reason: str
    """One line for people: why it ended so."""
    started: str | None
    finished: str | None
    duration_s: float | None
    manifest_sha256: str
    """From the container's label: proof that the manifest beside it is the one that was launched."""
    image_id: str
    recorded_by: str
    """follow: by the launcher that watched it; reconcile: later, from what the engine still knew."""
    run: str
    attempt: int
    kind: str
    project: str | None
    dataset: str | None
    tag: str
    number: int | None
    created: str
    score: float | None = None
    step: int | None = None
    last_lines: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION


Record = TypeVar("Record")


def to_json(record: Any) -> dict[str, Any]:
    """A record as plain JSON values."""
    return dataclasses.asdict(record)


def load_record(cls: type[Record], path: Path) -> Record:
    """Read a record of type `cls`.

    Raises:
        RunnerError: not there, not JSON, of a newer schema, or without a field that it must have.
    """
    return from_json(cls, read_json(path), str(path))


def from_json(cls: type[Record], value: Any, where: str) -> Record:
    """Rebuild a record from JSON values; `where` names the source in errors. Fields this version does not know are dropped."""
    if not isinstance(value, dict):
        raise RunnerError(f"{where}: found {type(value).__name__}, expected a JSON object")
    version = value.get("schema_version", SCHEMA_VERSION)
    if version > SCHEMA_VERSION:
        raise RunnerError(
            f"{where}: written by a newer runner (schema {version}, this one reads up to {SCHEMA_VERSION}); update this checkout"
        )
    hints = typing.get_type_hints(cls)
    arguments: dict[str, Any] = {}
    for item in dataclasses.fields(cls):  # type: ignore[arg-type]
        if item.name in value:
            arguments[item.name] = _convert(hints[item.name], value[item.name], f"{where}: {item.name}")
        elif item.default is dataclasses.MISSING:
            raise RunnerError(f"{where}: has no {item.name!r}; the file is damaged or was edited")
    return cls(**arguments)


def _convert(kind: Any, value: Any, where: str) -> Any:
    """`value` as the annotated type: nested records, tuples and enums are all that differs from plain JSON."""
    origin, parameters = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _convert(next(p for p in parameters if p is not types.NoneType), value, where)
    if origin is tuple:
        return tuple(_convert(parameters[0], item, where) for item in value)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind(value)
    if dataclasses.is_dataclass(kind):
        return from_json(typing.cast(type, kind), value, where)
    return value
