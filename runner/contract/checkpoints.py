"""The names in a run's checkpoints/ folder, for readers that have no torch.

step_00001000.pt      the state, written beside and renamed
step_00001000.json    its sidecar, written after it: size, sha256, state_sha256, step, score
latest, best          text files that hold the name of one .pt
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.contract import foreign
from runner.contract.errors import RunnerError
from runner.contract.jsonio import file_sha256

BEST = "best"
LATEST = "latest"


def sidecar(checkpoint: Path) -> Path:
    """The sidecar of a checkpoint file."""
    return checkpoint.with_suffix(".json")


def pointed(folder: Path, pointer: str) -> Path | None:
    """The checkpoint that `latest` or `best` names; None where there is no such pointer or what it names is gone."""
    name = foreign.line_in(folder / pointer)
    if name is None or Path(name).name != name or len(os.fsencode(name)) > 255:
        return None
    path = folder / name
    return path if path.is_file() else None


def facts(checkpoint: Path) -> Mapping[str, Any]:
    """step, score, hashes and size as the sidecar says; None for what it does not say."""
    said = foreign.object_in(sidecar(checkpoint))
    return {
        "step": foreign.integer(said.get("step")),
        "score": foreign.number(said.get("score")),
        "sha256": foreign.text(said.get("sha256")),
        "state_sha256": foreign.text(said.get("state_sha256")),
        "size": foreign.integer(said.get("size")),
    }


def find_checkpoint(folder: Path, asked: str) -> Path | None:
    """The checkpoint that CHECKPOINT= means: best, latest or a step. None where the run has no checkpoint at all.

    `best` falls back to `latest` in a run that has had no validation yet.

    Raises:
        RunnerError: no checkpoint of that step (the steps there are, are listed), or not one of the forms.
    """
    names = sorted(
        path.name for path in folder.glob("*") if path.is_file() and path.suffix not in ("", ".json", ".tmp")
    )
    if not names:
        return None
    if asked in (BEST, LATEST):
        found = pointed(folder, asked) or (pointed(folder, LATEST) if asked == BEST else None)
        if found is not None:
            return found
    elif asked.isdecimal():
        found = next((folder / name for name in names if _step(name) == int(asked)), None)
        if found is not None:
            return found
    raise RunnerError(
        f"CHECKPOINT={asked!r}: not in {folder} (have: {', '.join(names)}); use best, latest or one of the steps"
    )


def verify(checkpoint: Path) -> str:
    """The sha256 of a checkpoint file, checked against its sidecar where there is one.

    Raises:
        RunnerError: the bytes are not those that were written.
    """
    found, written = file_sha256(checkpoint), facts(checkpoint).get("sha256")
    if written is not None and written != found:
        raise RunnerError(
            f"{checkpoint}: damaged (sha256 {found[:12]}…, written as {written[:12]}…); choose another with CHECKPOINT=<step>"
        )
    return found


def _step(name: str) -> int | None:
    digits = name.split(".")[0].rpartition("_")[2]
    return int(digits) if digits.isdecimal() else None
