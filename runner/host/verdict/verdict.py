"""Whether a run is the same as another: two run folders in, a verdict out, level by level. No torch, nothing written.

inputs       the same source, config, packages, data, threads and variables
metrics      every logged value of every step is equal; only their times differ
checkpoints  besides, every checkpoint that both have at a step is bit-identical
tolerance    every curve stays within a tolerance that is said
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from math import isfinite
from pathlib import Path
from typing import Any

from runner.contract.errors import RunnerError
from runner.contract.layout import RunPaths
from runner.host.pages.curves import Compared, Curves, Divergence, compare_curves, read_curves
from runner.host.verdict.changes import Change, Effect, what_changed
from runner.host.verdict.run_facts import RunFacts, facts_of, logged_otherwise
from runner.host.verdict.states import States, compare_states, steps_text
from runner.host.verdict.tolerance import NOISE, NOISE_AT_END, RELATIVE, SHARE, CurveTolerance, within_tolerance

SCHEMA_VERSION = 1


class Level(StrEnum):
    """What can be asked of a reproduction."""

    INPUTS = "inputs"
    METRICS = "metrics"
    CHECKPOINTS = "checkpoints"
    TOLERANCE = "tolerance"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What was asked for, or chosen because nobody asked."""

    level: Level
    relative: float | None = None
    """LEVEL=tolerance:<relative>."""
    because: str


@dataclass(frozen=True, kw_only=True)
class Held:
    """One level."""

    level: Level
    holds: bool | None
    """None: there is nothing to compare, so nobody can say."""
    text: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of comparing two runs."""

    first: str
    second: str
    asked: Asked
    holds: bool
    """Whether the asked level does."""
    levels: tuple[Held, ...]
    divergence: Divergence | None
    changes: tuple[Change, ...]
    doubts: tuple[str, ...]
    """What of the runs is not recorded, so that no list of changes can name it."""
    conclusion: str
    """One line: identical; or the cause, or what kind of surprise it is."""


def parse_level(text: str | None) -> tuple[Level, float | None] | None:
    """LEVEL= as typed: a level, or tolerance:<relative>; None where it was not given.

    Raises:
        RunnerError: it is no level.
    """
    if text is None:
        return None
    name, colon, number = text.partition(":")
    try:
        relative = float(number) if colon else None
        level = Level(name)
        if relative is not None and (level is not Level.TOLERANCE or not 0 < relative < float("inf")):
            raise ValueError
    except ValueError:
        raise RunnerError(
            f"LEVEL={text!r}: expected one of {', '.join(Level)}, or tolerance:<relative> such as tolerance:0.01"
        ) from None
    return level, relative


def judge(first: RunPaths, second: RunPaths, cache: Path, *, level: str | None = None) -> Verdict:
    """Compare the run `second` with the run `first`. Nothing but the cache is written to.

    Raises:
        RunnerError: `level` is none; a record that is missing or damaged.
    """
    given = parse_level(level)
    a, b = facts_of(first), facts_of(second)
    changes = what_changed(a, b, cache)
    numbers = read_curves(first.metrics), read_curves(second.metrics)
    end = None if a.completed else last_step(numbers[0])
    common = logged_otherwise(a, b)
    compared = compare_curves(*numbers, up_to=end, common=common)
    states = compare_states(first, second)
    doubts = doubts_of(a, b)
    asked = (
        choose(a, b, changes, compared, states)
        if given is None
        else Asked(level=given[0], relative=given[1], because="asked for")
    )
    levels = (
        _inputs(changes),
        _metrics(a, b, compared, end),
        _checkpoints(a, b, states, compared.divergence),
        _tolerance(numbers, asked.relative, end, common),
    )
    held = next(item for item in levels if item.level is asked.level)
    ended_well = b.completed or not a.completed
    return Verdict(
        first=a.name,
        second=b.name,
        asked=asked,
        holds=held.holds is True and (ended_well or asked.level is Level.INPUTS),
        levels=levels,
        divergence=compared.divergence,
        changes=changes,
        doubts=doubts,
        conclusion=conclude(a, b, levels, changes, doubts),
    )


def choose(a: RunFacts, b: RunFacts, changes: Sequence[Change], compared: Compared, states: States) -> Asked:
    """The level to hold a reproduction against: bit-identical where nothing stands against it."""
    against = reasons_for_tolerance(a, b, changes)
    if against:
        return Asked(level=Level.TOLERANCE, because=f"not bit-identical, since {'; '.join(against)}")
    same = "vector width, threads and engine are the same"
    if states.same or states.other or (a.completed and states.last_is_lone):
        return Asked(level=Level.CHECKPOINTS, because=f"bit-identical, since {same}")
    if compared.points or compared.divergence is not None:
        return Asked(level=Level.METRICS, because=f"{same}, and the runs have no checkpoint at a common step")
    return Asked(level=Level.INPUTS, because="the runs logged no metric and have no checkpoint at a common step")


def reasons_for_tolerance(a: RunFacts, b: RunFacts, changes: Sequence[Change]) -> list[str]:
    """Why equal inputs need not give equal bits here."""
    named = {"machine.vector width", "limits.threads", "engine.kind", "machine.GPUs", "machine.driver"}
    found = [
        f"{change.name} was {change.first} and is {change.second}"
        for change in changes
        if f"{change.group}.{change.name}" in named and change.effect is Effect.NUMERICS
    ]
    if (a.gpu or b.gpu) and a.config.get("deterministic") is not True:
        found.append("a GPU computed it without deterministic: true")
    return found


# ------------------------------------------------------------------------------------------------------------- levels


def _inputs(changes: Sequence[Change]) -> Held:
    differing = [change for change in changes if change.is_input]
    if not differing:
        return Held(level=Level.INPUTS, holds=True, text="source, config, packages, data, threads, variables")
    names = ", ".join(dict.fromkeys(f"{change.group} {change.name}" for change in differing[:4]))
    more = f" and {len(differing) - 4} more" if len(differing) > 4 else ""
    return Held(level=Level.INPUTS, holds=False, text=f"differ: {names}{more}")


def _metrics(a: RunFacts, b: RunFacts, compared: Compared, end: int | None) -> Held:
    until = "" if end is None else f" up to step {end}, where {a.name} ended"
    if compared.divergence is not None:
        return Held(level=Level.METRICS, holds=False, text=diverged(compared.divergence))
    if compared.points == 0:
        return Held(level=Level.METRICS, holds=None, text="no metric was logged")
    if a.completed and not b.completed:
        state = b.outcome.state if b.outcome is not None else "not ended"
        return Held(level=Level.METRICS, holds=False, text=f"equal as far as it went, but {b.name} is {state}")
    return Held(level=Level.METRICS, holds=True, text=f"{compared.points} lines equal but for their times{until}")


def diverged(found: Divergence) -> str:
    """The first value that differs, in words."""
    where = f"step {found.step}" + (f", {found.split}" if found.split else "")
    return f"first differing logged {where}: {found.key} {_value(found.first)} and {_value(found.second)}"


def _value(value: Any) -> str:
    return "not logged" if value is None else repr(value)[:60]


def _checkpoints(a: RunFacts, b: RunFacts, states: States, divergence: Divergence | None) -> Held:
    """Bit by bit: also the last state must be there in both, unless the first run never came to its end."""
    equal = f"equal at {steps_text(states.same)}" if states.same else ""
    lone = [
        f"only {run.name} has {steps_text(steps)}" for run, steps in ((a, states.first), (b, states.second)) if steps
    ]
    if states.damaged:
        text = f"damaged since it was written: {', '.join(states.damaged[:3])}"
        return Held(level=Level.CHECKPOINTS, holds=False, text=text)
    if states.other:
        text = f"differ at step {states.other[0]} (by {states.by})"
        return Held(level=Level.CHECKPOINTS, holds=False, text="; ".join(filter(None, (text, equal, *lone))))
    if a.completed and states.last_is_lone:
        return Held(level=Level.CHECKPOINTS, holds=False, text="; ".join(filter(None, (equal, *lone))))
    if not states.same:
        return Held(level=Level.CHECKPOINTS, holds=None, text="; ".join(("no checkpoint at a common step", *lone)))
    if divergence is not None:
        return Held(level=Level.CHECKPOINTS, holds=False, text=f"{equal}, but the metrics differ")
    text = f"bit-identical at {steps_text(states.same)} (by {states.by})"
    return Held(level=Level.CHECKPOINTS, holds=True, text="; ".join((text, *lone)))


def _tolerance(numbers: tuple[Curves, Curves], relative: float | None, end: int | None, common: bool) -> Held:
    if numbers[0].bytes and numbers[0].bytes == numbers[1].bytes:
        return Held(level=Level.TOLERANCE, holds=True, text="no difference at all")
    curves = within_tolerance(*numbers, relative=relative, up_to=end, common=common)
    if not curves:
        return Held(level=Level.TOLERANCE, holds=None, text="no curve that both runs have")
    worst = min(curves, key=lambda curve: (curve.holds, curve.tolerance - curve.apart))
    text = f"{SHARE:.0%} of each curve's points, and its last, within {_rule(relative)}: {_seen(worst)}"
    return Held(level=Level.TOLERANCE, holds=all(curve.holds for curve in curves), text=text)


def _rule(relative: float | None) -> str:
    """The tolerance in words."""
    if relative is not None:
        return f"{relative:g} of the value"
    return (
        f"{RELATIVE:g} of the value, or {NOISE:g} x the curve's own median change from value to value in the first run "
        f"(at its end {NOISE_AT_END:g} x)"
    )


def _seen(worst: CurveTolerance) -> str:
    """The point of all that says most."""
    where = f"{worst.split} {worst.key}".strip() + f" at step {worst.step}"
    if not isfinite(worst.apart):
        return f"{where} is {_value(worst.first)} and {_value(worst.second)}"
    return f"largest difference {worst.apart:.3g} against {worst.tolerance:.3g} allowed, {where}"


def last_step(curves: Curves) -> int:
    """The last step that has a line; 0 where there is none."""
    return max((step for step, _ in curves.points), default=0)


# --------------------------------------------------------------------------------------------------------- conclusion


def doubts_of(*runs: RunFacts) -> tuple[str, ...]:
    """What the runs say of themselves that no comparison can see. A reproduction repeats the doubts of its parent."""
    found: dict[str, None] = {}
    for run in runs:
        found |= {
            reason if reason in found else f"{run.name}: not reproducible: {reason}": None for reason in run.doubts
        }
    return tuple(found)


def conclude(a: RunFacts, b: RunFacts, levels: Sequence[Held], changes: Sequence[Change], doubts: Sequence[str]) -> str:
    """What it comes to: expected non-determinism told apart from a cause, and both from a surprise."""
    held = {item.level: item.holds for item in levels}
    if False not in (held[Level.METRICS], held[Level.CHECKPOINTS]):
        if True not in (held[Level.METRICS], held[Level.CHECKPOINTS]):
            return "nothing to compare"
        inputs = next((change for change in changes if change.is_input), None)
        return "the same run" if inputs is None else f"the same results, although {inputs.group} {inputs.name} differs"
    causes = [change for change in changes if change.effect in (Effect.DECIDES, Effect.MAY)]
    if causes:
        return f"most likely because of {causes[0].group} {causes[0].name} ({causes[0].effect})"
    rounding = [change for change in changes if change.effect is Effect.NUMERICS]
    if rounding:
        first = rounding[0]
        return f"expected: {first.group} {first.name} was {first.first} and is {first.second}, which changes the last digits"
    if (a.gpu or b.gpu) and a.config.get("deterministic") is not True:
        return "expected: a GPU computes it in no fixed order without deterministic: true"
    if a.completed and not b.completed:
        return f"{b.name} did not come to its end; its log says why"
    if doubts:
        return f"nothing that is recorded explains it, and not everything is: {doubts[0]}"
    suspects = [f"{change.group} {change.name}" for change in changes if change.group in ("source", "data", "mounts")]
    nothing = (
        f"nothing that should matter changed (does {suspects[0]}?)" if suspects else "nothing that is recorded changed"
    )
    return (
        f"a surprise: {nothing}; look for random numbers without a seed, the clock, the order of a set or of files, or "
        "threads that race in the project's code"
    )


def to_json(verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain JSON values."""
    return {"schema_version": SCHEMA_VERSION, **asdict(verdict)}
