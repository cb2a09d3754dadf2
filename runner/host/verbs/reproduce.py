"""`reproduce`: the same run once more, from its inputs/ alone, in a folder of its own that names the first as its parent.

A run of several attempts is reproduced as one that was never interrupted, with the settings of its last attempt (so that a
training that was extended counts in its full length). The verdict is `verdict`'s; it is kept under the outputs root.
"""

import copy
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from runner.contract import layout
from runner.contract.catalogue import NO_DATASET
from runner.contract.errors import RunnerError
from runner.contract.jsonio import pretty_json, read_json, write_atomic
from runner.contract.layout import LaunchPaths, RunPaths
from runner.contract.names import LONGEST, check_tag
from runner.contract.records import Manifest, ModelRecord, load_record
from runner.host.data.again import Wanted, data_again
from runner.host.engines.engine import Engine
from runner.host.gpus import choose_gpus
from runner.host.house import House, shared_folder
from runner.host.images import environments
from runner.host.images.environments import Environment
from runner.host.launch import gather
from runner.host.launch.gather import Resolved, Say
from runner.host.launch.here import Caller, here, passed_environment
from runner.host.launch.plan import Facts, LaunchPlan, plan_launch
from runner.host.launch.states import attempt_container, require_ended
from runner.host.machine import this_machine
from runner.host.projects import parse_project, render
from runner.host.source import code as sources
from runner.host.source import exports
from runner.host.verbs import runs
from runner.host.verbs.release import pin_models
from runner.host.verbs.run_models import kept_model, shown
from runner.host.verbs.train import run_place
from runner.host.verdict.record_check import problem_of
from runner.host.verdict.run_facts import recorded_attempts
from runner.host.verdict.verdict import Verdict, parse_level, to_json

TAG = "reproduced"


@dataclass(frozen=True, kw_only=True)
class ReproduceRequest:
    """What `make reproduce` was asked for."""

    run: str = "latest"
    project: str | None = None
    level: str | None = None
    gpus: str | None = None
    force: bool = False
    full: bool = False
    """VERIFY=full: read every byte of the data again."""
    dry_run: bool = False


def plan_reproduce(house: House, engine: Engine, request: ReproduceRequest, caller: Caller, say: Say) -> LaunchPlan:
    """Get back all that the run was made with, make a run folder, and plan the launch. The first run is only read.

    Raises:
        RunnerError: the run still goes on; its source, data, environment or GPU cannot be had, and what to do.
    """
    parse_level(request.level)
    run = runs.find(house, request.run, request.project)
    launches = recorded_attempts(run)
    require_ended(run.folder, launches[-1], runs.asker(house), "reproduce")
    first = load_record(Manifest, launches[0].manifest)
    doubts = doubts_of(run, launches, force=request.force)
    for doubt in doubts:
        say(f"note: {doubt}")
    resolved = settings_of(launches[-1], request.gpus)
    resolved, models = _models_again(house, run, resolved, first, force=request.force)
    project = parse_project(run.inputs / "project.yml", first.project or "", run.inputs)
    command = render(project.commands["train"], resolved.values)
    resources = resolved.values["resources"]
    passed = passed_environment(resources["env"], os.environ)
    mounts = gather.further_mounts(house, resources["mounts"])
    code = sources.code_of_run(house, run, first, dry_run=request.dry_run)
    wanted = Wanted(
        run=run,
        records=load_record(Manifest, launches[-1].manifest).data,
        full=request.full,
        force=request.force,
        dry_run=request.dry_run,
    )
    data = data_again(house, engine, wanted, caller, say)
    environment = environment_again(house, engine, run, first, say, dry_run=request.dry_run)
    kept = {} if request.dry_run else kept_inputs(house, run, first)
    where = here(engine, caller, passed)
    tag = tag_of(first.tag)
    if request.dry_run:
        session = gather.imagine_session(house, first.project or "", resolved.dataset, tag)
    else:
        session = gather.claim_session(house, engine, first.project or "", resolved.dataset, tag)
    return plan_launch(
        Facts(
            kind="train",
            container=attempt_container(session.name, 1),
            run=session.name,
            attempt=1,
            number=session.number,
            created=session.created,
            project=first.project,
            dataset=resolved.dataset,
            tag=tag,
            mode="prod",
            experiment=first.experiment,
            overrides=(),
            resolved=resolved,
            command=command,
            place=run_place(session.folder, 1),
            root=house.checkpoints,
            code=code,
            environment=environment,
            data=data.seen,
            models=models,
            mounts=mounts,
            here=where,
            inputs={**kept, **environment.inputs, **data.seen.inputs},
            not_reproducible=(*doubts, *data.problems),
            parent=run.folder.name,
        )
    )


def _models_again(
    house: House, run: RunPaths, resolved: Resolved, first: Manifest, *, force: bool
) -> tuple[Resolved, tuple[ModelRecord, ...]]:
    """The released models that the run began with; with `force` whatever has their names here.

    Raises:
        RunnerError: they are not here; the text names them, their sha256, and how to get them.
    """
    if not force:
        for model in first.models:
            try:
                kept_model(house.models, model)
            except RunnerError as error:
                raise RunnerError(f"{run.folder.name}: began with {error}") from None
    resolved, models = pin_models(house, resolved)
    if models != first.models and not force:
        raise RunnerError(
            f"{run.folder.name}: began with {shown(first.models)}, and here are {shown(models)}; go on with FORCE=1"
        )
    return resolved, models


def settings_of(launch: LaunchPaths, gpus: str | None = None) -> Resolved:
    """The resolved config of a launch as it stands: not one key is decided anew, threads and GPU use included.

    Raises:
        RunnerError: it ran on a GPU, and there is none here; GPUs are asked for that are not here, or that it did not use.
    """
    values = copy.deepcopy(read_json(launch.config_json))
    if gpus is not None:
        values["resources"]["gpus"] = gpus
        if not values["gpu"] and choose_gpus(gpus, this_machine().gpus):
            raise RunnerError(
                f"GPUS={gpus}: the run computed on the CPU, and so must its reproduction; leave GPUS= out"
            )
    return gather.settle(values)


def doubts_of(run: RunPaths, launches: list[LaunchPaths], *, force: bool) -> tuple[str, ...]:
    """Why a reproduction may not be the same, as the run's own records say.

    Raises:
        RunnerError: the run's folder is not what was recorded; with `force` that is one more doubt.
    """
    problem = problem_of(run)
    if problem is not None and not force:
        raise RunnerError(f"{problem}; bring back what was changed, or go on with FORCE=1")
    reasons = [problem] if problem is not None else []
    for launch in launches:
        manifest = load_record(Manifest, launch.manifest)
        reasons += [f"{run.folder.name}: not reproducible: {reason}" for reason in manifest.not_reproducible_because]
    return tuple(dict.fromkeys(reasons))


def environment_again(
    house: House, engine: Engine, run: RunPaths, first: Manifest, say: Say, *, dry_run: bool
) -> Environment:
    """The run's own image or environment; one that is gone is built again from the Dockerfiles and locks in inputs/."""
    if engine.kind != "docker" or first.engine.kind != "docker" or engine.image(first.image.id) is not None:
        return environments.environment_of_run(house, engine, run, first, say, dry_run=dry_run)
    again = environments.rebuild_of_run(house, engine, run, say, dry_run=dry_run)
    what = "it would be built again" if dry_run else f"{again.record.id[:19]} was built"
    say(f"note: the run's own image {first.image.id[:19]} is gone; {what} from the same lock and Dockerfiles")
    return again


def kept_inputs(house: House, run: RunPaths, first: Manifest) -> dict[str, Path | bytes]:
    """Everything of the first run's inputs/ but its lists of data, which come from the data as it is now. The archive of
    the source comes from the cache, where its bytes have just been checked."""
    files: dict[str, Path | bytes] = {}
    for path in sorted(run.inputs.rglob("*")):
        name = path.relative_to(run.inputs).as_posix()
        if path.is_file() and not name.startswith("data/"):
            files[name] = path
    assert first.source is not None  # code_of_run has refused a run without
    return {**files, sources.ARCHIVE: exports.archive(first.source.tree, house.cache)}


def tag_of(tag: str) -> str:
    """The tag of a reproduction: the first run's with a word behind it; only once, however often it is reproduced."""
    return tag if tag.endswith(f"-{TAG}") else check_tag(f"{tag[: LONGEST - len(TAG) - 1]}-{TAG}")


def keep_verdict(house: House, folder: Path, verdict: Verdict) -> Path:
    """Write a verdict beside the evaluations of the run in `folder`: the run's own folder is not ours to write to any more.

    Raises:
        RunnerError: the outputs root cannot be written to.
    """
    manifest = load_record(Manifest, RunPaths(folder).attempt(1).manifest)
    parent = house.outputs / (manifest.project or "") / (manifest.dataset or NO_DATASET) / folder.name
    path = parent / f"{layout.VERDICT}_{datetime.now(UTC):%Y_%m_%d_%H_%M_%S}.json"
    try:
        shared_folder(house.outputs, parent)
        write_atomic(path, pretty_json(to_json(verdict)))
    except OSError as error:
        raise RunnerError(f"{path}: cannot be written: {os.strerror(error.errno or 0)}; mend OUTPUTS_ROOT") from None
    return path
