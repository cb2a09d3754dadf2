"""`import`: take a run back from the file that `export` made. Everything is verified before anything is written."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runner.contract.catalogue import NUMBERS
from runner.contract.errors import RunnerError
from runner.contract.jsonio import file_sha256, sync_folder
from runner.contract.layout import RunPaths
from runner.contract.names import slug
from runner.contract.records import Manifest, load_record
from runner.host.engines.docker_engine import DockerEngine
from runner.host.engines.engine import Engine
from runner.host.house import House, shared_folder
from runner.host.images import recipes, wheels
from runner.host.launch.gather import Say
from runner.host.source.exports import disk_errors
from runner.host.verbs.export import run_files
from runner.host.verbs.run_archive import IMAGE, RUN, WHEELS, Archive, beside, open_archive
from runner.host.verbs.run_models import check_models, import_models
from runner.host.verdict.record_check import check_record


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What came of it."""

    folder: Path
    was_there: bool
    """The same run was here already."""


def import_run(house: House, engine_of: Callable[[], Engine], file: Path, say: Say) -> Imported:
    """Bring the run of `file` into the checkpoints root, the models that it began with into the models root, its wheels
    into the cache, its image into the engine that `engine_of` gives.

    Raises:
        RunnerError: the file is damaged or not an export, another run or model of this name is here, or the disk is
            full: nothing of the run is left behind.
    """
    with open_archive(file) as archive, disk_errors("import"):
        archive.verify()
        page = archive.page
        parent = house.checkpoints / page.project / page.dataset
        folder = parent / page.run
        if folder.exists():
            _check_same(archive, folder)
            _import_what_it_needs(house, engine_of, archive, RunPaths(folder), say)
            return Imported(folder=folder, was_there=True)
        shared_folder(house.checkpoints, parent)
        with beside(parent, page.run) as temporary:
            _write(archive, temporary)
            run = RunPaths(temporary)
            check_record(run)
            manifest = load_record(Manifest, run.attempt(1).manifest)
            if (manifest.run, manifest.project or "") != (page.run, page.project):
                raise RunnerError(
                    f"{file}: its page names {page.run}, its record {manifest.run}: it was put together by hand"
                )
            _import_what_it_needs(house, engine_of, archive, run, say)
            temporary.rename(folder)
            sync_folder(parent)
    _claim_number(house, manifest, page.dataset, say)
    return Imported(folder=folder, was_there=False)


def _write(archive: Archive, folder: Path) -> None:
    """The run's files below a new, empty folder."""
    for name in archive.page.empty_folders:
        (folder / name).mkdir(parents=True)
    for name in archive.page.items:
        if name.startswith(RUN):
            archive.extract(name, folder / name.removeprefix(RUN))


def _check_same(archive: Archive, folder: Path) -> None:
    """Refuse a run of the same name with other files.

    Raises:
        RunnerError: the first file that differs is named.
    """
    ours = run_files(RunPaths(folder))
    theirs = {name: item for name, item in archive.page.items.items() if name.startswith(RUN)}
    for name in sorted({*ours, *theirs}):
        if name not in ours or name not in theirs or file_sha256(ours[name]) != theirs[name].sha256:
            raise RunnerError(
                f"{folder}: another run of this name is here ({name.removeprefix(RUN)} differs); `make rm RUN={folder.name}` "
                "deletes it, or import into another CHECKPOINTS_ROOT"
            )


def _import_what_it_needs(
    house: House, engine_of: Callable[[], Engine], archive: Archive, run: RunPaths, say: Say
) -> None:
    """Models, then the environment; of a model that clashes nothing was written yet."""
    models = load_record(Manifest, run.attempt(1).manifest).models
    check_models(house, archive, models)
    _import_environment(house, engine_of, archive, run, say)
    import_models(house, archive, models, say)


def _import_environment(
    house: House, engine_of: Callable[[], Engine], archive: Archive, run: RunPaths, say: Say
) -> None:
    """The wheels into the cache, where any lock finds them by their hashes; the image into the engine."""
    names = [name for name in archive.page.items if name.startswith(WHEELS)]
    if names:
        recipe = recipes.recipe_from_inputs(run.inputs)
        wanted = {digest for pin in (*recipe.all_pins, *recipe.installer_pins) for digest in pin.hashes}
        strange = [name for name in names if archive.page.items[name].sha256 not in wanted]
        if strange:
            raise RunnerError(f"{archive.path}: {strange[0]} is in none of the run's locks")
        target = wheels.imported_folder(recipe.platform, house.cache, archive.page.run)
        if not target.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            with beside(target.parent, target.name) as temporary:
                for name in names:
                    archive.extract(name, temporary / name.removeprefix(WHEELS))
                temporary.rename(target)
        say(f"{len(names)} wheels are in the cache")
    if IMAGE in archive.page.items:
        _import_image(engine_of(), archive, say)


def _import_image(engine: Engine, archive: Archive, say: Say) -> None:
    image_id, tag = archive.page.image_id or "", archive.page.image_tag
    if not isinstance(engine, DockerEngine):
        raise RunnerError(
            f"{archive.path}: holds an image, and there is no Docker engine here to take it; see `make engine`"
        )
    if engine.image(image_id) is None:
        say(f"loading image {image_id[:19]}")
        engine.load_image(archive.read(IMAGE))
        if engine.image(image_id) is None:
            raise RunnerError(
                f"{archive.path}: its image became another than {image_id[:19]} in this engine; use WITH=wheels"
            )
    if tag is not None and engine.image(tag) is None:
        engine.tag_image(image_id, tag)


def _claim_number(house: House, manifest: Manifest, dataset: str, say: Say) -> None:
    """Let RUN=<tag>/<n> mean this run where that is still free here."""
    if manifest.number is None or manifest.project is None:
        return
    folder = shared_folder(house.checkpoints, house.checkpoints / manifest.project / NUMBERS / slug(manifest.tag))
    try:
        with (folder / str(manifest.number)).open("x") as handle:
            handle.write(f"{dataset}/{manifest.run}\n")
    except FileExistsError:
        say(f"note: {manifest.tag}/{manifest.number} is another run here; call this one {manifest.run}")
