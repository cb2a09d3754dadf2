"""How a launch ended: decided from what the engine and the supervisor saw, published once."""

import contextlib
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from runner.contract import checkpoints, foreign, layout
from runner.contract.jsonio import file_sha256, pretty_json, publish_once
from runner.contract.records import Manifest, Outcome, State, load_record, to_json
from runner.host.engines.engine import Exit
from runner.host.launch.plan import Place

LAST_LINES = 20
SIGBUS_EXIT = 128 + signal.SIGBUS


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What is known of the end of one launch."""

    exit: Exit | None = None
    """By the engine's account; None if it was never created, or is gone."""
    reason: str | None = None
    """Why there is no exit."""
    killed: bool = False
    lost: bool = False
    recorded_by: str = "follow"


def publish_outcome(place: Place, ending: Ending, *, manifest_sha256: str | None = None) -> Outcome:
    """Write outcome.json and return it; where another process was first, theirs.

    `manifest_sha256` is the container's label. Without one (the launcher itself calls) the file's own is taken.
    """
    manifest = load_record(Manifest, place.launch.manifest)
    outcome = decide(place, manifest, ending, manifest_sha256 or file_sha256(place.launch.manifest))
    if not publish_once(place.launch.outcome, pretty_json(to_json(outcome))):
        return load_record(Outcome, place.launch.outcome)
    return outcome


def record_end(place: Place, ending: Ending, *, manifest_sha256: str | None = None) -> tuple[Outcome, OSError | None]:
    """The outcome, and what kept it from being written: a full disk, or a folder of somebody else's, keeps nobody from
    knowing. The container must then stay: whoever looks next writes it."""
    try:
        return publish_outcome(place, ending, manifest_sha256=manifest_sha256), None
    except OSError as error:
        manifest = load_record(Manifest, place.launch.manifest)
        return decide(place, manifest, ending, manifest_sha256 or file_sha256(place.launch.manifest)), error


def decide(place: Place, manifest: Manifest, ending: Ending, manifest_sha256: str) -> Outcome:
    """The outcome as a value."""
    seen = foreign.object_in(place.launch.exit)
    code = ending.exit.code if ending.exit is not None else None
    lines = last_lines(place.folder / layout.LOGS)
    state, reason = judge(ending, seen, lines)
    started = _moment(seen.get("started")) or (ending.exit.started if ending.exit else None)
    finished = _moment(seen.get("finished")) or (ending.exit.finished if ending.exit else None)
    score, step = score_of(place, manifest.kind)
    return Outcome(
        state=state,
        exit_code=code,
        reason=reason,
        started=started,
        finished=finished,
        duration_s=_seconds_between(started, finished),
        manifest_sha256=manifest_sha256,
        image_id=manifest.image.id,
        recorded_by=ending.recorded_by,
        run=manifest.run,
        attempt=manifest.attempt,
        kind=manifest.kind,
        project=manifest.project,
        dataset=manifest.dataset,
        tag=manifest.tag,
        number=manifest.number,
        created=manifest.created,
        score=score,
        step=step,
        last_lines=() if state is State.COMPLETED else lines,
    )


def judge(ending: Ending, seen: Mapping[str, Any], lines: tuple[str, ...]) -> tuple[State, str]:
    """State and reason. The engine is the witness; what the supervisor saw only explains it."""
    if ending.lost:
        return State.LOST, ending.reason or "its engine no longer knows it"
    if ending.exit is None:
        return State.FAILED, ending.reason or "it was never started"
    exit_, code = ending.exit, ending.exit.code
    received = _asked_by(seen.get("received"))
    if exit_.error:
        return State.FAILED, f"the engine could not run it: {exit_.error}"
    if code != 0 and exit_.out_of_memory:
        return State.OUT_OF_MEMORY, "the kernel killed it for memory; raise resources.memory_gib or use smaller batches"
    if seen.get("timed_out") is True:
        return State.TIMED_OUT, "it ran longer than resources.timeout_s"
    if code == 0:
        return State.COMPLETED, "exit code 0"
    if ending.killed or code == 128 + signal.SIGKILL:
        return State.KILLED, "killed" + (
            " after it had been asked to stop" if received or ending.killed else " by SIGKILL"
        )
    if received:
        return State.INTERRUPTED, f"{received[0]}, then it ended by itself with exit code {code}"
    return State.FAILED, explain(code, lines)


def explain(code: int, lines: tuple[str, ...]) -> str:
    """A failure in words, with the usual cause where the code or the log gives it away."""
    text = "\n".join(lines).lower()
    if code == SIGBUS_EXIT or "bus error" in text:
        return f"exit code {code}: bus error, most often too little shared memory; raise resources.shm_gib or lower n_workers"
    if code > 128:
        with contextlib.suppress(ValueError):
            return f"exit code {code}: ended by {signal.Signals(code - 128).name}"
    if "no space left on device" in text:
        return f"exit code {code}: no space left on device"
    return f"exit code {code}"


def score_of(place: Place, kind: str) -> tuple[float | None, int | None]:
    """Best score and last step of a run, or the score of an evaluation, as its files say."""
    if kind == "evaluate":
        scores = foreign.object_in(place.folder / layout.METRICS_JSON)
        return foreign.number(scores.get("score")), foreign.integer(scores.get("step"))
    folder = place.folder / layout.CHECKPOINTS
    best, latest = checkpoints.pointed(folder, checkpoints.BEST), checkpoints.pointed(folder, checkpoints.LATEST)
    score = checkpoints.facts(best)["score"] if best is not None else None
    step = checkpoints.facts(latest)["step"] if latest is not None else None
    return score, step


def last_lines(logs: Path, count: int = LAST_LINES) -> tuple[str, ...]:
    """The last lines of a log; () where there is none. Reads the end of the file only."""
    handle = foreign.open_regular(logs)
    if handle is None:
        return ()
    with handle:
        handle.seek(0, 2)
        handle.seek(max(0, handle.tell() - 16_384))
        text = handle.read().decode(errors="replace")
    return tuple(text.rstrip("\n").splitlines()[-count:]) if text.strip() else ()


def _asked_by(received: Any) -> list[str]:
    """The signals among those that the supervisor passed on that ask a command to end."""
    names = received if isinstance(received, list) else []
    return [name for name in names if name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")]


def _moment(value: Any) -> str | None:
    """A time with its zone, as the supervisor writes it; None for anything else."""
    with contextlib.suppress(TypeError, ValueError):
        return str(value) if datetime.fromisoformat(value).tzinfo is not None else None
    return None


def _seconds_between(started: str | None, finished: str | None) -> float | None:
    if started is None or finished is None:
        return None
    return round((datetime.fromisoformat(finished) - datetime.fromisoformat(started)).total_seconds(), 3)
