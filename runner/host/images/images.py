"""The image of a recipe: found by its content key, or built. To find it asks the engine, and nobody else."""

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from runner.contract.errors import EngineError
from runner.contract.records import ImageRecord
from runner.host.engines.engine import Engine, ImageInfo
from runner.host.images import recipes, wheels
from runner.host.images.builders import Build, Builder, build, find_builder
from runner.host.images.locked import Report, locked
from runner.host.images.pins import Pin, pins_sha256, requirements_text
from runner.host.images.recipes import Recipe
from runner.host.images.roots import Root, ensure_root

KEY_LABEL = "runner.key"
BASE_LABEL = "runner.base"
ORIGIN_LABEL = "runner.origin"
LOCK_LABEL = "runner.lock"


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image that the engine has, ready to be launched by id."""

    record: ImageRecord
    size_bytes: int
    layers: tuple[str, ...]
    log: Path | None
    """The build log where something had to be built for it, now or by the process that was waited for."""

    @property
    def id(self) -> str:
        """What is launched."""
        return self.record.id


def find(recipe: Recipe, engine: Engine) -> Image | None:
    """The image of this recipe if the engine has it. Nothing is built, pulled or asked of anybody else."""
    for origin in recipes.ORIGINS:
        found = engine.image(recipe.tag(origin))
        if found is not None and found.labels.get(KEY_LABEL) == recipe.key(origin):
            return _image(recipe, origin, found, None)
    return None


def ensure(recipe: Recipe, engine: Engine, cache: Path, report: Report) -> Image:
    """The image of this recipe: the one that is there, else built now. Of two processes one builds.

    Raises:
        RunnerError: no BuildKit, a wheel that cannot be had, a failed build, a full disk: each says so.
        EngineError: the engine or a registry refused.
    """
    found = find(recipe, engine)
    if found is not None:
        return found
    log_path = cache / "builds" / f"{recipe.key(recipes.ORIGINS[0])[:32]}.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with locked(log_path.with_suffix(".lock"), "image", report):
        found = find(recipe, engine)
        if found is not None:
            return _image_with_log(found, log_path)
        started = time.monotonic()
        with log_path.open("w", buffering=1) as log:
            image = _build_all(_Site(recipe, engine, cache, report, log, find_builder(os.environ)))
        report(f"image {image.record.tag}: ready after {time.monotonic() - started:.0f} s")
        return _image_with_log(image, log_path)


@dataclass(frozen=True)
class _Site:
    """What every step of a build needs."""

    recipe: Recipe
    engine: Engine
    cache: Path
    report: Report
    log: IO[str]
    builder: Builder


def _build_all(site: _Site) -> Image:
    """Root, base, project, dev: each where it is not there yet."""
    recipe = site.recipe
    with locked(site.cache / "builds" / f"base-{recipe.base}.lock", f"base image {recipe.base}", site.report):
        root = ensure_root(recipe, site.engine, site.builder, site.report, site.log)
        _build_base(site, root)
    origin = root.origin
    prod_tag = recipes.image_tag("prod", recipe.prod_key(origin))
    _build_one(
        site,
        tag=prod_tag,
        dockerfile=recipes.DOCKERFILE_PROD,
        arguments={"BASE": recipe.base_tag(origin)},
        pins=recipe.project_pins,
        key=recipe.prod_key(origin),
    )
    if recipe.mode == "dev":
        _build_one(
            site,
            tag=recipe.tag(origin),
            dockerfile=recipes.DOCKERFILE_DEV,
            arguments={"BASE": prod_tag},
            pins=recipe.dev_pins,
            key=recipe.key(origin),
            network=True,
        )
    built = site.engine.image(recipe.tag(origin))
    if built is None:
        raise EngineError(
            f"image {recipe.tag(origin)}: built, and the engine lacks it; do DOCKER_HOST and `docker` agree?"
        )
    return _image(recipe, origin, built, None)


def _build_base(site: _Site, root: Root) -> None:
    """The base image, if the engine has none of its key."""
    recipe = site.recipe
    _build_one(
        site,
        tag=recipe.base_tag(root.origin),
        dockerfile=recipes.DOCKERFILE_BASE,
        arguments={"ROOT": root.tag, "PACKAGES": "" if recipe.base == "bare" else recipes.COMPILER},
        pins=recipe.base_pins,
        key=recipe.base_key(root.origin),
        network=True,
        labels={BASE_LABEL: root.reference, ORIGIN_LABEL: root.origin},
    )


def _build_one(
    site: _Site,
    *,
    tag: str,
    dockerfile: str,
    arguments: Mapping[str, str],
    pins: Sequence[Pin],
    key: str,
    network: bool = False,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Build one image from its wheels, unless the engine has it."""
    found = site.engine.image(tag)
    if found is not None and found.labels.get(KEY_LABEL) == key:
        return
    recipe = site.recipe
    with ExitStack() as stack:
        context = site.cache / "contexts" / key[:32]
        stack.callback(shutil.rmtree, context, ignore_errors=True)
        _fill(site, context, pins)
        wanted = Build(
            tag=tag,
            dockerfile=recipe.files[dockerfile],
            context=context,
            arguments=arguments,
            labels={KEY_LABEL: key, LOCK_LABEL: pins_sha256(pins), **(labels or {})},
            platform=recipe.platform,
            network=network,
        )
        build(site.builder, wanted, site.report, site.log)


def _fill(site: _Site, context: Path, pins: Sequence[Pin]) -> None:
    """The build context: the wheels as links, their hashes, the installer."""
    platform, cache = site.recipe.platform, site.cache
    uv = wheels.installer(site.recipe.installer_pins, platform, cache, site.report, site.log)
    shutil.rmtree(context, ignore_errors=True)
    (context / "wheels").mkdir(parents=True)
    os.link(uv, context / "uv")
    (context / "install.sh").write_text(site.recipe.files[recipes.INSTALL_SCRIPT])
    (context / "lock.txt").write_text(requirements_text(pins))
    if pins:
        for wheel in wheels.wheelhouse(pins, platform, cache, site.report, site.log).glob("*.whl"):
            os.link(wheel, context / "wheels" / wheel.name)


def _image(recipe: Recipe, origin: str, found: ImageInfo, log: Path | None) -> Image:
    """The facts for the record."""
    record = ImageRecord(
        id=found.id,
        digest=found.digests[0] if found.digests else None,
        key=recipe.key(origin),
        tag=recipe.tag(origin),
        base=found.labels.get(BASE_LABEL),
        base_origin=found.labels.get(ORIGIN_LABEL),
        lock_sha256=recipe.lock_sha256,
        dockerfile_sha256=recipe.dockerfile_sha256,
        python=wheels.PYTHON,
        platform=recipe.platform,
    )
    return Image(record=record, size_bytes=found.size_bytes, layers=found.layers, log=log)


def _image_with_log(image: Image, log: Path) -> Image:
    return Image(record=image.record, size_bytes=image.size_bytes, layers=image.layers, log=log)
