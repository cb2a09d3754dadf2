"""A verdict, and what changed, as text for a terminal."""

from collections.abc import Iterator, Sequence
from typing import Any

from runner.host.pages.terminal import table
from runner.host.verdict.changes import Change
from runner.host.verdict.verdict import Verdict

NAMES = 8
DIFF_LINES = 40
WORDS = {True: "yes", False: "no", None: "-"}


def verdict_page(verdict: Verdict) -> str:
    """The levels, what was asked and whether it holds, and what changed if anything did."""
    rows = [(item.level, WORDS[item.holds], item.text) for item in verdict.levels]
    lines = [
        f"first   {verdict.first}",
        f"second  {verdict.second}",
        "",
        table(("LEVEL", "HOLDS", ""), rows),
        "",
        f"asked: {verdict.asked.level} ({verdict.asked.because})",
        f"{'HOLDS' if verdict.holds else 'DOES NOT HOLD'}: {verdict.conclusion}",
    ]
    lines += [f"note: {doubt}" for doubt in verdict.doubts]
    if verdict.changes:
        lines += ["", "what changed, most likely cause first", *changes_lines(verdict.changes)]
    return "\n".join(lines)


def changes_lines(changes: Sequence[Change]) -> Iterator[str]:
    """One line a change, its files and the start of its diff below it."""
    for change in changes:
        values = "" if change.first is None and change.second is None else f"  {_pair(change)}"
        yield f"  {change.group} {change.name}{values}  ({change.effect})"
        if change.group == "data" or not change.diff:
            yield from (f"    {name}" for name in change.files[:NAMES])
            if len(change.files) > NAMES:
                yield f"    and {len(change.files) - NAMES} more"
        text = change.diff.splitlines()
        yield from (f"    {line}" for line in text[:DIFF_LINES])
        if len(text) > DIFF_LINES:
            yield f"    and {len(text) - DIFF_LINES} more lines; --json has them all"


def _pair(change: Change) -> str:
    return f"{short(change.first)} -> {short(change.second)}"


def short(value: Any) -> str:
    """A value in a cell: the start of a hash, nothing for what is not there."""
    if value is None:
        return "none"
    text = str(value).removeprefix("sha256:")
    long_hash = len(text) >= 40 and all(letter in "0123456789abcdef" for letter in text)
    return text[:12] if long_hash else text
