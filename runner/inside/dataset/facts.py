"""What README.md tells of a data set, as numbers and as a picture: `readme/<variant>.json` and `.png`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runner.contract.dataset_file import DatasetInfo
from runner.contract.fingerprint import fingerprint
from runner.contract.jsonio import pretty_json, write_atomic
from runner.contract.preparation import LISTS, LMDB, count
from runner.inside.dataset.examples import open_raw
from runner.inside.dataset.lists import DataError
from runner.inside.dataset.progress import Progress
from runner.inside.dataset.sheet import draw_sheet
from runner.inside.dataset.survey import Survey, survey

if TYPE_CHECKING:
    from runner.inside.dataset.recipe import Variant

TRAIN = "train"
"""The split that mean and std are of; where there is none of that name, the first."""


def write_facts(info: DatasetInfo, variant: "Variant", folder: Path) -> None:
    """Look at every example and write down what there is.

    Raises:
        DataError: an example cannot be read.
    """
    surveys = {}
    for split in info.splits:
        examples = open_raw(variant.root, split, info.schema, raw=variant.raw)
        surveys[split] = survey(examples, info.schema, Progress(f"readme: {variant.name} {split}", len(examples)))
    unreadable = [f"{name}: {reason}" for found in surveys.values() for name, reason in found.unreadable]
    if unreadable:
        raise DataError(
            f"{len(unreadable)} examples cannot be read, the first: {unreadable[0]}; "
            f"`make explore DATASET={info.name}` lists them all"
        )
    write_atomic(folder / f"{variant.name}.json", pretty_json(facts(info, variant, surveys)))
    draw_sheet(info, variant, max(found.maximum for found in surveys.values()), folder / f"{variant.name}.png")


def facts(info: DatasetInfo, variant: "Variant", surveys: dict[str, Survey]) -> dict[str, Any]:
    """One variant in numbers."""
    parts = {part: path for part, path in places(variant).items() if path.is_dir()}
    measured = TRAIN if TRAIN in surveys else next(iter(surveys))
    return {
        "schema_version": 1,
        "variant": variant.name,
        "schema": info.schema.to_json(),
        "splits": {split: {"examples": len(one.digests), "by_class": one.by_class} for split, one in surveys.items()},
        "shapes": {
            "least": np.min([one.shapes.min(axis=0) for one in surveys.values()], axis=0).tolist(),
            "most": np.max([one.shapes.max(axis=0) for one in surveys.values()], axis=0).tolist(),
        },
        "measured": measured,
        "mean": surveys[measured].mean,
        "std": surveys[measured].std,
        "parts": {part: dict(zip(("files", "bytes"), count(path), strict=True)) for part, path in parts.items()},
        # An LMDB file's bytes depend on the machine's page size, so it has no fingerprint that holds everywhere.
        "fingerprints": {part: fingerprint(path).sha256 for part, path in parts.items() if part != LMDB},
    }


def places(variant: "Variant") -> dict[str, Path]:
    """Where each part of a variant lies."""
    return {"raw": variant.raw, LISTS: variant.root / LISTS, LMDB: variant.root / LMDB}
