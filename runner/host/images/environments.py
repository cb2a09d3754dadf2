"""The environment of a launch on its engine: a project's image, or a virtual environment of the very same lock."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runner.contract.dataset_file import ImageChoice
from runner.contract.errors import RunnerError
from runner.contract.layout import RunPaths
from runner.contract.records import ImageRecord, Manifest
from runner.host.engines.engine import Engine
from runner.host.house import House
from runner.host.images import images, installed, locks, recipes, venvs
from runner.host.images.recipes import Recipe
from runner.host.launch.gather import Say
from runner.host.projects import Project, load_project

BUILD_LOG = "build.log"
_OF_PIPS_SETTINGS = re.compile(
    rb"^(?:Looking in (?:indexes|links): |WARNING: Location ).*\n|(?<=^Processing )/\S*/", re.MULTILINE
)
"""Where the host's pip looks for wheels: folders and private addresses."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What a launch runs in."""

    record: ImageRecord
    reference: str
    """What the engine is asked for."""
    inputs: Mapping[str, Path | bytes] = field(default_factory=dict)
    """What is kept of it in inputs/: from these alone it can be made again."""


def environment_of(
    house: House, engine: Engine, project: Project, base: str, mode: str, say: Say, *, dry_run: bool = False
) -> Environment:
    """The environment of a project, made if it is missing; a dry run only names it."""
    recipe = recipes.recipe(house.root, project.name, base=base, mode=mode)
    check_locks(house.root, recipe)
    if dry_run:
        return _imagined(engine, recipe, house.cache)
    return _made(house, engine, recipe, say)


def environment_of_choice(house: House, engine: Engine, choice: ImageChoice, say: Say) -> Environment:
    """The environment that dataset.yml names: a base, or a project's."""
    if choice.project is not None:
        project = load_project(house.root, choice.project)
        base = "cpu" if project.base == "auto" else project.base
        return environment_of(house, engine, project, base, "prod", say)
    return _made(house, engine, recipes.recipe(house.root, None, base=choice.base or "bare"), say)


def environment_of_run(
    house: House, engine: Engine, run: RunPaths, manifest: Manifest, say: Say, *, dry_run: bool = False
) -> Environment:
    """The very environment that a run was made in; a dry run only names it.

    Raises:
        RunnerError: its image is no longer here; the text says how to get it back.
    """
    recipe = recipes.recipe_from_inputs(run.inputs)
    if dry_run and "local" in (engine.kind, manifest.engine.kind):
        return _imagined(engine, recipe, house.cache)
    if engine.kind != manifest.engine.kind:
        say(
            f"note: {run.folder.name} ran on the {manifest.engine.kind} engine; this launch uses the {engine.kind} engine"
        )
        return _made(house, engine, recipe, say)
    if engine.kind == "local":
        return _made(house, engine, recipe, say)
    if engine.image(manifest.image.id) is not None:
        return Environment(record=manifest.image, reference=manifest.image.id)
    rebuilt = images.find(recipe, engine)
    if rebuilt is None:
        raise RunnerError(
            f"{run.folder.name}: its image {manifest.image.id[:19]} is no longer here; "
            f"`make image RUN={run.folder.name}` builds it again from the lock and Dockerfiles in its inputs/"
        )
    say(
        f"note: the run's own image {manifest.image.id[:19]} is gone; using {rebuilt.id[:19]}, built from the same lock and Dockerfiles"
    )
    return Environment(record=rebuilt.record, reference=rebuilt.id)


def check_locks(root: Path, recipe: Recipe) -> None:
    """Refuse an environment whose lock was made from another .in than the one that stands there.

    Raises:
        RunnerError: which lock, and what to run.
    """
    for name in (Path(file).stem for file in recipe.files if file.endswith(".txt")):
        stale = locks.stale_sources(root, name)
        if stale:
            files = " and ".join(f"requirements/{file}" for file in stale)
            raise RunnerError(f"requirements/{name}.txt: {files} changed since this lock was made; run `make lock`")


def rebuild_of_run(house: House, engine: Engine, run: RunPaths, say: Say, *, dry_run: bool = False) -> Environment:
    """Make a run's environment again from its inputs/ alone; a dry run only names it."""
    recipe = recipes.recipe_from_inputs(run.inputs)
    return _imagined(engine, recipe, house.cache) if dry_run else _made(house, engine, recipe, say)


def _made(house: House, engine: Engine, recipe: Recipe, say: Say) -> Environment:
    if engine.kind == "docker":
        image = images.ensure(recipe, engine, house.cache, say)
        logs = {} if image.log is None else {BUILD_LOG: _kept_log(image.log, house)}
        packages = {installed.PACKAGES: installed.of_image(engine, image.id, house.cache)}
        return Environment(
            record=image.record, reference=image.id, inputs={**recipes.inputs(recipe, house.cache), **packages, **logs}
        )
    folder = venvs.ensure(recipe, house.cache, say)
    log = venvs.log_of(recipe, house.cache)
    logs = {} if log is None else {BUILD_LOG: _kept_log(log, house)}
    packages = {installed.PACKAGES: installed.of_venv(folder)}
    return Environment(
        record=venvs.record(recipe),
        reference=str(folder),
        inputs={**recipes.inputs(recipe, house.cache), **packages, **logs},
    )


def _kept_log(log: Path, house: House) -> bytes:
    """A build log as a run keeps it: no path of this host stands in a record but under manifest.host."""
    text = re.sub(_OF_PIPS_SETTINGS, b"", log.read_bytes())
    for name, path in (("CACHE_ROOT", house.cache), ("REPOSITORY", house.root), ("HOME", Path.home())):
        if path != Path("/"):
            text = re.sub(rb"(?<![\w./-])%b(?![\w.-])" % re.escape(bytes(path)), f"<{name}>".encode(), text)
    return text


def _imagined(engine: Engine, recipe: Recipe, cache: Path) -> Environment:
    """The environment as it is or would be; nothing is made."""
    if engine.kind == "docker":
        found = images.find(recipe, engine)
        if found is not None:
            return Environment(record=found.record, reference=found.id)
        tag = recipe.tag(recipes.ORIGINS[0])
        return Environment(
            record=ImageRecord(id="not built yet", key=recipe.key(recipes.ORIGINS[0]), tag=tag), reference=tag
        )
    record = venvs.record(recipe)
    return Environment(record=record, reference=str(cache / "venvs" / record.key[:32]))
