"""From facts to a plan: pure functions that decide everything about a launch before anything is done.

Equal facts give equal plans. A plan is inert: it can be printed (DRY_RUN=1), compared, and carried out by `launcher`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from runner import __version__
from runner.contract import layout
from runner.contract.jsonio import pretty_json, sha256_of
from runner.contract.layout import LaunchPaths
from runner.contract.records import (
    EngineRecord,
    GpuRecord,
    HostRecord,
    MachineRecord,
    Manifest,
    ModelRecord,
    MountRecord,
    to_json,
)
from runner.host.engines.engine import ContainerSpec, Limits, Mount

if TYPE_CHECKING:  # whoever only reads records needs none of these rooms
    from runner.host.data.seen import SeenData
    from runner.host.images.environments import Environment
    from runner.host.launch.gather import Resolved
    from runner.host.launch.here import Caller, Here
    from runner.host.source.code import Code

GIB = 1 << 30
SUPERVISOR_FILE = Path(__file__).resolve().parents[2] / "inside" / "supervisor.py"
ROOT_LABEL = "runner.root"
MANIFEST_LABEL = "runner.manifest"


@dataclass(frozen=True, kw_only=True)
class Place:
    """The folder that a launch fills, and which parts of it the inside may write."""

    folder: Path
    launch: LaunchPaths
    target: PurePosixPath
    """Where `folder` appears inside."""
    whole_writable: bool
    """True: all of it but the record (outputs). False: nothing but the parts below (a run)."""
    writable_folders: tuple[str, ...] = ()
    writable_files: tuple[str, ...] = (layout.LOGS,)

    @property
    def launch_target(self) -> PurePosixPath:
        """The record's folder inside."""
        return self.target / self.launch.folder.relative_to(self.folder)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that a launch depends on, gathered before anything is decided."""

    kind: str
    container: str
    """Name of the container."""
    run: str
    attempt: int
    number: int | None
    created: str
    project: str | None
    dataset: str | None
    tag: str
    mode: str
    experiment: str | None
    overrides: tuple[str, ...]
    resolved: "Resolved"
    """The config, and the GPUs that it gets."""
    command: tuple[str, ...]
    place: Place
    root: Path
    """The root folder that `place` lies in: checkpoints or outputs."""
    code: "Code"
    environment: "Environment"
    data: "SeenData"
    mounts: tuple[Mount, ...]
    """Besides `data`: models, folders of resources.mounts, in dev what shields the records; the run, for an evaluation; all
    that a stage works on."""
    here: "Here"
    variables: Mapping[str, str] = field(default_factory=dict)
    """Further variables of this kind of launch."""
    network: bool = False
    inputs: Mapping[str, Path | bytes] = field(default_factory=dict)
    """All that is kept in inputs/, by its name there: bytes, or a file of the cache that never changes and may be linked."""
    not_reproducible: tuple[str, ...] = ()
    """Reasons beyond those that the plan sees itself."""
    parent: str | None = None
    checkpoint: str | None = None
    checkpoint_sha256: str | None = None
    split: str | None = None
    models: tuple[ModelRecord, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LaunchPlan:
    """The complete, inert description of one launch."""

    place: Place
    folders: tuple[Path, ...]
    """To be made, in this order."""
    empty_files: tuple[Path, ...]
    """To be made empty: files that the inside fills in place."""
    files: Mapping[Path, bytes]
    """To be written before the start."""
    inputs: Mapping[Path, Path | bytes]
    """Destination → what stands there: bytes, or a file to be hard-linked where that is possible."""
    manifest: Manifest
    spec: ContainerSpec

    @property
    def manifest_bytes(self) -> bytes:
        """The manifest as it is written."""
        return pretty_json(to_json(self.manifest))


def plan_launch(facts: Facts) -> LaunchPlan:
    """Decide one launch. Pure: the same facts, the same plan."""
    place, resources = facts.place, facts.resolved.values["resources"]
    files = {
        place.launch.config_yml: facts.resolved.yaml.encode(),
        place.launch.config_json: pretty_json(facts.resolved.values),
    }
    if facts.kind == "train" and facts.attempt == 1:
        files[place.folder / layout.CONFIG_YML] = facts.resolved.yaml.encode()
    mounts = plan_mounts(facts)
    environment = plan_environment(facts)
    limits = plan_limits(resources, facts.here.machine, facts.resolved.gpus)
    manifest = plan_manifest(facts, files, mounts, environment, limits)
    labels = plan_labels(facts)
    labels[MANIFEST_LABEL] = hashlib.sha256(pretty_json(to_json(manifest))).hexdigest()
    spec = ContainerSpec(
        name=facts.container,
        image=facts.environment.reference,
        argv=supervised(facts.command, place, facts.here.caller, resources),
        workdir=layout.WORKSPACE,
        mounts=mounts,
        environment={**environment, **facts.here.passed},
        labels=labels,
        user=facts.here.caller.user,
        limits=limits,
        network=facts.network,
        hostname=facts.here.machine.name,
    )
    writable = [place.folder / name for name in place.writable_folders]
    return LaunchPlan(
        place=place,
        folders=(place.launch.folder, *writable),
        empty_files=(*(place.folder / name for name in place.writable_files), place.launch.exit),
        files=files,
        inputs={place.folder / layout.INPUTS / name: source for name, source in sorted(facts.inputs.items())},
        manifest=manifest,
        spec=spec,
    )


def supervised(
    command: tuple[str, ...], place: Place, caller: "Caller", resources: Mapping[str, Any]
) -> tuple[str, ...]:
    """The command behind the supervisor, which logs it, forwards signals, keeps its time limit and writes how it ended.

    The limit is kept inside so that it holds whatever becomes of the launcher. The supervisor needs the standard library
    alone, and -S spares it 20 ms of looking at site-packages.
    """
    timeout_s, grace_s = resources["timeout_s"], resources["grace_s"]
    limit = () if timeout_s is None else ("--timeout", f"{timeout_s:g}", "--grace", f"{grace_s:g}")
    terminal = () if caller.terminal is None else ("--pty", f"{caller.terminal[0]}x{caller.terminal[1]}")
    return (
        *("python", "-I", "-S", str(layout.SUPERVISOR)),
        *("--log", str(place.target / layout.LOGS)),
        *("--exit", str(place.launch_target / layout.EXIT)),
        *("--umask", f"{caller.user.umask:03o}"),
        *terminal,
        *limit,
        *("--", *command),
    )


def plan_mounts(facts: Facts) -> tuple[Mount, ...]:
    """Everything that is seen inside. Only what the inside writes is writable; the launch's record never is."""
    place = facts.place
    mounts = [
        Mount(source=facts.code.workspace, target=layout.WORKSPACE, read_only=facts.mode == "prod"),
        Mount(source=SUPERVISOR_FILE, target=layout.SUPERVISOR),
        Mount(source=place.folder, target=place.target, read_only=not place.whole_writable),
    ]
    if place.whole_writable:
        mounts.append(Mount(source=place.launch.folder, target=place.launch_target))
    else:
        for name in (*place.writable_folders, *place.writable_files):
            mounts.append(Mount(source=place.folder / name, target=place.target / name, read_only=False))
    mounts.append(Mount(source=place.launch.exit, target=place.launch_target / layout.EXIT, read_only=False))
    return (*mounts, *facts.data.mounts, *facts.mounts)


def plan_environment(facts: Facts) -> dict[str, str]:
    """The variables inside: the view of §4 of the design, caches that can be written, and what determinism needs."""
    home = str(layout.HOME)
    threads = str(facts.resolved.values["resources"]["threads"])
    return {
        "WORKSPACE": str(layout.WORKSPACE),
        "PYTHONPATH": str(layout.WORKSPACE),
        "RUN_DIR": str(layout.RUN_DIR),
        "DATASETS_DIR": str(layout.DATASETS_DIR),
        "MODELS_DIR": str(layout.MODELS_DIR),
        "RUNNER_KIND": facts.kind,
        "RUNNER_MODE": facts.mode,
        "RUNNER_ATTEMPT": str(facts.attempt),
        "RUNNER_CONFIG": str(facts.place.launch_target / layout.CONFIG_JSON),
        "HOME": home,
        "XDG_CACHE_HOME": f"{home}/.cache",
        "MPLCONFIGDIR": f"{home}/.cache/matplotlib",
        "TORCHINDUCTOR_CACHE_DIR": f"{home}/.cache/inductor",
        "TRITON_CACHE_DIR": f"{home}/.cache/triton",
        "NUMBA_CACHE_DIR": f"{home}/.cache/numba",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "TZ": "UTC",
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        **facts.variables,
    }


def plan_limits(resources: Mapping[str, Any], machine: MachineRecord, gpus: tuple[GpuRecord, ...]) -> Limits:
    """What the container may use. Shared memory and /tmp default to half of the machine's memory, which they only take
    as they fill; Docker's own 64 MB of shared memory kills DataLoader workers (pytorch #5040)."""

    def size(key: str) -> int:
        return machine.memory_bytes // 2 if resources[key] is None else round(resources[key] * GIB)

    return Limits(
        gpus=tuple(gpu.uuid for gpu in gpus),
        memory_bytes=None if resources["memory_gib"] is None else round(resources["memory_gib"] * GIB),
        cpus=resources["cpus"],
        shm_bytes=size("shm_gib"),
        tmp_bytes=size("tmp_gib"),
        grace_s=resources["grace_s"],
    )


def plan_labels(facts: Facts) -> dict[str, str]:
    """Labels by which any process finds the container and checks it against its record."""
    return {
        "runner.run": facts.run,
        "runner.attempt": str(facts.attempt),
        "runner.kind": facts.kind,
        "runner.project": facts.project or "",
        "runner.gpus": ",".join(gpu.uuid for gpu in facts.resolved.gpus),
        "runner.sweep": "",
        ROOT_LABEL: str(facts.root),
        "runner.launch": str(facts.place.launch.folder.relative_to(facts.root)),
    }


def plan_manifest(
    facts: Facts,
    files: Mapping[Path, bytes],
    mounts: tuple[Mount, ...],
    environment: Mapping[str, str],
    limits: Limits,
) -> Manifest:
    """The record of inputs and environment. Host paths stand under `host` alone; values of passed variables never stand
    in it, only their hashes, since they may be credentials."""
    because = _not_reproducible(facts)
    hidden = {name: f"sha256:{sha256_of(value)[:12]}" for name, value in sorted(facts.here.passed.items())}
    config_resources = dict(facts.resolved.values["resources"])
    return Manifest(
        kind=facts.kind,
        run=facts.run,
        attempt=facts.attempt,
        project=facts.project,
        dataset=facts.dataset,
        tag=facts.tag,
        number=facts.number,
        created=facts.created,
        mode=facts.mode,
        command=facts.command,
        config_sha256=facts.resolved.sha256,
        files={
            path.relative_to(facts.place.folder).as_posix(): hashlib.sha256(content).hexdigest()
            for path, content in sorted(files.items())
        },
        source=facts.code.record,
        image=facts.environment.record,
        data=facts.data.records,
        environment={**environment, **hidden},
        resources={**config_resources, "shm_bytes": limits.shm_bytes, "tmp_bytes": limits.tmp_bytes},
        network=facts.network,
        mounts=tuple(MountRecord(target=str(mount.target), read_only=mount.read_only) for mount in mounts),
        engine=EngineRecord(
            kind=facts.here.engine.kind,
            id=facts.here.engine.id,
            boot_id=facts.here.engine.boot_id,
            host=facts.here.engine.host,
            version=facts.here.engine.version,
            flavour=facts.here.engine.flavour,
            not_enforced=facts.here.engine.not_enforced,
        ),
        machine=facts.here.machine,
        supervisor_sha256=facts.here.supervisor_sha256,
        runner_version=__version__,
        reproducible=not because,
        not_reproducible_because=because,
        host=HostRecord(
            user=facts.here.caller.name,
            uid=facts.here.caller.user.uid,
            gid=facts.here.caller.user.gid,
            root=str(facts.root),
            folder=str(facts.place.folder),
            mounts={str(mount.target): str(mount.source) for mount in mounts},
            argv=facts.here.caller.argv,
        ),
        parent=facts.parent,
        checkpoint=facts.checkpoint,
        checkpoint_sha256=facts.checkpoint_sha256,
        split=facts.split,
        overrides=facts.overrides,
        experiment=facts.experiment,
        models=facts.models,
    )


def _not_reproducible(facts: Facts) -> tuple[str, ...]:
    """Why nobody could run this launch again exactly; () where they can."""
    reasons = list(facts.not_reproducible)
    if facts.mode == "dev":
        reasons.append("dev mode: live code, network and extra packages")
    if facts.network and facts.mode != "dev":
        reasons.append("it had network access")
    reasons += [
        f"what lies in {mount.target} (resources.mounts) is not recorded"
        for mount in facts.mounts
        if layout.MOUNTS_DIR in mount.target.parents
    ]
    return tuple(reasons)
