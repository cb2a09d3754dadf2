"""What one can do with runs that exist: list, describe, read the log, stop, remove. States are asked for, never assumed."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from runner.contract import catalogue, checkpoints
from runner.contract.catalogue import Entry
from runner.contract.errors import EngineError, RunnerError
from runner.contract.jsonio import file_sha256
from runner.contract.layout import LAUNCH, LaunchPaths, OutputPaths, RunPaths
from runner.contract.names import check_name
from runner.contract.records import EngineRecord, Manifest, Outcome, State, load_record, to_json
from runner.host.engines.choose import engine_of_record
from runner.host.engines.engine import Engine, Exit
from runner.host.house import House
from runner.host.launch.outcomes import Ending, last_lines, record_end
from runner.host.launch.plan import MANIFEST_LABEL, LaunchPlan
from runner.host.launch.states import EngineFor, being_prepared, container_name, place_of, require_ended, state_of

POLL_S = 0.3


def asker(house: House) -> EngineFor:
    """How to get the engine of a record; each engine is set up once a process."""

    @cache
    def engine_for(kind: str, engine_id: str) -> Engine | None:
        record = EngineRecord(kind=kind, id=engine_id, boot_id="", host="", version="")
        try:
            return engine_of_record(record, house.cache)
        except EngineError:  # once is enough: a hanging engine must not be waited for by every run of a list
            return None

    return lambda record: engine_for(record.kind, record.id)


def find(house: House, run: str, project: str | None) -> RunPaths:
    """The run that RUN= and PROJECT= mean; `latest` is the caller's own."""
    if project is not None:
        check_name("PROJECT", project)
    return catalogue.find_run(house.checkpoints, run, project=project, uid=os.getuid())


def last_launch(paths: RunPaths) -> LaunchPaths:
    """The record of a run's last attempt. One whose preparation died before it had a manifest counts for nothing.

    Raises:
        RunnerError: it has none.
    """
    numbers = [int(p.name) for p in paths.attempts.glob("*") if p.name.isdecimal()] if paths.attempts.is_dir() else []
    if not numbers:
        raise RunnerError(f"{paths.folder}: has no attempts/<n>/manifest.json, so it is no run; `make rm` deletes it")
    newest = paths.attempt(max(numbers))
    entry = None if being_prepared(newest) else catalogue.read_entry(paths.folder)
    return newest if entry is None else LaunchPaths(entry.launch)


def engine_kind(house: House, run: str, project: str | None) -> str:
    """docker or local: the engine that a run was made on, which evaluate and resume use too."""
    return load_record(Manifest, find(house, run, project).attempt(1).manifest).engine.kind


def listing(house: House, project: str | None) -> list[dict[str, Any]]:
    """One row a run, oldest first; the engine is asked only about those without an outcome."""
    if project is not None:
        check_name("PROJECT", project)
    engine_for = asker(house)
    return [_row(entry, engine_for) for entry in catalogue.list_runs(house.checkpoints, project)]


def _row(entry: Entry, engine_for: EngineFor) -> dict[str, Any]:
    state = entry.state
    if state is None:
        try:
            state = str(state_of(entry.folder, LaunchPaths(entry.launch), engine_for)[0])
        except RunnerError:  # a damaged record is told by `show`; the list goes on
            state = str(State.UNKNOWN)
    return {
        "name": entry.name,
        "project": entry.project,
        "dataset": entry.dataset,
        "run": f"{entry.tag}/{entry.number}",
        "state": state,
        "score": entry.score,
        "step": entry.step,
        "attempt": entry.attempt,
        "created": entry.created,
        "duration_s": entry.duration_s if entry.duration_s is not None else _age_s(entry, state),
        "folder": str(entry.folder),
    }


def _age_s(entry: Entry, state: str) -> float | None:
    """Seconds that a running launch has been going."""
    if state != State.RUNNING or not entry.created:
        return None
    return round((datetime.now(UTC) - datetime.fromisoformat(entry.created)).total_seconds(), 1)


def describe(house: House, run: str, project: str | None) -> dict[str, Any]:
    """Everything known about a run: its last manifest, its attempts and how they ended, its checkpoints and evaluations."""
    paths = find(house, run, project)
    launch = last_launch(paths)
    engine_for = asker(house)
    state, outcome = state_of(paths.folder, launch, engine_for)
    manifest = load_record(Manifest, launch.manifest) if launch.manifest.exists() else None
    return {
        "name": paths.folder.name,
        "folder": str(paths.folder),
        "state": str(state),
        "outcome": to_json(outcome) if outcome is not None else None,
        "intact": manifest is None or outcome is None or outcome.manifest_sha256 == file_sha256(launch.manifest),
        "manifest": to_json(manifest) if manifest is not None else None,
        "attempts": [_attempt(paths, int(p.name)) for p in sorted(paths.attempts.glob("[0-9]*"), key=_attempt_number)],
        "checkpoints": _checkpoints(paths),
        "evaluations": [
            {"folder": str(e.folder), "state": e.state, "score": e.score, "created": e.created}
            for e in catalogue.list_outputs(house.outputs, paths.folder.name)
        ],
        "last_lines": list(last_lines(paths.logs)),
    }


def _attempt_number(path: Path) -> int:
    return int(path.name) if path.name.isdecimal() else 0


def _attempt(paths: RunPaths, number: int) -> dict[str, Any]:
    launch = paths.attempt(number)
    if not launch.outcome.exists():
        return {"attempt": number, "state": None}
    outcome = load_record(Outcome, launch.outcome)
    return {"attempt": number, "state": str(outcome.state), "reason": outcome.reason, "duration_s": outcome.duration_s}


def _checkpoints(paths: RunPaths) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pointer in (checkpoints.BEST, checkpoints.LATEST):
        path = checkpoints.pointed(paths.checkpoints, pointer)
        if path is not None:
            facts = checkpoints.facts(path)
            found[pointer] = {"file": path.name, **{key: facts.get(key) for key in ("step", "score", "sha256", "size")}}
    return found


def log(house: House, run: str, project: str | None, *, follow: bool) -> Iterator[bytes]:
    """The bytes of a run's log; with `follow` also those that come, until the run has ended."""
    paths = find(house, run, project)
    launch, engine_for = last_launch(paths), asker(house)
    if not paths.logs.exists():
        raise RunnerError(
            f"{paths.logs}: not there; the run was never started, see `make show RUN={paths.folder.name}`"
        )
    with paths.logs.open("rb") as handle:
        while True:
            ended = not follow or state_of(paths.folder, launch, engine_for)[0].final
            while chunk := handle.read(1 << 16):
                yield chunk
            if ended:
                return
            time.sleep(POLL_S)


def stop(house: House, run: str, project: str | None, *, now: bool) -> str:
    """Ask a run to stop and wait until it has; killed when its grace time is over, or with `now` at once.

    Raises:
        RunnerError: it does not run.
    """
    paths = find(house, run, project)
    launch, engine_for = last_launch(paths), asker(house)
    state, _ = state_of(paths.folder, launch, engine_for)
    if state is not State.RUNNING:
        raise RunnerError(f"{paths.folder.name}: is {state}, not RUNNING; there is nothing to stop")
    manifest = load_record(Manifest, launch.manifest)
    engine = engine_for(manifest.engine)
    container = engine.find(container_name(manifest, paths.folder)) if engine is not None else None
    if engine is not None and container is not None:
        if now:
            engine.kill(container.id)
        else:
            engine.signal(container.id, signal.SIGTERM)
            _wait_or_kill(engine, container.id, float(manifest.resources.get("grace_s") or 0))
    while not (state := state_of(paths.folder, launch, engine_for)[0]).final:
        time.sleep(POLL_S)
    return f"{paths.folder.name}: {state}"


def _wait_or_kill(engine: Engine, container: str, grace_s: float) -> None:
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline:
        found = engine.find(container)
        if found is None or not found.running:
            return
        time.sleep(POLL_S)
    engine.kill(container)


def removable(house: House, run: str, project: str | None) -> list[Path]:
    """The folders that `rm` would delete: the run's own and its evaluations'.

    Raises:
        RunnerError: the run, or an evaluation of it, is being prepared or runs, as far as can be known.
    """
    paths, engine_for = find(house, run, project), asker(house)
    if any(paths.attempts.glob("*")):
        require_ended(paths.folder, last_launch(paths), engine_for, "delete")
    evaluations = _evaluations(house, paths)
    for folder in (folder for each in evaluations for folder in sorted(each.iterdir()) if folder.is_dir()):
        require_ended(folder, OutputPaths(folder).launch, engine_for, "delete")
    return [paths.folder, *evaluations]


def _evaluations(house: House, paths: RunPaths) -> list[Path]:
    """Where a run's evaluations lie, under its own data set and those that stood in for it; never another run's of its name."""
    project, dataset, name = paths.folder.parts[-3:]
    found = [folder / name for folder in sorted((house.outputs / project).glob("*")) if (folder / name).is_dir()]
    others = house.checkpoints / project
    return [each for each in found if each.parent.name == dataset or not (others / each.parent.name / name).exists()]


def remove(folders: list[Path]) -> list[Path]:
    """Delete folders. Each is renamed out of sight first, so that half a run is never found."""
    for folder in folders:
        hidden = folder.with_name(f".{folder.name}.removed")
        try:
            folder.rename(hidden)
            shutil.rmtree(hidden)
        except OSError as error:
            raise RunnerError(
                f"{error.filename or folder}: cannot be deleted: {os.strerror(error.errno or 0)}"
            ) from None
    return folders


def follow_in_background(plan: LaunchPlan) -> None:
    """Start a process of its own session that watches a detached launch and records its end."""
    subprocess.Popen(
        [sys.executable, "-m", "runner", "follow", "--run", str(plan.place.folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def follow_detached(house: House, folder: Path, say: Callable[[str], None]) -> int:
    """Watch the last launch in `folder` to its end and record how it ended."""
    from runner.host.launch.launcher import Watch

    launch = last_launch(RunPaths(folder)) if (folder / "attempts").is_dir() else LaunchPaths(folder / LAUNCH)
    manifest = load_record(Manifest, launch.manifest)
    engine = asker(house)(manifest.engine)
    container = engine.find(container_name(manifest, folder)) if engine is not None else None
    if engine is None or container is None:
        raise RunnerError(f"{folder.name}: its container is gone; `make show RUN={folder.name}` says what is known")
    watch = Watch(engine, container.id, float(manifest.resources.get("grace_s") or 0), say)
    with watch.signals():
        exit_: Exit = engine.wait(container.id)
    ending = Ending(exit=exit_, killed=watch.killed)
    label = container.labels.get(MANIFEST_LABEL)
    _, unwritten = record_end(place_of(folder, launch), ending, manifest_sha256=label)
    if unwritten is None:
        with contextlib.suppress(EngineError):
            engine.remove(container.id)
    return 0
