"""`compare`: any runs side by side: what differs in what went into them, their scores, their curves."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runner.contract.catalogue import Entry, list_outputs
from runner.contract.errors import RunnerError
from runner.contract.jsonio import pretty_json, write_atomic
from runner.contract.layout import RunPaths
from runner.host.house import House, shared_folder
from runner.host.pages.curves import Compared, Curves, compare_curves, read_curves
from runner.host.verdict.changes import GROUPS, Change, Effect, what_changed
from runner.host.verdict.run_facts import RunFacts, facts_of, logged_otherwise

FOLDER = "comparisons"
"""Stands where a project's name stands in the outputs root."""

Curve = Mapping[int, float]
"""Step → value."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One input that is not the same in all runs."""

    group: str
    name: str
    values: tuple[Any, ...]
    """One a run; None where it has none."""
    effect: Effect
    """The strongest that it may have, against the first run."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs, laid side by side. Every tuple has one item a run, in the order in which they were named."""

    runs: tuple[RunFacts, ...]
    labels: tuple[str, ...]
    """<tag>/<n>; session names where these are not unique."""
    rows: tuple[Row, ...]
    """Most likely cause first."""
    changes: tuple[tuple[Change, ...], ...]
    """What changed since the first run; () for itself."""
    metrics: tuple[Compared | None, ...]
    """Logged values against the first run's; None for itself."""
    evaluations: tuple[tuple[Entry, ...], ...]
    curves: Mapping[tuple[str, str], tuple[Curve, ...]]
    """(split, key) → a curve a run, {} where it has none."""


def compare_runs(house: House, runs: Sequence[RunPaths]) -> Comparison:
    """Lay runs side by side. Only read; the cache takes source archives.

    Raises:
        RunnerError: fewer than two runs, one twice, or a damaged record.
    """
    folders = [run.folder.resolve() for run in runs]
    if len(folders) < 2 or len(set(folders)) < len(folders):
        raise RunnerError(
            f"RUNS=: found {', '.join(run.folder.name for run in runs) or 'none'}; name two or more different runs, "
            'such as RUNS="baseline/1 wide/1"'
        )
    facts = [facts_of(run) for run in runs]
    curves = [read_curves(run.metrics) for run in runs]
    changes = ((), *(what_changed(facts[0], other, house.cache) for other in facts[1:]))
    return Comparison(
        runs=tuple(facts),
        labels=labels_of(facts),
        rows=tuple(sorted(side_by_side(changes), key=_likelihood)),
        changes=changes,
        metrics=(None, *(_compared(facts, curves, number) for number in range(1, len(facts)))),
        evaluations=tuple(tuple(list_outputs(house.outputs, item.name)) for item in facts),
        curves=_together([item.series for item in curves]),
    )


def _compared(runs: Sequence[RunFacts], curves: Sequence[Curves], number: int) -> Compared:
    """The logged values of a run against those of the first."""
    return compare_curves(curves[0], curves[number], common=logged_otherwise(runs[0], runs[number]))


def labels_of(runs: Sequence[RunFacts]) -> tuple[str, ...]:
    """A short name for each run."""
    short = [f"{run.first.tag}/{run.first.number}" for run in runs]
    return tuple(short if len(set(short)) == len(short) else [run.name for run in runs])


def side_by_side(changes: Sequence[Sequence[Change]]) -> Iterator[Row]:
    """What changed since the first run, turned round: a row for each entry, with a value for each run."""
    found: dict[tuple[str, str], list[Change]] = {}
    for change in (change for run in changes for change in run):
        if (change.first, change.second) != (None, None):  # else it is a list of files only
            found.setdefault((change.group, _entry(change)), []).append(change)
    for (group, name), those in found.items():
        values = tuple(_value(run, group, name, those[0].first) for run in changes)
        effect = min((change.effect for change in those), key=list(Effect).index)
        yield Row(group=group, name=name, values=values, effect=effect)


def _entry(change: Change) -> str:
    """The name of a row. The files of a source are listed by themselves; here it is one entry."""
    return "tree" if change.group == "source" else change.name


def _value(changes: Sequence[Change], group: str, name: str, first: Any) -> Any:
    """The value that a run has: what changed to, nothing where a section above it is gone, else that of the first run."""
    for change in changes:
        if change.group == group and _entry(change) == name:
            return change.second
        if change.group == group and name.startswith(f"{change.name}."):
            return None
    return first


def _likelihood(row: Row) -> tuple[int, int]:
    return list(Effect).index(row.effect), GROUPS.index(row.group)


def _together(runs: Sequence[Mapping[tuple[str, str], Curve]]) -> dict[tuple[str, str], tuple[Curve, ...]]:
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: tuple(run.get(name, {}) for run in runs) for name in names}


def keep_comparison(house: House, comparison: Comparison, facts: Mapping[str, Any]) -> Path:
    """Write compare.json and curves.png into a folder of their own under the outputs root; the folder.

    Raises:
        RunnerError: the outputs root cannot be written to.
    """
    from runner.host.launch.gather import first_free
    from runner.host.pages.picture import curves_png

    parent = shared_folder(house.outputs, house.outputs / FOLDER)
    folder = first_free(parent, f"compare_{datetime.now(UTC):%Y_%m_%d_%H_%M_%S}", "OUTPUTS_ROOT")
    try:
        write_atomic(folder / "compare.json", pretty_json(facts))
        if comparison.curves:
            write_atomic(folder / "curves.png", curves_png(comparison.labels, comparison.curves))
    except OSError as error:
        raise RunnerError(f"{folder}: cannot be written: {os.strerror(error.errno or 0)}; mend OUTPUTS_ROOT") from None
    return folder
