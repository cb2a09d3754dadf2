"""`train`: one config, one new run, one launch."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.contract import layout
from runner.contract.errors import RunnerError
from runner.contract.layout import RunPaths
from runner.host.data import seen as data
from runner.host.data.changed import changes_since_last_run
from runner.host.engines.engine import Engine
from runner.host.house import House
from runner.host.images import environments
from runner.host.launch import gather
from runner.host.launch.gather import Say
from runner.host.launch.here import Caller, here, passed_environment
from runner.host.launch.plan import Facts, LaunchPlan, Place, plan_launch
from runner.host.launch.states import attempt_container
from runner.host.projects import load_project, render
from runner.host.source import code as sources
from runner.host.verbs.release import pin_models

MODES = ("prod", "dev")


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What `make train` was asked for."""

    project: str
    experiment: str = "default"
    overrides: Sequence[str] = ()
    tag: str | None = None
    data: str | None = None
    gpus: str | None = None
    mode: str = "prod"
    full: bool = False
    """VERIFY=full: read every byte of the data again."""
    dry_run: bool = False


def plan_train(house: House, engine: Engine, request: TrainRequest, caller: Caller, say: Say) -> LaunchPlan:
    """Check what was asked, make what is missing (image, toy data), claim a run folder, and plan the launch.

    With dry_run nothing is made and nothing claimed: what is missing is planned as it would be.

    Raises:
        RunnerError: anything asked for is unknown, wrong or missing; no folder is left behind.
    """
    if request.mode not in MODES:
        raise RunnerError(f"MODE={request.mode!r}: not a mode; use {' or '.join(MODES)}")
    project = load_project(house.root, request.project)
    resolved = gather.resolve(
        project, request.experiment, request.overrides, tag=request.tag, data=request.data, gpus=request.gpus
    )
    resolved, models = pin_models(house, resolved)
    command = render(project.commands["train"], resolved.values)
    resources = resolved.values["resources"]
    passed = passed_environment(resources["env"], os.environ)
    mounts = gather.further_mounts(house, resources["mounts"])
    code = sources.code_of(house, project.name, mode=request.mode, dry_run=request.dry_run)
    seen = data.data_of(house, engine, resolved, caller, say, dry_run=request.dry_run, full=request.full)
    for note in changes_since_last_run(house.checkpoints, project.name, seen):
        say(note)
    base = gather.base_of(project, resolved.gpus)
    environment = environments.environment_of(house, engine, project, base, request.mode, say, dry_run=request.dry_run)
    where = here(engine, caller, passed)
    tag = resolved.values["tag"]
    if request.dry_run:
        session = gather.imagine_session(house, project.name, resolved.dataset, tag)
    else:
        session = gather.claim_session(house, engine, project.name, resolved.dataset, tag)
    return plan_launch(
        Facts(
            kind="train",
            container=attempt_container(session.name, 1),
            run=session.name,
            attempt=1,
            number=session.number,
            created=session.created,
            project=project.name,
            dataset=resolved.dataset,
            tag=tag,
            mode=request.mode,
            experiment=request.experiment,
            overrides=tuple(request.overrides),
            resolved=resolved,
            command=command,
            place=run_place(session.folder, 1),
            root=house.checkpoints,
            code=code,
            environment=environment,
            data=seen,
            mounts=(*mounts, *(sources.shields(house) if request.mode == "dev" else ())),
            here=where,
            network=request.mode == "dev",
            inputs={**code.inputs, **environment.inputs, **seen.inputs, "project.yml": project.text},
            models=models,
        )
    )


def run_place(folder: Path, attempt: int) -> Place:
    """A run's folder as the inside sees it: read-only, but for what training writes."""
    return Place(
        folder=folder,
        launch=RunPaths(folder).attempt(attempt),
        target=layout.RUN_DIR,
        whole_writable=False,
        writable_folders=(layout.CHECKPOINTS, layout.TENSORBOARD, layout.DEBUG),
        writable_files=(layout.LOGS, layout.METRICS_JSONL),
    )
