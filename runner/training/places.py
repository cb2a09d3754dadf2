"""Where runs, data sets and models lie for code that no launch has started: a notebook, a script, `make shell`.

In this order: CHECKPOINTS_ROOT, DATASETS_ROOT, MODELS_ROOT of the environment (`make shell` sets them); runner.yml of the
nearest folder upwards that has one; its folders checkpoints/, datasets/, models/.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runner.contract.errors import RunnerError
from runner.contract.layout import DATASET_PARTS, TOY
from runner.contract.yaml12 import load_mapping

SETTINGS = "runner.yml"


def root_of(what: str, start: Path | None = None) -> Path:
    """The root folder of `what`: checkpoints, datasets or models.

    Raises:
        RunnerError: nothing says where it is.
    """
    variable = f"{what.upper()}_ROOT"
    if os.environ.get(variable):
        return Path(os.environ[variable]).expanduser()
    here = (start or Path.cwd()).absolute()
    for folder in (here, *here.parents):
        settings = folder / SETTINGS
        if settings.is_file():
            values: Mapping[str, Any] = load_mapping(settings) if settings.read_text().strip() else {}
            return folder / Path(str(values.get(f"{what}_root") or what)).expanduser()
    raise RunnerError(f"{here}: no {SETTINGS} here or above, so {what}/ is not known; set {variable}, or give a path")


@contextmanager
def launch_view(config: Mapping[str, Any]) -> Iterator[None]:
    """Inside, DATASETS_DIR and MODELS_DIR are what a launch with this config sees: the full data or the toy set under
    the same name. In a launch they are so already; where a root is not known its variable stays as it is."""
    if os.environ.get("RUNNER_KIND"):
        yield
        return
    ours = {"DATASETS_DIR": _datasets(config), "MODELS_DIR": known_root("models")}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update({name: str(path.absolute()) for name, path in ours.items() if path is not None})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _datasets(config: Mapping[str, Any]) -> Path | None:
    root, names = known_root("datasets"), config.get("dataset")
    if root is None or not names or config.get("data") != TOY:
        return root
    return _view(root.absolute(), (names,) if isinstance(names, str) else tuple(names))


def known_root(what: str) -> Path | None:
    """The root: DATASETS_DIR of a shell stands for DATASETS_ROOT; None where nothing says where it is."""
    inside = os.environ.get(f"{what.upper()}_DIR")
    if inside and not os.environ.get(f"{what.upper()}_ROOT"):
        return Path(inside)
    try:
        return root_of(what)
    except RunnerError:
        return None


_views: dict[tuple[Path, tuple[str, ...]], Path] = {}


def _view(root: Path, names: tuple[str, ...]) -> Path:
    """A folder in which each name is its toy set. It lives as long as this process: data sets read on when they like."""
    key = root, names
    if key not in _views:
        view = Path(tempfile.mkdtemp(prefix="runner-data-"))
        atexit.register(shutil.rmtree, view, ignore_errors=True)
        for name in names:
            (view / name).mkdir()
            for part in DATASET_PARTS:
                (view / name / part).symlink_to(root / name / TOY / part)
        _views[key] = view
    return _views[key]
