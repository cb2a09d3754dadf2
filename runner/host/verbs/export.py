"""`export`: a run as one file that another machine can evaluate, resume and reproduce."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from runner.contract.catalogue import NO_DATASET
from runner.contract.errors import RunnerError
from runner.contract.jsonio import atomic_path
from runner.contract.layout import LOCK, RunPaths
from runner.contract.records import Manifest, load_record
from runner.host.engines.docker_engine import DockerEngine
from runner.host.engines.engine import Engine
from runner.host.house import House
from runner.host.images import recipes, wheels
from runner.host.launch.gather import Say
from runner.host.launch.states import require_ended
from runner.host.source.exports import disk_errors
from runner.host.verbs import runs
from runner.host.verbs.run_archive import IMAGE, RUN, WHEELS, Page, item_of, write_archive
from runner.host.verbs.run_models import model_files
from runner.host.verdict.record_check import check_record

WITH = ("image", "wheels", "none")


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What `make export` was asked for."""

    run: str
    file: Path
    project: str | None = None
    what: str | None = None
    """WITH=; by default the image of a run in a container, the wheels of a local one."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written."""

    file: Path
    size: int
    files: int
    what: str


def export_run(house: House, engine_of: Callable[[], Engine], request: ExportRequest, say: Say) -> Exported:
    """Write the archive: complete, or not there. `engine_of` gives the run's engine, which only its image needs.

    Raises:
        RunnerError: the run goes on or is damaged, the file is there already, or the image or a wheel cannot be had.
    """
    run = runs.find(house, request.run, request.project)
    require_ended(run.folder, runs.last_launch(run), runs.asker(house), "export")
    if request.file.exists():
        raise RunnerError(f"FILE={str(request.file)!r}: is there already; name another file or remove it")
    if not request.file.parent.is_dir():
        raise RunnerError(f"FILE={str(request.file)!r}: its folder is not there; make it first")
    check_record(run)
    manifest = load_record(Manifest, run.attempt(1).manifest)
    what = request.what or ("image" if manifest.engine.kind == "docker" else "wheels")
    if what not in WITH:
        raise RunnerError(f"WITH={what!r}: expected one of {', '.join(WITH)}")
    with tempfile.TemporaryDirectory(prefix=".export-", dir=request.file.parent) as folder, disk_errors("export"):
        sources = run_files(run) | _models(house, manifest, what, say)
        image_id = None
        if what == "image":
            image_id = manifest.image.id
            sources[IMAGE] = _saved_image(engine_of, manifest, run, Path(folder) / "image.tar", say)
        elif what == "wheels":
            sources |= _wheels(house, run, Path(folder) / "log", say)
        page = Page(
            run=run.folder.name,
            project=manifest.project or "",
            dataset=manifest.dataset or NO_DATASET,
            items={name: item_of(path) for name, path in sources.items()},
            empty_folders=empty_folders(run),
            image_id=image_id,
            image_tag=None if image_id is None else manifest.image.tag,
        )
        with atomic_path(request.file) as temporary:
            write_archive(temporary, page, sources)
    return Exported(file=request.file, size=request.file.stat().st_size, files=len(sources), what=what)


def _models(house: House, manifest: Manifest, what: str, say: Say) -> dict[str, Path]:
    """The released models that the run began with. WITH=none goes on without one that is gone."""
    try:
        return model_files(house.models, manifest.models)
    except RunnerError as error:
        if what != "none":
            raise RunnerError(f"{manifest.run}: began with {error}; or export without it: WITH=none") from None
        say(f"note: without the model that it began with: {error}")
        return {}


def run_files(run: RunPaths) -> dict[str, Path]:
    """The files of a run folder by their names in the archive, sorted. What is no plain file is refused by name.

    Raises:
        RunnerError: project code left a link or a socket there.
    """
    found = sorted(path for path in run.folder.rglob("*") if not _is_passing(path.name))
    odd = [path for path in found if path.is_symlink() or not (path.is_file() or path.is_dir())]
    if odd:
        raise RunnerError(f"{odd[0]}: is no plain file, and an export holds only those; remove it")
    return {RUN + path.relative_to(run.folder).as_posix(): path for path in found if path.is_file()}


def _is_passing(name: str) -> bool:
    """Whether a file of this name is only there while something is written."""
    return name == LOCK or (name.startswith(".") and name.endswith(".tmp"))


def empty_folders(run: RunPaths) -> tuple[str, ...]:
    """The folders of a run without anything in them."""
    folders = (path for path in run.folder.rglob("*") if path.is_dir() and not any(path.iterdir()))
    return tuple(sorted(path.relative_to(run.folder).as_posix() for path in folders))


def _saved_image(engine_of: Callable[[], Engine], manifest: Manifest, run: RunPaths, target: Path, say: Say) -> Path:
    name = run.folder.name
    engine = engine_of() if manifest.engine.kind == "docker" else None
    if not isinstance(engine, DockerEngine):
        raise RunnerError(
            f"WITH=image: {name} ran on the {manifest.engine.kind} engine, without an image; use WITH=wheels"
        )
    if engine.image(manifest.image.id) is None:
        raise RunnerError(
            f"{name}: its image {manifest.image.id[:19]} is no longer here; `make image RUN={name}` builds it again, "
            "or use WITH=wheels"
        )
    say(f"saving image {manifest.image.id[:19]}")
    with target.open("wb") as out:
        for piece in engine.save_image(manifest.image.id):
            out.write(piece)
    return target


def _wheels(house: House, run: RunPaths, log_path: Path, say: Say) -> dict[str, Path]:
    """Every wheel that its environment is made from, the installer included."""
    recipe = recipes.recipe_from_inputs(run.inputs)
    log: IO[Any]
    with log_path.open("w") as log:
        folders = [
            wheels.wheelhouse(pins, recipe.platform, house.cache, say, log)
            for pins in (recipe.all_pins, recipe.installer_pins)
        ]
    found = {path.name: path for folder in folders for path in folder.glob("*.whl")}
    return {WHEELS + name: found[name] for name in sorted(found)}
