"""A comparison of runs as text, curves included, and as JSON."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from runner.host.pages.terminal import duration, number, table
from runner.host.pages.verdict import changes_lines, short
from runner.host.verbs.compare import Comparison, Curve
from runner.host.verdict.verdict import diverged

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 48
"""Columns of a curve."""
CELL = 34
"""Longest value in a table."""


def page(comparison: Comparison) -> str:
    """Runs, what differs, scores, curves."""
    lines = [f"{label}  {run.name}" for label, run in zip(comparison.labels, comparison.runs, strict=True)]
    lines += ["", *_inputs(comparison), "", "scores", *_scores(comparison)]
    for label, changes in zip(comparison.labels, comparison.changes, strict=True):
        files = [change for change in changes if change.files]
        if files:
            lines += ["", f"files, {comparison.labels[0]} to {label}", *changes_lines(files)]
    if comparison.curves:
        lines += ["", "curves (each on one scale for all runs)", *_curves(comparison)]
    return "\n".join(lines)


def _inputs(comparison: Comparison) -> Iterator[str]:
    """What went into the runs, only where it differs."""
    if not comparison.rows:
        yield "inputs, machine and engine: nothing differs"
        return
    yield "what differs, most likely cause first"
    rows = [
        (f"{row.group} {row.name}", *(short(value)[:CELL] for value in row.values), row.effect)
        for row in comparison.rows
    ]
    yield table(("", *comparison.labels, ""), rows)


def _scores(comparison: Comparison) -> Iterator[str]:
    """State, score and length, each evaluation, and whether the metrics are those of the first run."""
    rows = []
    for run, metrics, evaluations in zip(comparison.runs, comparison.metrics, comparison.evaluations, strict=True):
        outcome = run.outcome
        same = "-" if metrics is None else "equal" if metrics.divergence is None else diverged(metrics.divergence)
        scores = [
            f"{entry.folder.name.split('_')[0]} {number(entry.score)}"
            for entry in evaluations
            if entry.score is not None
        ]
        rows.append(
            (
                str(outcome.state) if outcome is not None else "not ended",
                number(outcome.score) if outcome is not None else "-",
                str(outcome.step) if outcome is not None and outcome.step is not None else "-",
                duration(outcome.duration_s) if outcome is not None else "-",
                ", ".join(scores[-3:]) or "-",
                same,
            )
        )
    cells = [(label, *row) for label, row in zip(comparison.labels, rows, strict=True)]
    yield table(("RUN", "STATE", "BEST", "STEP", "TIME", "EVALUATIONS", "METRICS AGAINST THE FIRST"), cells)


def _curves(comparison: Comparison) -> Iterator[str]:
    """A line a run and curve: its shape, and where it starts, ends, and reaches."""
    widest = max(len(label) for label in comparison.labels)
    for (split, key), runs in comparison.curves.items():
        values = [value for curve in runs for value in curve.values()]
        last = max(step for curve in runs for step in curve)
        yield f"{split} {key}  from {number(min(values))} to {number(max(values))}, up to step {last}"
        for label, curve in zip(comparison.labels, runs, strict=True):
            ends = f"{number(next(iter(curve.values())))} -> {number(list(curve.values())[-1])}" if curve else "none"
            yield f"  {label.ljust(widest)}  {spark(curve, min(values), max(values), last)}  {ends}"


def spark(curve: Curve, low: float, high: float, last: int, width: int = WIDTH) -> str:
    """A curve as a line of bars from step 0 to `last`. A column without a value shows the one before."""
    columns: list[list[float]] = [[] for _ in range(width)]
    for step, value in curve.items():
        columns[min(width - 1, step * width // max(last, 1))].append(value)
    end = max((number for number, values in enumerate(columns) if values), default=-1)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    bars = ""
    for values in columns[: end + 1]:
        before = bars[-1] if bars else " "
        bars += BARS[round((sum(values) / len(values) - low) * scale)] if values else before
    return bars.ljust(width)


def to_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain JSON values."""
    return {
        "schema_version": 1,
        "runs": [_run_json(comparison, index) for index in range(len(comparison.runs))],
        "differing": [asdict(row) for row in comparison.rows],
    }


def _run_json(comparison: Comparison, index: int) -> Mapping[str, Any]:
    run, metrics = comparison.runs[index], comparison.metrics[index]
    outcome = run.outcome
    return {
        "label": comparison.labels[index],
        "name": run.name,
        "state": outcome.state if outcome is not None else None,
        "score": outcome.score if outcome is not None else None,
        "step": outcome.step if outcome is not None else None,
        "evaluations": [{"name": entry.folder.name, "score": entry.score} for entry in comparison.evaluations[index]],
        "metrics_equal_first": None if metrics is None else metrics.divergence is None,
        "divergence": None if metrics is None or metrics.divergence is None else asdict(metrics.divergence),
        "changes": [asdict(change) for change in comparison.changes[index]],
    }
