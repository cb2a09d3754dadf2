"""Whether a run folder still is what was recorded: manifests, configs, source and checkpoints, by their hashes."""

from collections.abc import Iterator

from runner.contract import checkpoints
from runner.contract.errors import RunnerError
from runner.contract.jsonio import file_sha256
from runner.contract.layout import RunPaths
from runner.contract.records import Manifest, Outcome, load_record
from runner.host.source.archive import verify
from runner.host.source.code import ARCHIVE
from runner.host.source.tree import tree_ids


def check_record(run: RunPaths) -> None:
    """Refuse a run folder that was changed or damaged.

    Raises:
        RunnerError: names everything that does not fit.
    """
    problems = list(_problems(run))
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise RunnerError(f"{run.folder.name}: its record does not hold: {'; '.join(problems[:5])}{more}")


def _problems(run: RunPaths) -> Iterator[str]:
    numbers = sorted(int(path.name) for path in run.attempts.glob("*") if path.name.isdecimal())
    if not numbers or numbers[0] != 1:
        yield "it has no attempts/1"
        return
    for number in numbers:
        launch = run.attempt(number)
        if not launch.manifest.is_file():
            yield f"attempts/{number} has no manifest.json"
            continue
        manifest = load_record(Manifest, launch.manifest)
        for name, sha256 in manifest.files.items():
            path = run.folder / name
            if not path.is_file() or file_sha256(path) != sha256:
                yield f"{name} is not what was written"
        if launch.outcome.is_file():
            outcome = load_record(Outcome, launch.outcome)
            if outcome.manifest_sha256 != file_sha256(launch.manifest):
                yield f"attempts/{number}/manifest.json is not the one that was launched"
        if number == 1:
            yield from _source(run, manifest)
    for path in sorted(run.checkpoints.glob("*")):
        written = checkpoints.facts(path).get("sha256") if path.is_file() and path.suffix not in ("", ".json") else None
        if written is not None and file_sha256(path) != written:
            yield f"checkpoints/{path.name} is damaged"


def _source(run: RunPaths, manifest: Manifest) -> Iterator[str]:
    if manifest.source is None:
        return
    path = run.inputs / ARCHIVE
    try:
        with path.open("rb") as handle:
            tree = tree_ids(verify(handle, path))[b""]
    except FileNotFoundError:
        yield f"inputs/{ARCHIVE} is not there"
    except RunnerError as error:
        yield str(error)
    else:
        if tree != manifest.source.tree:
            yield f"inputs/{ARCHIVE} holds tree {tree[:12]}, not {manifest.source.tree[:12]}"
