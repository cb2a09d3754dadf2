"""Where a launch stands: its outcome says, or the engine that runs it is asked. Nothing is ever marked as running."""

import contextlib
import fcntl
from collections.abc import Callable
from pathlib import Path

from runner.contract import layout
from runner.contract.errors import EngineError, RunnerError
from runner.contract.layout import LaunchPaths
from runner.contract.records import EngineRecord, Manifest, Outcome, State, load_record
from runner.host.engines.engine import Container, Engine, EngineIdentity
from runner.host.launch.outcomes import Ending, record_end
from runner.host.launch.plan import MANIFEST_LABEL, Place

EngineFor = Callable[[EngineRecord], Engine | None]
"""The engine of a record as far as it can be had from here; None where it cannot."""


def place_of(folder: Path, launch: LaunchPaths) -> Place:
    """The place of a launch that exists, as far as recording its end needs it."""
    return Place(folder=folder, launch=launch, target=layout.RUN_DIR, whole_writable=False)


def state_of(folder: Path, launch: LaunchPaths, engine_for: EngineFor) -> tuple[State, Outcome | None]:
    """The state of one launch, and its outcome once it is final. A launch found ended gets its outcome here (reconcile)."""
    if launch.outcome.exists():
        outcome = load_record(Outcome, launch.outcome)
        return outcome.state, outcome
    if being_prepared(launch):
        return State.CREATED, None
    if not launch.manifest.exists():
        return State.LOST, None
    return reconcile(folder, launch, load_record(Manifest, launch.manifest), engine_for)


def reconcile(
    folder: Path, launch: LaunchPaths, manifest: Manifest, engine_for: EngineFor
) -> tuple[State, Outcome | None]:
    """Ask the engine named in the manifest. Only that very engine, on the same boot, may rule that the launch is lost."""
    try:
        engine = engine_for(manifest.engine)
        if engine is None:
            return State.UNKNOWN, None
        identity = engine.identity()
        container = engine.find(container_name(manifest, folder))
    except EngineError:
        return State.UNKNOWN, None
    if container is not None and str(launch.folder).endswith(container.labels.get("runner.launch", "?")):
        return _from_container(folder, launch, engine, container)
    if launch.outcome.exists():  # ended and removed by its launcher while we asked
        outcome = load_record(Outcome, launch.outcome)
        return outcome.state, outcome
    if not same_engine(identity, manifest.engine):
        return State.UNKNOWN, None
    reason = "the engine that it was given to has no such container, and nobody saw it end"
    if identity.boot_id != manifest.engine.boot_id:
        reason = "the machine was restarted while it ran"
    outcome, _ = record_end(place_of(folder, launch), Ending(lost=True, reason=reason, recorded_by="reconcile"))
    return outcome.state, outcome


def _from_container(
    folder: Path, launch: LaunchPaths, engine: Engine, container: Container
) -> tuple[State, Outcome | None]:
    """The state as its container shows it; one that has ended is recorded and removed."""
    if container.running:
        return State.RUNNING, None
    if container.exit is None:  # created and never started: its launcher died in between
        ending = Ending(reason="its launcher died before the start", recorded_by="reconcile")
    else:
        ending = Ending(exit=container.exit, recorded_by="reconcile")
    label = container.labels.get(MANIFEST_LABEL)
    outcome, unwritten = record_end(place_of(folder, launch), ending, manifest_sha256=label)
    if unwritten is None:
        with contextlib.suppress(EngineError):
            engine.remove(container.id)
    return outcome.state, outcome


def container_name(manifest: Manifest, folder: Path) -> str:
    """The name that the plan gave the container of this launch."""
    if manifest.kind == "train":
        return attempt_container(manifest.run, manifest.attempt)
    return output_container(manifest.run, folder.name)


def attempt_container(run: str, attempt: int) -> str:
    """The container name of one attempt of a run. One name, one container: a double start is impossible."""
    return f"{run}-{attempt}"


def output_container(run: str, name: str) -> str:
    """The container name of an evaluation or preparation: the run and the output folder's own name."""
    return f"{run}-{name}"


def same_engine(identity: EngineIdentity, record: EngineRecord) -> bool:
    """Whether `identity` is the engine that ran the launch."""
    return identity.kind == record.kind and identity.id == record.id


def being_prepared(launch: LaunchPaths) -> bool:
    """Whether a living process holds the launch's lock."""
    try:
        with launch.lock.open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def require_ended(folder: Path, launch: LaunchPaths, engine_for: EngineFor, verb: str) -> Outcome | None:
    """The outcome of a launch that must have ended before `verb` may touch it.

    Raises:
        RunnerError: it is being prepared or runs, or its engine cannot be asked whether it does.
    """
    state, outcome = state_of(folder, launch, engine_for)
    if state in (State.CREATED, State.RUNNING):
        how = f"stop it (make stop RUN={folder.name})"
        if launch.folder.name == layout.LAUNCH:  # an evaluation is nobody's RUN=
            how = "press Ctrl-C where it was started"
        raise RunnerError(f"{folder.name}: is {state}; wait for it or {how} before you {verb} it")
    if state is State.UNKNOWN:
        engine = load_record(Manifest, launch.manifest).engine
        raise RunnerError(
            f"{folder.name}: may still be running: its engine ({engine.kind} on {engine.host}) cannot be asked from here; "
            f"{verb} it there, or start that engine"
        )
    return outcome
