"""Gather the facts of a launch before a plan is made: its config on this machine, its further mounts, its folder.

What it takes from where it is launched is asked in `here`; source, image and data in the rooms of these names.
"""

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runner.contract import config as configs
from runner.contract import trainer_keys
from runner.contract.catalogue import NO_DATASET, claim_number, next_number
from runner.contract.errors import RunnerError
from runner.contract.layout import MODELS_DIR, MOUNTS_DIR
from runner.contract.names import check_tag, session_name
from runner.contract.records import GpuRecord
from runner.contract.sweep import is_sweep
from runner.contract.yaml12 import dump_yaml, load_mapping
from runner.host.engines.engine import Engine, Mount
from runner.host.gpus import choose_gpus
from runner.host.house import House, shared_folder
from runner.host.machine import this_machine
from runner.host.projects import Project, experiment_path

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """One experiment with everything filled in."""

    values: Mapping[str, Any]
    sha256: str
    """Identity: without resources and tag."""
    yaml: str
    gpus: tuple[GpuRecord, ...]

    @property
    def dataset(self) -> str | None:
        """The data set that it names."""
        name = self.values["dataset"]
        return None if name is None else str(name)


@dataclass(frozen=True, kw_only=True)
class Session:
    """A claimed run folder. No other launch has it."""

    folder: Path
    name: str
    number: int
    created: str


def resolve(
    project: Project,
    experiment: str,
    overrides: Sequence[str],
    *,
    tag: str | None = None,
    data: str | None = None,
    gpus: str | None = None,
) -> Resolved:
    """The resolved config of an experiment on this machine.

    `gpus` (GPUS=), `data` (DATA=) and `tag` (TAG=) are text of their own, never parsed as YAML.

    Raises:
        RunnerError: unknown experiment, key or type, or GPUs that are not there; all problems of a file in one line.
    """
    path = experiment_path(project, experiment)
    default_path = project.configs / "default.yml"
    if not default_path.is_file():
        raise RunnerError(f"{default_path}: not there; it holds every config key of the project with its default")
    default, wanted = load_mapping(default_path), load_mapping(path) if path != default_path else {}
    if is_sweep(wanted):
        raise RunnerError(
            f"{path}: has keys with a trailing underscore, which make a sweep; `make train` runs one config"
        )
    given = [] if data is None else [f"data={data}"]
    config = configs.resolve(
        default,
        wanted,
        (*overrides, *given),
        tag=path.stem,
        dataset=project.dataset,
        inherited=None if project.trainer is None else trainer_keys.DEFAULTS,
    )
    values = configs.snapshot(config)
    if gpus is not None:
        values["resources"]["gpus"] = gpus
    if tag is not None:
        values["tag"] = tag
    check_tag(values["tag"])
    if project.trainer is not None:
        kept, problems = trainer_keys.check(values)
        if problems:
            raise RunnerError(f"{path}: {'; '.join(problems)}")
        values |= kept
    return settle(values)


def settle(values: dict[str, Any]) -> Resolved:
    """Fill in what depends on the machine: the GPUs, and the number of threads that results depend on."""
    values = copy.deepcopy(values)
    machine, resources = this_machine(), values["resources"]
    asked = {True: resources["gpus"], False: "none"}.get(values["gpu"], resources["gpus"])
    gpus = choose_gpus(asked, machine.gpus)
    if values["gpu"] is True and not gpus:
        raise RunnerError(
            "gpu: true, but this launch gets no GPU (nvidia-smi lists none, or GPUS=none); use gpu: auto or GPUS=all"
        )
    values["gpu"] = bool(gpus)
    if resources["threads"] is None:
        resources["threads"] = max(1, machine.cores // resources["processes"])
    return Resolved(values=values, sha256=configs.identity(values), yaml=dump_yaml(values), gpus=gpus)


def base_of(project: Project, gpus: tuple[GpuRecord, ...]) -> str:
    """The base image of a launch of this project: `auto` is gpu where it gets one, else cpu."""
    return ("gpu" if gpus else "cpu") if project.base == "auto" else project.base


def further_mounts(house: House, names: Sequence[str]) -> tuple[Mount, ...]:
    """models/, and the folders that resources.mounts names, read-only. Their host paths stand in runner.yml: a config
    must mean the same on every machine.

    Raises:
        RunnerError: a name that runner.yml does not give a path, or a path that is not there.
    """
    mounts = []
    if house.models.is_dir():
        mounts.append(Mount(source=house.models.resolve(), target=MODELS_DIR))
    for name in names:
        if name not in house.mounts:
            have = ", ".join(sorted(house.mounts)) or "none"
            raise RunnerError(
                f"resources.mounts names {name!r}, which runner.yml does not list under mounts: (have: {have})"
            )
        source = Path(house.mounts[name]).expanduser()
        if not source.exists():
            raise RunnerError(f"runner.yml: mounts: {name}: {source} is not there")
        mounts.append(Mount(source=source.resolve(), target=MOUNTS_DIR / name))
    return tuple(mounts)


def claim_session(house: House, engine: Engine, project: str, dataset: str | None, tag: str) -> Session:
    """Make the run's folder, under a name that no container and no run of any project has. mkdir is what makes it ours."""

    def taken(name: str) -> bool:
        return len(list(house.checkpoints.glob(f"*/*/{name}"))) > 1 or engine.find(f"{name}-1") is not None

    now = datetime.now(UTC)
    parent = shared_folder(house.checkpoints, house.checkpoints / project / (dataset or NO_DATASET))
    base = session_name(this_machine().name, now, tag)
    folder = first_free(parent, base, "CHECKPOINTS_ROOT", taken)
    try:
        shared_folder(house.checkpoints, _numbers(house, project, tag))
        number = claim_number(house.checkpoints, project, tag, f"{folder.parent.name}/{folder.name}")
    except BaseException as error:
        folder.rmdir()
        if isinstance(error, OSError):
            raise _cannot_make(folder, error, "CHECKPOINTS_ROOT") from None
        raise
    return Session(folder=folder, name=folder.name, number=number, created=now.isoformat(timespec="milliseconds"))


def imagine_session(house: House, project: str, dataset: str | None, tag: str) -> Session:
    """The session that a launch now would get; nothing is claimed (DRY_RUN=1)."""
    now = datetime.now(UTC)
    name = session_name(this_machine().name, now, tag)
    return Session(
        folder=house.checkpoints / project / (dataset or NO_DATASET) / name,
        name=name,
        number=next_number(house.checkpoints, project, tag),
        created=now.isoformat(timespec="milliseconds"),
    )


def _numbers(house: House, project: str, tag: str) -> Path:
    from runner.contract.catalogue import NUMBERS
    from runner.contract.names import slug

    return house.checkpoints / project / NUMBERS / slug(tag)


def first_free(parent: Path, base: str, root_name: str, taken: Callable[[str], bool] = lambda name: False) -> Path:
    """Make the folder `base`, `base_2`, … in `parent`: the first that is not there and not `taken`.

    Raises:
        RunnerError: the folder cannot be written to; `root_name` is the setting to look at.
    """
    for count in range(1, 10_000):
        folder = parent / (base if count == 1 else f"{base}_{count}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise _cannot_make(folder, error, root_name) from None
        try:
            if not taken(folder.name):
                return folder
        except BaseException:
            folder.rmdir()
            raise
        folder.rmdir()
    raise RunnerError(f"{parent / base}: ten thousand folders of this name; clean up with `make rm`")


def _cannot_make(folder: Path, error: OSError, root_name: str) -> RunnerError:
    return RunnerError(f"{folder}: cannot be made: {os.strerror(error.errno or 0)}; mend its parent or set {root_name}")
