"""Whether a run folder still is what was recorded: manifests, configs, source, locks and checkpoints, by their hashes."""

from collections.abc import Iterator
from pathlib import Path

from runner.contract import checkpoints
from runner.contract.errors import RunnerError
from runner.contract.jsonio import file_sha256
from runner.contract.layout import RunPaths
from runner.contract.records import ImageRecord, Manifest, Outcome, load_record
from runner.host.images import recipes
from runner.host.source.archive import verify
from runner.host.source.code import ARCHIVE
from runner.host.source.tree import blob_id, tree_ids

PROJECT_YML = "project.yml"


def check_record(run: RunPaths) -> None:
    """Refuse a run folder that was changed or damaged.

    Raises:
        RunnerError: names everything that does not fit.
    """
    problem = problem_of(run)
    if problem is not None:
        raise RunnerError(problem)


def problem_of(run: RunPaths) -> str | None:
    """Everything in a run folder that does not fit its record, in one line; None where all does."""
    problems = [*input_problems(run), *_missing(run), *_checkpoint_problems(run)]
    if not problems:
        return None
    more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
    return f"{run.folder.name}: its record does not hold: {'; '.join(problems[:5])}{more}"


def input_problems(run: RunPaths) -> Iterator[str]:
    """What is there of all that went into the run, and is not what was recorded: one line a problem."""
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
            yield from _locks(run, manifest.image)


def _source(run: RunPaths, manifest: Manifest) -> Iterator[str]:
    if manifest.source is None:
        return
    path = run.inputs / ARCHIVE
    try:
        with path.open("rb") as handle:
            entries = list(verify(handle, path))
    except FileNotFoundError:
        return
    except RunnerError as error:
        yield str(error)
        return
    tree = tree_ids(entries)[b""]
    if tree != manifest.source.tree:
        yield f"inputs/{ARCHIVE} holds tree {tree[:12]}, not {manifest.source.tree[:12]}"
        return
    own = f"projects/{manifest.project}/{PROJECT_YML}".encode()
    kept = run.inputs / PROJECT_YML
    for entry in entries:
        if entry.path == own and kept.is_file() and blob_id(kept.read_bytes()) != entry.oid:
            yield f"inputs/{PROJECT_YML} is not the one in inputs/{ARCHIVE}"


def _locks(run: RunPaths, image: ImageRecord) -> Iterator[str]:
    """The locks and Dockerfiles in inputs/, held against what the image was made from."""
    if not (run.inputs / recipes.ENVIRONMENT).is_file():
        return
    try:
        recipe = recipes.recipe_from_inputs(run.inputs)
        locks, dockerfiles = recipe.lock_sha256, recipe.dockerfile_sha256
    except (RunnerError, KeyError) as error:
        yield f"inputs/{recipes.ENVIRONMENT}: {error}"
        return
    pairs = (("locks", locks, image.lock_sha256), ("Dockerfiles", dockerfiles, image.dockerfile_sha256))
    for what, found, written in pairs:
        if written is not None and found != written:
            yield f"the {what} in inputs/ are not those that its image was made from"


def _missing(run: RunPaths) -> Iterator[str]:
    first = run.attempt(1).manifest
    if first.is_file() and load_record(Manifest, first).source is not None and not (run.inputs / ARCHIVE).exists():
        yield f"inputs/{ARCHIVE} is not there"


def _checkpoint_problems(run: RunPaths) -> Iterator[str]:
    for path in sorted(run.checkpoints.glob("*")):
        if path.is_file() and path.suffix not in ("", ".json") and is_damaged(path):
            yield f"checkpoints/{path.name} is damaged"


def is_damaged(checkpoint: Path) -> bool:
    """Whether a checkpoint's bytes are not those that its sidecar names; False where it names none."""
    written = checkpoints.facts(checkpoint).get("sha256")
    return written is not None and file_sha256(checkpoint) != written
