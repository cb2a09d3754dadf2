"""What became of data since a run saw it: by fingerprint, then by the list of files that the run keeps."""

from pathlib import Path

from runner.contract.catalogue import run_folders
from runner.contract.errors import RunnerError
from runner.contract.layout import RunPaths
from runner.contract.records import DataRecord, Manifest, load_record
from runner.host.data.seen import SeenData

NAMES = 5
"""How many files are named."""
LOOKED_AT = 20
"""How many of a project's newest runs are looked at for one that saw the same data set."""


def changes_since_last_run(checkpoints: Path, project: str, now: SeenData) -> list[str]:
    """One line for each data set that is not what the last run of `project` that saw it was given."""
    notes = []
    for record in now.records:
        found = _last_run_with(checkpoints, project, record)
        if found is None:
            continue
        run, before = found
        common = set(before.parts) & set(record.parts)  # a part that was made since, lmdb for instance, changes nothing
        if any(before.parts[part] != record.parts[part] for part in common):
            files = differing_files(run, now)
            notes.append(
                f"note: {record.name} ({record.variant}) has changed since the last run of {project} on it, "
                f"{run.folder.name}" + (f": {files}" if files else "")
            )
    return notes


def _last_run_with(checkpoints: Path, project: str, record: DataRecord) -> tuple[RunPaths, DataRecord] | None:
    """The newest run of the project that saw this variant of this data set, and what it saw."""
    folders = sorted(run_folders(checkpoints, project), key=lambda folder: folder.stat().st_mtime_ns, reverse=True)
    seen = []
    for folder in folders[:LOOKED_AT]:
        run = RunPaths(folder)
        try:
            manifest = load_record(Manifest, run.attempt(1).manifest)
        except RunnerError:  # being prepared, or damaged: `ls` tells of it
            continue
        seen += [
            (manifest.created, run, one)
            for one in manifest.data
            if (one.name, one.variant) == (record.name, record.variant)
        ]
    newest = max(seen, key=lambda entry: entry[0], default=None)
    return None if newest is None else newest[1:]


def differing_files(run: RunPaths, here: SeenData) -> str:
    """The files that are not what they were, from the list that the run keeps; "" where it keeps none or none differs."""
    from runner.contract.listing import compare, read_listing

    changed = []
    for name, listing in here.inputs.items():
        before = run.inputs / name
        if before.is_file():
            part = name.removesuffix(".tsv.gz").rpartition(".")[2]
            found = compare(read_listing(before), read_listing(listing))
            for kind in ("added", "removed", "changed"):
                changed += [f"{part}/{path} {kind}" for path in getattr(found, kind)]
    more = f" and {len(changed) - NAMES} more" if len(changed) > NAMES else ""
    return ", ".join(changed[:NAMES]) + more
