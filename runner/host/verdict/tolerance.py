"""Whether two runs that are not bit-identical still are the same: curve by curve, held against a tolerance.

A point that only one run has, or that is finite in one alone, lies outside: a run that broke is not nearly the same. Where a
run has no point at all of a curve, that curve does not hold. NaN in both at one step is equal.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from operator import sub

from runner.host.pages.curves import Curves

RELATIVE = 1e-3
"""The least tolerance, as a part of the value."""
NOISE = 3.0
"""Tolerance in units of the first run's own fluctuation."""
SHARE = 0.95
"""So many points of a curve must lie within the tolerance. Of independent runs with equal noise 95.7% do."""
NOISE_AT_END = 6.0
"""The same for the last point, which must hold by itself: of independent runs with equal noise 1 in 20,000 does not."""


Values = Sequence[float | None]
"""Of one curve, step by step; None where a run has none."""


@dataclass(frozen=True, kw_only=True)
class CurveTolerance:
    """One curve of both runs, held against a tolerance."""

    split: str
    key: str
    holds: bool
    """Whether enough points lie within, and the last one does."""
    tolerance: float
    """Largest difference allowed at the point that says most: the worst, or the last where that alone does not hold."""
    apart: float
    """The difference there; infinite where only one run has a finite value."""
    step: int
    """Where."""
    first: float | None
    second: float | None
    """The values there; None where a run has none."""


def within_tolerance(
    first: Curves, second: Curves, *, relative: float | None = None, up_to: int | None = None, common: bool = False
) -> tuple[CurveTolerance, ...]:
    """Every curve that either run has, held against a tolerance. `up_to` and `common` as in `compare_curves`.

    `relative`: that part of the first run's value. None: RELATIVE, or NOISE times the curve's own fluctuation (the median
    change from one logged value to the next in the first run) where that is more: runs that differ only in rounding drift
    apart until they differ as much as any two runs of this kind do.
    """
    a, b = first.numbers, second.numbers
    held = []
    for name in dict.fromkeys([*a, *b]):
        before, after = a.get(name, {}), b.get(name, {})
        if common and before and after:
            before, after = _only(before, after), _only(after, before)
        if up_to is not None:
            before = {step: value for step, value in before.items() if step <= up_to}
            after = _only(after, before)
        if before or after:
            held.append(_held(name, before, after, relative))
    return tuple(held)


def _only(curve: Mapping[int, float], steps: Mapping[int, float]) -> dict[int, float]:
    return {step: value for step, value in curve.items() if step in steps}


def _held(
    name: tuple[str, str], a: Mapping[int, float], b: Mapping[int, float], relative: float | None
) -> CurveTolerance:
    """One curve held against its tolerance."""
    steps, values, others = _aligned(a, b)
    apart = _apart(values, others)
    noise = fluctuation([*a.values()]) if relative is None and any(apart) else 0.0
    part = relative or RELATIVE
    allowed = _allowed(part, values, NOISE * noise)
    allowed[-1:] = _allowed(part, values[-1:], NOISE_AT_END * noise)
    over = list(map(sub, apart, allowed))
    enough, ends_well = sum(excess <= 0 for excess in over) >= SHARE * len(over), over[-1] <= 0
    worst = -1 if enough and not ends_well else over.index(max(over))
    return CurveTolerance(
        split=name[0],
        key=name[1],
        holds=enough and ends_well,
        tolerance=allowed[worst],
        apart=apart[worst],
        step=steps[worst],
        first=values[worst],
        second=others[worst],
    )


def _aligned(a: Mapping[int, float], b: Mapping[int, float]) -> tuple[list[int], Values, Values]:
    """The steps of both, and the values of each there."""
    steps = list(a)
    if steps == list(b):
        return steps, list(a.values()), list(b.values())
    steps = sorted({*a, *b})
    return steps, [a.get(step) for step in steps], [b.get(step) for step in steps]


def _apart(a: Values, b: Values) -> list[float]:
    """The differences, step by step."""
    if None not in a and None not in b:
        found = list(map(abs, map(sub, a, b)))
        if isfinite(sum(found)):
            return found
    return [_difference(x, y) for x, y in zip(a, b, strict=True)]


def _difference(x: float | None, y: float | None) -> float:
    """How far two values are apart: infinitely where only one of them is there, or a number, or finite."""
    if x is None or y is None:
        return inf
    if x == y or (x != x and y != y):
        return 0.0
    difference = abs(x - y)
    return difference if difference < inf else inf  # NaN becomes infinite, too


def _allowed(part: float, values: Values, noise: float) -> list[float]:
    """What each difference may be; without a finite value of the first run, its noise."""
    return [width if noise < (width := part * abs(value or 0.0)) < inf else noise for value in values]


def fluctuation(values: Sequence[float]) -> float:
    """The median change from one finite value to the next; 0 for fewer than three."""
    finite = values if isfinite(sum(values)) else [value for value in values if isfinite(value)]
    if len(finite) < 3:
        return 0.0
    changes: list[float] = list(map(abs, map(sub, finite[1:], finite)))
    return statistics.median(changes)
