"""The numbers of a run, from metrics.jsonl: read fast, and compared point by point.

Several lines may hold one step of one split; together they are one point, and of a value that is given twice the last counts.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any

from runner.contract import foreign

_TIME = re.compile(rb', "time": [0-9.eE+-]+(?=[,}])')
"""The only number that may differ between equal runs. Inside a text the quotes would be escaped."""

NOT_FINITE = ("NaN", "Infinity", "-Infinity")
"""Numbers that JSON has no word for, as the writers of Python and their like spell them."""

Point = tuple[int, str]
"""Step and split."""
Points = Mapping[Point, Mapping[str, Any]]
Series = Mapping[tuple[str, str], Mapping[int, float]]
"""Split and name → step → value."""


@dataclass(frozen=True)
class Curves:
    """All points of a run. `bytes` is the file without its times."""

    bytes: bytes = field(repr=False)

    @cached_property
    def points(self) -> Points:
        """Step and split → values, in the order of their first line."""
        found: dict[Point, dict[str, Any]] = {}
        for values in _lines(self.bytes):
            step, split = values.pop("step", None), values.pop("split", "")
            values.pop("time", None)
            if type(step) is not int:
                continue
            point = step, str(split)
            if point in found:
                found[point].update(values)
            else:
                found[point] = values
        return found

    @cached_property
    def numbers(self) -> Series:
        """Every curve, NaN and infinity included; no texts. Points with the same names are read name by name."""
        alike: dict[tuple[str, ...], tuple[list[int], list[Mapping[str, Any]]]] = {}
        for (step, split), values in self.points.items():
            name = (split, *values)
            if name not in alike:
                alike[name] = [], []
            alike[name][0].append(step)
            alike[name][1].append(values)
        found: dict[tuple[str, str], dict[int, float]] = {}
        for (split, *keys), (steps, points) in alike.items():
            for key in keys:
                numbers = _numbers(steps, [values[key] for values in points]) if key != "epoch" else ()
                found.setdefault((split, key), {}).update(numbers)
        return {name: curve for name, curve in found.items() if curve}

    @cached_property
    def series(self) -> Series:
        """Every curve that can be drawn: its finite numbers."""
        finite = {
            name: {step: value for step, value in curve.items() if isfinite(value)}
            for name, curve in self.numbers.items()
        }
        return {name: curve for name, curve in finite.items() if curve}


def read_curves(path: Path) -> Curves:
    """The curves in a metrics.jsonl; none where there is no such file."""
    handle = foreign.open_regular(path)
    if handle is None:
        return Curves(b"")
    with handle:
        return Curves(_TIME.sub(b"", handle.read()))


def _lines(content: bytes) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file. A torn or foreign line is passed over; all at once where there is none. NaN and
    infinity, which are no JSON but are written by some, become text, so that they equal themselves."""
    lines = [line for line in content.splitlines() if line]
    try:
        parsed = json.loads(b"[" + b",".join(lines) + b"]", parse_constant=str)
    except (ValueError, RecursionError):
        parsed = [value for line in lines if (value := _parse(line)) is not None]
    return [value for value in parsed if isinstance(value, dict)]


def _numbers(steps: Sequence[int], values: Sequence[Any]) -> Iterable[tuple[int, float]]:
    """Those of the values that are numbers, with their steps."""
    if set(map(type, values)) == {float}:
        return zip(steps, values, strict=True)
    pairs = ((step, _number(value)) for step, value in zip(steps, values, strict=True))
    return ((step, number) for step, number in pairs if number is not None)


def _number(value: Any) -> float | None:
    """A logged value as a number; None for what is none."""
    return float(value) if value in NOT_FINITE or type(value) is float else foreign.number(value)


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line, parse_constant=str)
    except (ValueError, RecursionError):
        return None


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """The first value that is not the same. A value that was never logged is None."""

    step: int
    split: str
    key: str
    first: Any
    second: Any


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Two runs' curves, point by point."""

    points: int
    """How many were compared."""
    divergence: Divergence | None
    """None where all are equal."""


def compare_curves(first: Curves, second: Curves, *, up_to: int | None = None, common: bool = False) -> Compared:
    """Compare every value. `up_to`: only the first run's steps up to this one count, for a run that never came to its end.
    `common`: only values that both have at a step, for runs that were told to log at different steps; a value that one of
    them never has is a difference all the same."""
    if first.bytes == second.bytes:
        return Compared(points=first.bytes.count(b"\n"), divergence=None)
    a, b = first.points, second.points
    if up_to is not None:
        a = {point: values for point, values in a.items() if point[0] <= up_to}
        b = {point: {key: v for key, v in b[point].items() if key in a[point]} for point in a if point in b}
    if common:
        a, b = _common(a, b, second.numbers), _common(b, a, first.numbers)
    differing = [p for p, values in a.items() if values != b.get(p)] + [p for p in b if p not in a]
    found = min(differing, key=lambda point: point[0], default=None)
    return Compared(
        points=len(a.keys() & b.keys()),
        divergence=None if found is None else _differing(found, a.get(found), b.get(found)),
    )


def _common(points: Points, others: Points, curves: Series) -> Points:
    """What of `points` the other run could have logged at the same steps; `curves` are all that it has."""
    return {
        point: {key: v for key, v in values.items() if key in others[point] or (point[1], key) not in curves}
        for point, values in points.items()
        if point in others
    }


def _differing(point: Point, a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> Divergence:
    """The first value of a point that differs."""
    before, after = a or {}, b or {}
    differing = [key for key in dict.fromkeys([*before, *after]) if before.get(key) != after.get(key)]
    key = min(differing, key=lambda key: key == "epoch", default="")  # of a line that is missing, what it says
    step, split = point
    return Divergence(step=step, split=split, key=key, first=before.get(key), second=after.get(key))
