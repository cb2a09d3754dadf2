"""Find and list runs from their files alone; the host and `load_run` both need it.

    <checkpoints>/<project>/<dataset>/<session>/attempts/<n>/{manifest,outcome}.json
    <checkpoints>/<project>/.numbers/<tag>/<n>        names the n-th run of a tag: "<dataset>/<session>"

Listing reads one file a run, the outcome of its last attempt; only a run without one needs its manifest read.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.contract.errors import RunnerError
from runner.contract.layout import ATTEMPTS, LAUNCH, MANIFEST, OUTCOME, RunPaths
from runner.contract.names import slug

NO_DATASET = "no-dataset"
NUMBERS = ".numbers"
LATEST = "latest"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of a list of launches."""

    folder: Path
    launch: Path
    """The record of its last attempt."""
    name: str
    project: str
    dataset: str
    tag: str
    number: int | None
    created: str
    attempt: int
    kind: str
    state: str | None
    """From the outcome; None while there is none, then the engine must be asked."""
    score: float | None
    step: int | None
    duration_s: float | None


def list_runs(checkpoints: Path, project: str | None = None) -> list[Entry]:
    """All runs below the root, oldest first."""
    entries = [entry for folder in run_folders(checkpoints, project) if (entry := read_entry(folder)) is not None]
    return sorted(entries, key=lambda entry: (entry.created, entry.name))


def run_folders(root: Path, project: str | None = None) -> Iterator[Path]:
    """The folders <root>/<project>/<dataset>/<name>, in no order; what cannot be read is passed over."""
    projects = [root / project] if project is not None else _folders(root)
    for folder in projects:
        for dataset in _folders(folder):
            yield from _folders(dataset)


def list_outputs(outputs: Path, run: str | None = None) -> list[Entry]:
    """All evaluations below the outputs root, of one run if it is named, oldest first."""
    entries = []
    for session in run_folders(outputs):
        if run is None or session.name == run:
            entries += [
                entry for folder in _folders(session) if (entry := _entry(folder, f"{folder}/{LAUNCH}", 1)) is not None
            ]
    return sorted(entries, key=lambda entry: (entry.created, entry.name))


def read_entry(folder: Path) -> Entry | None:
    """The run in `folder`; None where there is no record that can be read."""
    # Joined as text: of ten thousand runs, making Path objects would take half of the time.
    attempts = f"{folder}/{ATTEMPTS}"
    try:
        numbers = sorted((int(name) for name in os.listdir(attempts) if name.isdecimal()), reverse=True)
    except OSError:
        return None
    entries = (_entry(folder, f"{attempts}/{number}", number) for number in numbers)
    return next((entry for entry in entries if entry is not None), None)  # the last may have died before its record


def find_run(checkpoints: Path, text: str, *, project: str | None = None, uid: int | None = None) -> RunPaths:
    """The run that RUN= means: a path, a session name, an unambiguous part of one, `latest`, or `<tag>/<n>`.

    `latest` is the newest run that belongs to `uid` (everybody's where it is None), in `project` if it is given.

    Raises:
        RunnerError: nothing matches, or several do: they are listed.
    """
    if not text or len(text) > 4096 or any(ord(c) < 32 for c in text):
        raise RunnerError(
            f"RUN={text[:40]!r}: not a run; give a session name, a part of one, a path, {LATEST} or <tag>/<n>"
        )
    found = _by_path(text) or _by_path(f"{checkpoints}/{text}") or _by_number(checkpoints, text, project)
    if found is not None:
        return RunPaths(found)
    if text == LATEST:
        return RunPaths(_latest(checkpoints, project, uid))
    folders = sorted(run_folders(checkpoints, project), key=lambda folder: folder.name)
    exact = [folder for folder in folders if folder.name == text]
    candidates = exact or [folder for folder in folders if text in folder.name]
    if len(candidates) == 1:
        return RunPaths(candidates[0])
    if not candidates:
        newest = ", ".join(folder.name for folder in folders[-3:]) or "none yet"
        raise RunnerError(f"RUN={text!r}: no run matches below {checkpoints} (newest: {newest}); `make ls` lists them")
    names = ", ".join(str(folder.relative_to(checkpoints)) for folder in candidates[:8])
    more = f" and {len(candidates) - 8} more" if len(candidates) > 8 else ""
    raise RunnerError(f"RUN={text!r}: {len(candidates)} runs match: {names}{more}; give more of the name, or a path")


def claim_number(checkpoints: Path, project: str, tag: str, where: str) -> int:
    """The next n of `<tag>/<n>`, taken for the run at `where` (dataset/session). Two launches never get the same."""
    folder = checkpoints / project / NUMBERS / slug(tag)
    number = next_number(checkpoints, project, tag)
    while True:
        try:
            with (folder / str(number)).open("x") as handle:
                handle.write(where + "\n")
            return number
        except FileExistsError:
            number += 1


def next_number(checkpoints: Path, project: str, tag: str) -> int:
    """The n that the next run of this tag would get."""
    taken: list[int] = []
    with contextlib.suppress(OSError):
        taken = [int(name) for name in os.listdir(checkpoints / project / NUMBERS / slug(tag)) if name.isdecimal()]
    return max(taken, default=0) + 1


def _by_path(text: str) -> Path | None:
    """`text` as a folder that holds a run; None where it is none."""
    path = Path(text).expanduser()
    if os.sep in text and (path / ATTEMPTS).is_dir():
        return path.resolve()
    return None


def _by_number(checkpoints: Path, text: str, project: str | None) -> Path | None:
    """The run of `<tag>/<n>`; None where `text` has not that form or no project has it."""
    tag, separator, number = text.rpartition("/")
    if not separator or not number.isdecimal() or not tag:
        return None
    roots = [checkpoints / project] if project is not None else list(_folders(checkpoints))
    found = []
    for root in roots:
        with contextlib.suppress(OSError):
            where = (root / NUMBERS / slug(tag) / str(int(number))).read_text().strip()
            if (root / where / ATTEMPTS).is_dir():
                found.append(root / where)
    if len(found) > 1:
        names = ", ".join(path.parent.parent.name for path in found)
        raise RunnerError(f"RUN={text!r}: the projects {names} each have one; add PROJECT=")
    return found[0] if found else None


def _latest(checkpoints: Path, project: str | None, uid: int | None) -> Path:
    newest: tuple[str, str] | None = None
    latest = None
    for folder in run_folders(checkpoints, project):
        if uid is not None and folder.stat().st_uid != uid:
            continue
        entry = read_entry(folder)
        if entry is not None and (newest is None or (entry.created, entry.name) > newest):
            newest, latest = (entry.created, entry.name), folder
    if latest is None:
        where = f" of project {project}" if project else ""
        raise RunnerError(f"RUN={LATEST}: no run of yours{where} below {checkpoints} yet; start one with `make train`")
    return latest


def _entry(folder: Path, launch: str, attempt: int) -> Entry | None:
    """Read the outcome in `launch`, or its manifest while there is no outcome."""
    record = _read(f"{launch}/{OUTCOME}") or _read(f"{launch}/{MANIFEST}")
    if record is None:
        return None
    return Entry(
        folder=folder,
        launch=Path(launch),
        name=folder.name,
        project=record.get("project") or "",
        dataset=record.get("dataset") or NO_DATASET,
        tag=record.get("tag") or "",
        number=record.get("number"),
        created=record.get("created") or "",
        attempt=attempt,
        kind=record.get("kind") or "",
        state=record.get("state"),
        score=record.get("score"),
        step=record.get("step"),
        duration_s=record.get("duration_s"),
    )


def _read(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb", buffering=0) as handle:
            value = json.loads(handle.read())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _folders(folder: Path) -> Iterator[Path]:
    """Sub-folders that are not hidden; none where `folder` cannot be read."""
    try:
        with os.scandir(folder) as listing:
            yield from (Path(item.path) for item in listing if not item.name.startswith(".") and item.is_dir())
    except OSError:
        return
