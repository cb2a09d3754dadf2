"""`new-dataset`: the folder of a data set, from the templates. It prepares a toy set as it stands."""

import shutil
from pathlib import Path

from runner.contract.errors import RunnerError
from runner.contract.names import check_name

TEMPLATES = Path(__file__).parents[1] / "templates" / "dataset"
PLACEHOLDER = "NAME"


def make_dataset(root: Path, name: str) -> list[Path]:
    """Write datasets/<name>/ below `root`; its files.

    Raises:
        RunnerError: it is there already, or `name` is no name.
    """
    folder = root / "datasets" / check_name("DATASET", name)
    beside = folder.with_name(f".{name}.new")
    if folder.exists():
        raise RunnerError(f"{folder}: is there already; choose another DATASET=, or remove it")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        for template in sorted(TEMPLATES.iterdir()):
            text = template.read_text().replace(PLACEHOLDER, name)
            (beside / template.name).write_text(text)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return sorted(folder.iterdir())
