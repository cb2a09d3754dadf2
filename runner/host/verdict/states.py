"""The checkpoints of two runs, compared step by step. No torch: the hash of what they hold stands in their sidecars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.contract import checkpoints
from runner.contract.jsonio import file_sha256
from runner.contract.layout import RunPaths
from runner.host.verdict.record_check import is_damaged

SHOWN = 6
"""So many steps are listed, the last ones."""


@dataclass(frozen=True, kw_only=True)
class States:
    """The checkpoints of two runs, by their steps."""

    same: tuple[int, ...] = ()
    other: tuple[int, ...] = ()
    """Both have one, and they differ."""
    first: tuple[int, ...] = ()
    """Only the first run has one: which are kept may be set otherwise, but for the last."""
    second: tuple[int, ...] = ()
    by: str = "state_sha256"
    """What was compared."""
    damaged: tuple[str, ...] = ()
    """Files that are not what their sidecars say; nothing is known of the state in them."""

    @property
    def last_is_lone(self) -> bool:
        """Whether the last of all checkpoints is one that only one run has."""
        alone = (*self.first, *self.second)
        return bool(alone) and max(alone) > max((*self.same, *self.other), default=-1)


def compare_states(first: RunPaths, second: RunPaths) -> States:
    """Compare the checkpoints that both runs have at a step: by the hash of their contents where both know it, else by the
    bytes of the files (some frameworks write a name or a time into them, so that equal states may differ there)."""
    a, b = _states(first), _states(second)
    same: list[int] = []
    other: list[int] = []
    damaged: list[str] = []
    by = "state_sha256"
    for step in sorted(a.keys() & b.keys()):
        damaged += [f"{path.parents[1].name}/{path.name}" for path, _ in (a[step], b[step]) if is_damaged(path)]
        hashes = [facts.get("state_sha256") for _, facts in (a[step], b[step])]
        if None in hashes:
            by, hashes = "the files' sha256", [facts.get("sha256") or file_sha256(p) for p, facts in (a[step], b[step])]
        (same if hashes[0] == hashes[1] else other).append(step)
    return States(
        same=tuple(same),
        other=tuple(other),
        first=tuple(sorted(a.keys() - b.keys())),
        second=tuple(sorted(b.keys() - a.keys())),
        by=by,
        damaged=tuple(damaged),
    )


def _states(run: RunPaths) -> dict[int, tuple[Path, Mapping[str, Any]]]:
    """Step → checkpoint and sidecar."""
    found = {}
    for sidecar in sorted(run.checkpoints.glob("*.json")):
        facts = checkpoints.facts(sidecar)
        step = facts.get("step")
        files = [path for path in sidecar.parent.glob(f"{sidecar.stem}.*") if path.suffix not in (".json", ".tmp")]
        if isinstance(step, int) and files:
            found[step] = (files[0], facts)
    return found


def steps_text(steps: Sequence[int]) -> str:
    """`step 10`, or `steps 10, 20`."""
    return f"step{'s' if len(steps) > 1 else ''} {', '.join(map(str, steps[-SHOWN:]))}"
