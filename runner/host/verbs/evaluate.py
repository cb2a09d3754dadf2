"""`eval`: one checkpoint of a run, in a fresh container of its own; writes only under the outputs root.

The run's own source, image and resolved config are used, whatever the working tree holds by now.
"""

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runner.contract import checkpoints, layout
from runner.contract import config as configs
from runner.contract.catalogue import NO_DATASET
from runner.contract.dataset_file import load_dataset
from runner.contract.errors import RunnerError
from runner.contract.jsonio import read_json
from runner.contract.layout import OutputPaths
from runner.contract.records import DataRecord, Manifest, load_record
from runner.host.data import seen as data
from runner.host.engines.engine import Engine, Mount
from runner.host.house import House, shared_folder
from runner.host.images import environments
from runner.host.launch import gather
from runner.host.launch.gather import Resolved, Say
from runner.host.launch.here import Caller, here, passed_environment
from runner.host.launch.plan import Facts, LaunchPlan, Place, plan_launch
from runner.host.launch.states import output_container
from runner.host.projects import parse_project, render
from runner.host.source import code as sources
from runner.host.verbs import runs

SPLITS = ("val", "test")
"""The training data is read shuffled and augmented: what a checkpoint says of it, example by example, means nothing."""


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest:
    """What `make eval` was asked for."""

    run: str = "latest"
    project: str | None = None
    split: str = "val"
    checkpoint: str = checkpoints.BEST
    data: str | None = None
    dataset: str | None = None
    """Another data set of the same schema, in place of the run's own."""
    gpus: str | None = None
    overrides: Sequence[str] = ()
    full: bool = False
    """VERIFY=full: read every byte of the data again."""
    dry_run: bool = False


def plan_evaluate(house: House, engine: Engine, request: EvaluateRequest, caller: Caller, say: Say) -> LaunchPlan:
    """Check what was asked, make an output folder, and plan the launch. The run's folder is only read.

    Raises:
        RunnerError: no such run, checkpoint or split; a damaged checkpoint; data, source or image that are gone.
    """
    if request.split not in SPLITS:
        raise RunnerError(f"SPLIT={request.split!r}: not a split; use one of {', '.join(SPLITS)}")
    run = runs.find(house, request.run, request.project)
    first = run.attempt(1)
    manifest = load_record(Manifest, first.manifest)
    resolved = resolve_again(
        read_json(runs.last_launch(run).config_json), request.overrides, data=request.data, gpus=request.gpus
    )
    project = parse_project(run.inputs / "project.yml", manifest.project or "", run.inputs)
    if "evaluate" not in project.commands:
        raise RunnerError(f"{run.folder.name}: its project.yml has no evaluate: command; add one and train again")
    checkpoint = checkpoints.find_checkpoint(run.checkpoints, request.checkpoint)
    if checkpoint is None:
        raise RunnerError(
            f"{run.folder.name}: has no checkpoint in {run.checkpoints}; see `make show RUN={run.folder.name}`"
        )
    checkpoint_sha256 = checkpoints.verify(checkpoint)
    inside = layout.RUN_DIR / layout.CHECKPOINTS / checkpoint.name
    command = render(
        project.commands["evaluate"], {**resolved.values, "split": request.split, "checkpoint": str(inside)}
    )
    passed = passed_environment(resolved.values["resources"]["env"], os.environ)
    mounts = gather.further_mounts(house, resolved.values["resources"]["mounts"])
    code = sources.code_of_run(house, run, manifest, dry_run=request.dry_run)
    if request.dataset is not None:
        check_can_stand_in(house, request.dataset, resolved.dataset, code.workspace)
    seen = data.data_of(
        house, engine, resolved, caller, say, dry_run=request.dry_run, full=request.full, instead=request.dataset
    )
    for difference in changed_data(manifest.data, seen.records):
        say(difference)
    environment = environments.environment_of_run(house, engine, run, manifest, say, dry_run=request.dry_run)
    where = here(engine, caller, passed)
    folder, created = _claim(house, manifest, request)
    paths = OutputPaths(folder)
    return plan_launch(
        Facts(
            kind="evaluate",
            container=output_container(manifest.run, folder.name),
            run=manifest.run,
            attempt=1,
            number=manifest.number,
            created=created,
            project=manifest.project,
            dataset=request.dataset or resolved.dataset,
            tag=manifest.tag,
            mode="prod",
            experiment=manifest.experiment,
            overrides=tuple(request.overrides),
            resolved=resolved,
            command=command,
            place=Place(folder=folder, launch=paths.launch, target=layout.OUTPUT_DIR, whole_writable=True),
            root=house.outputs,
            code=code,
            environment=environment,
            data=seen,
            mounts=(Mount(source=run.folder, target=layout.RUN_DIR), *mounts),
            here=where,
            variables={"OUTPUT_DIR": str(layout.OUTPUT_DIR)},
            parent=manifest.run,
            checkpoint=checkpoint.name,
            checkpoint_sha256=checkpoint_sha256,
            split=request.split,
        )
    )


def check_can_stand_in(house: House, other: str, own: str | None, workspace: Path) -> None:
    """Refuse a data set whose examples are not what those of the run's own are. `workspace` is the run's source.

    Raises:
        RunnerError: the run saw no data set, `other` is unknown, or their schemas differ; the text says in what.
    """
    if own is None:
        raise RunnerError(f"DATASET={other}: the run saw no data set that it could take the place of; leave it out")
    wanted = load_dataset(workspace, own)
    differences = load_dataset(house.root, other).schema.differences(wanted.schema)
    if differences:
        raise RunnerError(
            f"DATASET={other}: cannot take the place of {own}, its schema is another ({'; '.join(differences)})"
        )


def resolve_again(
    values: Mapping[str, Any], overrides: Sequence[str], *, data: str | None = None, gpus: str | None = None
) -> Resolved:
    """A run's resolved config with overrides, on this machine: the threads stay, and the GPUs are asked for again, but for a
    run that had none: its image may know of none, and a result of the CPU stays one.

    Raises:
        RunnerError: an override that names no key of the run's config, or has the wrong type.
    """
    values = {**copy.deepcopy(dict(values)), "gpu": "auto" if values["gpu"] or gpus is not None else False}
    values["resources"] = {**values["resources"], "mounts": list(values["resources"]["mounts"])}  # was a mapping once
    given = [] if data is None else [f"data={data}"]
    config = configs.resolve(values, {}, (*overrides, *given), tag=values["tag"], dataset=values["dataset"])
    resolved = configs.snapshot(config)
    if gpus is not None:
        resolved["resources"]["gpus"] = gpus
    return gather.settle(resolved)


def changed_data(before: Sequence[DataRecord], now: Sequence[DataRecord]) -> list[str]:
    """One line for each data set that is not what the run saw."""
    known = {record.name: record for record in before}
    return [
        f"note: {record.name} ({record.variant}) is not the data that the run was trained on "
        f"({known[record.name].variant}, fingerprint {known[record.name].fingerprint[:12]}; now {record.fingerprint[:12]})"
        for record in now
        if record.name in known and known[record.name].fingerprint != record.fingerprint
    ]


def _claim(house: House, manifest: Manifest, request: EvaluateRequest) -> tuple[Path, str]:
    """Make `<split>_<checkpoint>_<time>` under the run's outputs; only imagine it for a dry run."""
    now = datetime.now(UTC)
    parent = (
        house.outputs / (manifest.project or "") / (request.dataset or manifest.dataset or NO_DATASET) / manifest.run
    )
    name = f"{request.split}_{request.checkpoint}_{now:%Y_%m_%d_%H_%M_%S}"
    created = now.isoformat(timespec="milliseconds")
    if request.dry_run:
        return parent / name, created
    shared_folder(house.outputs, parent)
    return gather.first_free(parent, name, "OUTPUTS_ROOT"), created
