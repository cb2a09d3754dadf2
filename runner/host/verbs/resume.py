"""`resume`: go on with a run in its own folder, as a new attempt: its own source, image and data, from its newest checkpoint.

What would make it another run is refused by name, here as far as the config tells, inside where the Trainer must be asked
(does the learning rate depend on where the training ends?). FORCE=1 goes on all the same, and the record says so.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from runner.contract import checkpoints
from runner.contract.config import differences
from runner.contract.errors import RunnerError
from runner.contract.jsonio import read_json
from runner.contract.records import Manifest, State, load_record
from runner.contract.trainer_keys import FIXED, HORIZON, ON_RESUME
from runner.host.data import seen as data
from runner.host.engines.engine import Engine
from runner.host.house import House
from runner.host.images import environments
from runner.host.launch import gather
from runner.host.launch.gather import Say
from runner.host.launch.here import Caller, here, passed_environment
from runner.host.launch.plan import Facts, LaunchPlan, plan_launch
from runner.host.launch.states import attempt_container, require_ended
from runner.host.projects import Project, parse_project, render
from runner.host.source import code as sources
from runner.host.verbs import runs
from runner.host.verbs.evaluate import changed_data, resolve_again
from runner.host.verbs.train import run_place

FREE_RESOURCES = ("memory_gib", "cpus", "shm_gib", "tmp_gib", "grace_s", "timeout_s", "env", "mounts", "gpus")
"""Resources that may differ from attempt to attempt. Results depend on threads and processes, and on whether there is a GPU."""


@dataclass(frozen=True, kw_only=True)
class ResumeRequest:
    """What `make resume` was asked for."""

    run: str = "latest"
    project: str | None = None
    overrides: Sequence[str] = ()
    gpus: str | None = None
    force: bool = False
    dry_run: bool = False


def plan_resume(house: House, engine: Engine, request: ResumeRequest, caller: Caller, say: Say) -> LaunchPlan:
    """Check that the run can go on as the same run, and plan its next attempt.

    Raises:
        RunnerError: it runs, is complete, has no resume command, or would become another run; nothing was changed.
    """
    run = runs.find(house, request.run, request.project)
    last = runs.last_launch(run)
    outcome = require_ended(run.folder, last, runs.asker(house), "resume")
    first = load_record(Manifest, run.attempt(1).manifest)
    before = read_json(last.config_json)
    resolved = resolve_again(before, request.overrides, gpus=request.gpus)
    changes = list(differences(before, resolved.values))
    if outcome is not None and outcome.state is State.COMPLETED and not changes:
        raise RunnerError(
            f"{run.folder.name}: is COMPLETED; to train it longer give SET=n_iterations=… (or n_epochs), else start a new run"
        )
    project = parse_project(run.inputs / "project.yml", first.project or "", run.inputs)
    if "resume" not in project.commands:
        raise RunnerError(
            f"{run.folder.name}: its project.yml has no resume: command, so it cannot be continued; start a new run"
        )
    problems = forbidden(project, changes)
    code = sources.code_of_run(house, run, first, dry_run=request.dry_run)
    seen = data.data_of(house, engine, resolved, caller, say, dry_run=request.dry_run)
    problems += [text.removeprefix("note: ") for text in changed_data(first.data, seen.records)]
    if problems and not request.force:
        raise RunnerError(
            f"{run.folder.name}: this would be another run: {'; '.join(problems)}; start a new run, or continue with FORCE=1"
        )
    forced = (*problems, *extended(changes)) if request.force else ()
    for name, old, new in changes:
        say(f"changed since: {name}: {old!r} -> {new!r}")
    resources = resolved.values["resources"]
    environment = environments.environment_of_run(house, engine, run, first, say, dry_run=request.dry_run)
    mounts = gather.further_mounts(house, resources["mounts"])
    passed = passed_environment(resources["env"], os.environ)
    command = render(project.commands["resume"], resolved.values)
    attempt = int(last.folder.name) + 1  # of several resumes at once the launcher lets one have it
    newest = checkpoints.pointed(run.checkpoints, checkpoints.LATEST)
    return plan_launch(
        Facts(
            kind="train",
            container=attempt_container(run.folder.name, attempt),
            run=run.folder.name,
            attempt=attempt,
            number=first.number,
            created=datetime.now(UTC).isoformat(timespec="milliseconds"),
            project=first.project,
            dataset=resolved.dataset,
            tag=first.tag,
            mode=first.mode,
            experiment=first.experiment,
            overrides=tuple(request.overrides),
            resolved=resolved,
            command=command,
            place=run_place(run.folder, attempt),
            root=run.folder.parents[2],  # RUN= may be a path elsewhere, or below a root that is a link
            code=code if first.mode == "prod" else replace(code, workspace=house.root),
            environment=environment,
            data=seen,
            mounts=(*mounts, *(sources.shields(house) if first.mode == "dev" else ())),
            here=here(engine, caller, passed),
            variables={"RUNNER_FORCE": "1"} if request.force else {},
            network=first.mode == "dev",
            not_reproducible=tuple(f"FORCE=1: {problem}" for problem in forced),
            checkpoint=newest.name if newest is not None else None,
        )
    )


def forbidden(project: Project, changes: Sequence[tuple[str, Any, Any]]) -> list[str]:
    """The changes that make it another run for sure. What may be extended is asked of the Trainer, inside."""
    problems = []
    for name, before, after in changes:
        section, _, key = name.partition(".")
        if section == "resources" and key in FREE_RESOURCES:
            continue
        if project.trainer is None or ON_RESUME.get(section, FIXED) == FIXED:
            problems.append(f"{name} was {before!r} and is {after!r}")
    return problems


def extended(changes: Sequence[tuple[str, Any, Any]]) -> list[str]:
    """The changes of where the training ends. Forced, they may make another run of it, and only the inside could tell."""
    return [
        f"{name} was {before!r} and is {after!r}, whatever depends on where the training ends"
        for name, before, after in changes
        if ON_RESUME.get(name) == HORIZON
    ]
