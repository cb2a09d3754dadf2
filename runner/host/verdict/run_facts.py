"""What went into a run, as one table of groups and names, so that two runs, or ten, can be laid side by side.

A resumed run counts as one: its settings are those of its last attempt, and where its attempts ran on different machines
the value says so ("AVX512, then AVX2").
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.contract.errors import RunnerError
from runner.contract.jsonio import read_json
from runner.contract.layout import MODELS_DIR, MOUNTS_DIR, LaunchPaths, RunPaths
from runner.contract.records import GpuRecord, Manifest, Outcome, State, load_record
from runner.host.images import installed, recipes
from runner.host.projects import parse_project
from runner.host.verdict.record_check import input_problems

PER_LAUNCH = ("RUNNER_ATTEMPT", "RUNNER_CONFIG")
"""Variables that differ from attempt to attempt by their nature."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Set from resources.threads, which is listed by itself."""

LOGGING_KEYS = ("print_iterations", "val_iterations", "val_epochs", "write_file")
"""Config keys that say at which steps lines are written."""
LENGTH_KEYS = ("n_iterations", "n_epochs")
"""The last step of a training has a line, also where it was extended later."""

Groups = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """One run as its files tell it."""

    run: RunPaths
    project: str | None
    first: Manifest
    last: Manifest
    attempts: int
    outcome: Outcome | None
    """Of the last attempt; None while there is none."""
    config: Mapping[str, Any]
    """Resolved, of the last attempt."""
    configs: tuple[Mapping[str, Any], ...]
    """Resolved, of every attempt."""
    trainer: bool
    """Whether it is a Trainer project, whose built-in keys are known."""
    doubts: tuple[str, ...]
    """Why nobody could run it again exactly, as its own attempts say."""
    problems: tuple[str, ...]
    """What of its inputs is not what was recorded; nothing that stands here is worth much then."""
    system: Mapping[str, str]
    """The image's own packages with their versions, as they were read inside; {} where nobody did."""
    groups: Groups
    """Group → name → value: everything but the files of source and data, which have lists of their own."""

    @property
    def name(self) -> str:
        """The session."""
        return self.run.folder.name

    @property
    def completed(self) -> bool:
        """Whether it came to its end."""
        return self.outcome is not None and self.outcome.state is State.COMPLETED

    @property
    def gpu(self) -> bool:
        """Whether it computed on a GPU."""
        return self.config.get("gpu") is True


def recorded_attempts(run: RunPaths) -> list[LaunchPaths]:
    """The attempts of a run that have a manifest, in their order.

    Raises:
        RunnerError: none has.
    """
    numbers = sorted(int(path.name) for path in run.attempts.glob("*") if path.name.isdecimal())
    found = [run.attempt(number) for number in numbers if run.attempt(number).manifest.exists()]
    if not found:
        raise RunnerError(f"{run.folder}: has no attempts/<n>/manifest.json, so it is no run; `make ls` lists them")
    return found


def facts_of(run: RunPaths) -> RunFacts:
    """Read what went into a run.

    Raises:
        RunnerError: a record that is missing or damaged; the text names it.
    """
    launches = recorded_attempts(run)
    manifests = [load_record(Manifest, launch.manifest) for launch in launches]
    configs = tuple(read_json(launch.config_json) for launch in launches)
    config = configs[-1]
    outcome = load_record(Outcome, launches[-1].outcome) if launches[-1].outcome.exists() else None
    first = manifests[0]
    packages = _packages(run)
    return RunFacts(
        run=run,
        project=first.project,
        first=first,
        last=manifests[-1],
        attempts=len(launches),
        outcome=outcome,
        config=config,
        configs=configs,
        trainer=_is_trainer(run, first),
        doubts=tuple(dict.fromkeys(reason for manifest in manifests for reason in manifest.not_reproducible_because)),
        system=installed.read_packages(run.inputs / installed.PACKAGES, installed.SYSTEM) or {},
        problems=tuple(input_problems(run)),
        groups={
            "config": {key: value for key, value in config.items() if key not in ("resources", "tag")},
            **merged([_of_launch(manifest) for manifest in manifests]),
            "packages": packages,
            "limits": _limits(manifests[-1]),
        },
    )


def logged_otherwise(a: RunFacts, b: RunFacts) -> bool:
    """Whether the runs, or attempts of one of them, were told to write their lines at different steps; then only points that
    both have can be compared."""
    groups = [
        ((*a.configs, *b.configs), LOGGING_KEYS),
        (a.configs, LENGTH_KEYS),
        (b.configs, LENGTH_KEYS),
    ]
    return any(config.get(key) != configs[0].get(key) for configs, keys in groups for config in configs for key in keys)


def merged(launches: Sequence[Groups]) -> dict[str, dict[str, Any]]:
    """The groups of several launches as one: equal values once, others one after the other."""
    together: dict[str, dict[str, Any]] = {}
    for group in launches[0]:
        names = dict.fromkeys(name for launch in launches for name in launch[group])
        together[group] = {name: _together([launch[group].get(name) for launch in launches]) for name in names}
    return together


def _together(values: list[Any]) -> Any:
    distinct = [value for number, value in enumerate(values) if value not in values[:number]]
    return distinct[0] if len(distinct) == 1 else ", then ".join(map(str, distinct))


def _of_launch(manifest: Manifest) -> Groups:
    """What one launch's manifest says of its surroundings."""
    environment = {
        name: value
        for name, value in manifest.environment.items()
        if name not in PER_LAUNCH and name not in THREAD_VARIABLES
    }
    return {
        "image": _image(manifest),
        "mounts": {m.target: "read-only" if m.read_only else "writable" for m in _further(manifest)},
        "environment": environment,
        "engine": {
            "kind": manifest.engine.kind,
            "version": manifest.engine.version,
            "flavour": manifest.engine.flavour,
        },
        "machine": _machine(manifest),
        "runner": {
            "version": manifest.runner_version,
            "supervisor": manifest.supervisor_sha256[:12],
            "mode": manifest.mode,
        },
    }


def _image(manifest: Manifest) -> dict[str, Any]:
    image = manifest.image
    return {
        "base": image.base,
        "Dockerfiles": image.dockerfile_sha256,
        "python": None if image.python is None else ".".join(image.python.split(".")[:2]),
        "python release": image.python,
        "platform": image.platform,
        "id": image.id,
    }


def _further(manifest: Manifest) -> Iterator[Any]:
    """The mounts beyond those that every launch has; data sets are listed by their files."""
    for mount in manifest.mounts:
        if mount.target.startswith((f"{MOUNTS_DIR}/", str(MODELS_DIR))):
            yield mount


def _machine(manifest: Manifest) -> dict[str, Any]:
    machine = manifest.machine
    return {
        "vector width": machine.cpu_capability,
        "CPU": machine.cpu,
        "cores": machine.cores,
        "GPUs": _gpus(machine.gpus, "name"),
        "driver": _gpus(machine.gpus, "driver"),
        "kernel": machine.kernel,
        "system": machine.system,
        "memory": machine.memory_bytes,
        "name": machine.name,
    }


def _gpus(gpus: Sequence[GpuRecord], field: str) -> str:
    return ", ".join(dict.fromkeys(getattr(gpu, field) for gpu in gpus)) or "none"


def _limits(manifest: Manifest) -> dict[str, Any]:
    """What was imposed. Threads and processes decide results, the others do not."""
    return {
        "command": " ".join(manifest.command) if manifest.attempt == 1 else None,
        "network": manifest.network,
        **{key: value for key, value in manifest.resources.items() if key not in ("env", "mounts")},
    }


def _packages(run: RunPaths) -> dict[str, str]:
    """Every package of the run's environment with its version, as it was read inside; where that was not kept, from the
    locks in inputs/; {} where they are gone too."""
    read = installed.read_packages(run.inputs / installed.PACKAGES, installed.PYTHON)
    if read is not None:
        return read
    try:
        pins = recipes.recipe_from_inputs(run.inputs).all_pins
    except (RunnerError, OSError, KeyError):
        return {}
    return {pin.name: pin.version for pin in pins}


def _is_trainer(run: RunPaths, manifest: Manifest) -> bool:
    try:
        return parse_project(run.inputs / "project.yml", manifest.project or "", run.inputs).trainer is not None
    except (RunnerError, OSError):
        return False
