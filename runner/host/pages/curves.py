"""The numbers of a run, from metrics.jsonl: read fast, and compared point by point.

Several lines may hold one step of one split; together they are one point, and of a value that is given twice the last counts.
"""

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from math import isfinite
from operator import sub
from pathlib import Path
from typing import Any

from runner.contract import foreign

_TIME = re.compile(rb', "time": [0-9.eE+-]+(?=[,}])')
"""The only number that may differ between equal runs. Inside a text the quotes would be escaped."""

RELATIVE = 1e-3
"""The least tolerance, as a part of the value."""
NOISE = 3.0
"""Tolerance in units of the first run's own fluctuation."""
SHARE = 0.95
"""So many points of a curve must lie within the tolerance. Of independent runs with equal noise 95.7% do."""

Point = tuple[int, str]
"""Step and split."""


@dataclass(frozen=True)
class Curves:
    """All points of a run. `bytes` is the file without its times."""

    bytes: bytes = field(repr=False)

    @cached_property
    def points(self) -> Mapping[Point, Mapping[str, Any]]:
        """Step and split → values, in the order of their first line."""
        found: dict[Point, dict[str, Any]] = {}
        for values in _lines(self.bytes):
            step, split = foreign.integer(values.pop("step", None)), values.pop("split", "")
            values.pop("time", None)
            if step is None:
                continue
            point = step, str(split)
            if point in found:
                found[point].update(values)
            else:
                found[point] = values
        return found

    @cached_property
    def series(self) -> Mapping[tuple[str, str], Mapping[int, float]]:
        """Split and name → step → value, numbers only."""
        found: dict[tuple[str, str], dict[int, float]] = {}
        for (step, split), values in self.points.items():
            for key, value in values.items():
                number = value if type(value) is float and isfinite(value) else foreign.number(value)
                if number is not None and key != "epoch":
                    curve = found.get((split, key))
                    if curve is None:
                        curve = found[split, key] = {}
                    curve[step] = number
        return found


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
    `common`: only points of both, for runs that were told to log at different steps."""
    if first.bytes == second.bytes:
        return Compared(points=first.bytes.count(b"\n"), divergence=None)
    a, b = first.points, second.points
    if up_to is not None:
        a = {point: values for point, values in a.items() if point[0] <= up_to}
        b = {point: {key: v for key, v in b[point].items() if key in a[point]} for point in a if point in b}
    if common:
        a, b = {p: v for p, v in a.items() if p in b}, {p: v for p, v in b.items() if p in a}
    differing = [p for p, values in a.items() if values != b.get(p)] + [p for p in b if p not in a]
    found = min(differing, key=lambda point: point[0], default=None)
    return Compared(
        points=len(a.keys() & b.keys()),
        divergence=None if found is None else _differing(found, a.get(found), b.get(found)),
    )


def _differing(point: Point, a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> Divergence:
    """The first value of a point that differs."""
    before, after = a or {}, b or {}
    key = next((key for key in dict.fromkeys([*before, *after]) if before.get(key) != after.get(key)), "")
    step, split = point
    return Divergence(step=step, split=split, key=key, first=before.get(key), second=after.get(key))


# ---------------------------------------------------------------------------------------------------------- tolerance


@dataclass(frozen=True, kw_only=True)
class CurveTolerance:
    """One curve of both runs, held against a tolerance."""

    split: str
    key: str
    points: int
    within: int
    tolerance: float
    """Largest difference allowed at the point where the difference was largest."""
    largest: float
    """Largest difference that was found."""
    step: int
    """Where."""

    @property
    def holds(self) -> bool:
        """Whether enough points lie within."""
        return self.within >= SHARE * self.points


def within_tolerance(
    first: Curves, second: Curves, *, relative: float | None = None, up_to: int | None = None
) -> tuple[CurveTolerance, ...]:
    """Every curve that both runs have, held against a tolerance.

    `relative`: that part of the first run's value. None: RELATIVE, or NOISE times the curve's own fluctuation (the median
    change from one logged value to the next in the first run) where that is more: runs that differ only in rounding drift
    apart until they differ as much as any two runs of this kind do.
    """
    pairs = _pairs(first.points, second.points, up_to)
    return tuple(_held(name, *values, relative) for name, values in pairs.items())


def _pairs(
    a: Mapping[Point, Mapping[str, Any]], b: Mapping[Point, Mapping[str, Any]], up_to: int | None
) -> dict[tuple[str, str], tuple[list[int], list[float], list[float]]]:
    """Split and name → steps, and the numbers of both runs there."""
    found: dict[tuple[str, str], tuple[list[int], list[float], list[float]]] = {}
    for (step, split), before in a.items():
        after = b.get((step, split))
        if after is None or (up_to is not None and step > up_to):
            continue
        for key, x in before.items():
            y = after.get(key)
            if type(x) is not float or type(y) is not float or not isfinite(x) or not isfinite(y):
                x, y = foreign.number(x), foreign.number(y)
            if x is None or y is None or key == "epoch":
                continue
            curve = found.get((split, key))
            if curve is None:
                curve = found[split, key] = ([], [], [])
            curve[0].append(step)
            curve[1].append(x)
            curve[2].append(y)
    return found


def _held(
    name: tuple[str, str], steps: list[int], a: list[float], b: list[float], relative: float | None
) -> CurveTolerance:
    """One curve held against its tolerance."""
    noise = NOISE * fluctuation(a) if relative is None and a != b else 0.0
    part = relative or RELATIVE
    allowed = [max(part * abs(x), noise) for x in a]
    apart = [abs(x - y) for x, y in zip(a, b, strict=True)]
    over = list(map(sub, apart, allowed))
    worst = over.index(max(over))
    return CurveTolerance(
        split=name[0],
        key=name[1],
        points=len(steps),
        within=sum(difference <= 0 for difference in over),
        tolerance=allowed[worst],
        largest=apart[worst],
        step=steps[worst],
    )


def fluctuation(values: Sequence[float]) -> float:
    """The median change from one value to the next; 0 for fewer than three."""
    if len(values) < 3:
        return 0.0
    return statistics.median(abs(y - x) for x, y in pairwise(values))
