"""`dataset`: each stage of a data set is a launch of kind `prepare`, recorded under outputs/datasets/<name>/prepare/.

So are the two looks at one, `lint-dataset` and `explore`, which see it read-only.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from runner.contract import layout
from runner.contract.dataset_file import DatasetInfo, load_dataset
from runner.contract.errors import RunnerError
from runner.contract.layout import OutputPaths
from runner.contract.preparation import RAW, RAW_TARGET, README, SOURCE_TARGET, dataset_target
from runner.contract.records import State
from runner.host.data import datasets
from runner.host.data.seen import NO_DATA
from runner.host.engines.engine import Engine
from runner.host.house import House, shared_folder
from runner.host.images import environments
from runner.host.launch import gather, launcher
from runner.host.launch.gather import Resolved, Say
from runner.host.launch.here import Caller, here
from runner.host.launch.plan import Facts, LaunchPlan, Place, plan_launch
from runner.host.launch.states import output_container
from runner.host.pages.dataset_card import write_card
from runner.host.pages.transfer import shown
from runner.host.source import code as sources

PROJECT = "datasets"
"""Stands where a project's name stands, in the outputs root and in the record."""


@dataclass(frozen=True, kw_only=True)
class PrepareRequest:
    """What `make dataset` was asked for."""

    dataset: str
    source: str | None = None
    stage: str | None = None


def prepare_dataset(house: House, engine: Engine, request: PrepareRequest, caller: Caller, say: Say) -> list[Path]:
    """Prepare the stages asked for, in their order, and return their folders. A complete stage is kept as it is.

    Raises:
        RunnerError: unknown data set or stage; a source that is not there or not right; nothing half-made stays.
    """
    info = load_dataset(house.root, request.dataset)
    stages = info.stages if request.stage is None else (request.stage,)
    if request.source is not None and RAW not in stages:
        raise RunnerError(f"SOURCE= is what {RAW} is taken from; STAGE={request.stage} takes none, leave it out")
    source = None if request.source is None else Path(request.source).expanduser().absolute()
    for stage in stages:
        prepare_stage(house, engine, info, stage, source if stage == RAW else None, caller, say)
        if stage == README:
            write_card(info, house.datasets / info.name, say)
    return [house.datasets / info.name / stage for stage in stages]


def look_at_dataset(house: House, engine: Engine, name: str, look: str, caller: Caller, say: Say) -> tuple[Path, int]:
    """Lint or explore a data set; the folder of the launch and the exit code. What it prints goes to our stdout.

    Raises:
        RunnerError: unknown data set, or nothing of it is there.
    """
    info = load_dataset(house.root, name)
    if not (house.datasets / name).is_dir():
        raise RunnerError(
            f"data set {name}: {house.datasets / name} is not there; make it with `make dataset DATASET={name}`"
        )
    plan = plan_prepare(house, engine, info, look, None, caller, say)
    outcome = launcher.launch(plan, engine, say)
    return plan.place.folder, outcome.exit_code or int(outcome.state is not State.COMPLETED)


def prepare_stage(
    house: House, engine: Engine, info: DatasetInfo, stage: str, source: Path | None, caller: Caller, say: Say
) -> None:
    """Make one stage unless it is complete. Raw without a SOURCE is downloaded here, on the host, with its checksum.

    Raises:
        RunnerError: the launch failed; its folder is named.
        KeyboardInterrupt: it was asked to stop.
    """
    if source is None and datasets.is_complete(info, house.datasets, stage):
        say(f"{info.name}: {stage} is complete")
        return
    if stage == RAW and source is None and info.sources:
        with shown(info.name, say) as progress:
            source = datasets.fetch_sources(info, house.cache, progress)
    plan = plan_prepare(house, engine, info, stage, source, caller, say)
    shared_folder(house.datasets, house.datasets / info.name)
    outcome = launcher.launch(plan, engine, say)
    if outcome.state is State.INTERRUPTED:  # by us: whoever waits for the data was interrupted too
        raise KeyboardInterrupt
    if outcome.state is not State.COMPLETED:
        why = outcome.last_lines[-1] if outcome.last_lines else "see its log"
        raise RunnerError(
            f"{info.name}: {stage} was not made: {_as_named_here(why, house, info, source)} (record: {plan.place.folder})"
        )


def _as_named_here(text: str, house: House, info: DatasetInfo, source: Path | None) -> str:
    """A message from inside, with the paths that this machine knows. Below the local engine's view they are longer."""
    root = house.datasets / info.name
    names = {SOURCE_TARGET: source, RAW_TARGET: root / RAW, dataset_target(info.name): root}
    for target, path in names.items():
        if path is not None:
            plain = str(path).replace("\\", "\\\\")
            text = re.sub(rf"[^\s'\"(]*{re.escape(str(target))}(?![\w.-])", plain, text)
    return text.removeprefix("error: ")


def plan_prepare(
    house: House, engine: Engine, info: DatasetInfo, stage: str, source: Path | None, caller: Caller, say: Say
) -> LaunchPlan:
    """The launch that makes one stage, or looks: only the data set's folder is writable, and only raw may use the network."""
    request = datasets.prepare_request(info, house.datasets, stage, source)
    code = sources.code_of(house, None)
    environment = environments.environment_of_choice(house, engine, info.image, say)
    resolved, where = _no_config(), here(engine, caller, {})
    folder, created = _claim(house, info.name, stage)
    return plan_launch(
        Facts(
            kind="prepare",
            container=output_container(f"prepare-{info.name}", folder.name),
            run=f"prepare-{info.name}",
            attempt=1,
            number=None,
            created=created,
            project=PROJECT,
            dataset=info.name,
            tag=stage,
            mode="prod",
            experiment=None,
            overrides=(),
            resolved=resolved,
            command=request.argv,
            place=Place(
                folder=folder, launch=OutputPaths(folder).launch, target=layout.OUTPUT_DIR, whole_writable=True
            ),
            root=house.outputs,
            code=code,
            environment=environment,
            data=NO_DATA,
            mounts=request.mounts,
            here=where,
            variables={"OUTPUT_DIR": str(layout.OUTPUT_DIR), **request.environment},
            network=request.network,
        )
    )


def _no_config() -> Resolved:
    """The built-in keys alone: a stage is made the same way for every run."""
    from runner.contract import config as configs

    return gather.settle(configs.snapshot(configs.with_values(configs.resolve({}, {}), {"gpu": False})))


def _claim(house: House, name: str, stage: str) -> tuple[Path, str]:
    now = datetime.now(UTC)
    parent = shared_folder(house.outputs, house.outputs / PROJECT / name / "prepare")
    folder = gather.first_free(parent, f"{stage}_{now:%Y_%m_%d_%H_%M_%S}", "OUTPUTS_ROOT")
    return folder, now.isoformat(timespec="milliseconds")
