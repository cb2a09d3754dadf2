"""Whether a data set is what it says it is, and whether its toy set can stand in for it."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from runner.contract.dataset_file import DatasetInfo
from runner.contract.dataset_schema import Schema, read_schema
from runner.contract.errors import RunnerError
from runner.contract.layout import TOY
from runner.contract.preparation import LISTS, LMDB
from runner.contract.tree_walk import shown_path, walk
from runner.inside.dataset.checks import Balance, check_lists, check_tree
from runner.inside.dataset.examples import Examples, open_raw
from runner.inside.dataset.lists import DataError
from runner.inside.dataset.lmdb_file import LmdbFile

if TYPE_CHECKING:
    from runner.inside.dataset.recipe import Variant

MOST_NAMES = 20
"""Of a folder with more files than these, the kinds of file are compared, not their names."""


def findings(info: DatasetInfo, found: "list[Variant]") -> list[str]:
    """Everything that is wrong, one line each; [] if nothing is."""
    problems: list[str] = []
    balances = {variant.name: _look(info, variant, problems) for variant in found}
    if len(found) == 2 and not problems:
        full, toy = found
        problems += tree_differences(full.raw, toy.raw)
        problems += _split_differences(info, balances)
        kinds = [{path.relative_to(v.root / LMDB) for path in (v.root / LMDB).glob("*/*.mdb")} for v in found]
        if full.lmdb and toy.lmdb and kinds[0] != kinds[1]:
            names = ", ".join(str(path) for path in sorted(kinds[0] ^ kinds[1]))
            problems.append(f"lmdb: {names}: in one of full and toy alone")
    return problems


def _look(info: DatasetInfo, variant: "Variant", problems: list[str]) -> Balance:
    try:
        check_tree(variant.raw)
        if LISTS not in info.stages:
            return {}
        balance = check_lists(variant.root, variant.root / LISTS, info.splits, info.schema, variant.raw)
        _check_schema(read_schema(variant.root), info, f"{variant.root / LISTS}")
        for path in sorted((variant.root / LMDB).glob("*/*.mdb")):
            stored = LmdbFile(path, variant.root / LISTS / f"{path.stem}.txt")
            _check_schema(stored.schema, info, str(path))
            _check_same(stored, open_raw(variant.root, path.stem, info.schema, raw=variant.raw))
        return balance
    except RunnerError as error:
        problems.append(f"{variant.name}: {error}")
        return {}


def _check_schema(found: Schema, info: DatasetInfo, where: str) -> None:
    differences = found.differences(info.schema)
    if differences:
        raise DataError(f"{where}: made by another dataset.yml ({'; '.join(differences)} now); make it again")


def _check_same(stored: LmdbFile, raw: Examples) -> None:
    """Every example of the LMDB file is that of the raw data."""
    for index in range(len(raw)):
        place = np.array([index])
        one, other = stored.images(place)[0], raw.images(place)[0]
        if stored.labels[index] != raw.labels[index] or not np.array_equal(one, other):
            raise DataError(
                f"{stored.path}: example {index} is not {raw.reference(index)} as raw holds it; make it again"
            )


def _split_differences(info: DatasetInfo, balances: dict[str, Balance]) -> list[str]:
    """A class that the full split has and the toy split has not would go unnoticed until the long run."""
    problems = []
    for split, counts in balances["full"].items():
        names = info.schema.classes or ("examples",)
        lacking = [names[n] for n, count in enumerate(counts) if count and not balances[TOY][split][n]]
        if lacking:
            problems.append(f"toy: {split} has no example of {', '.join(lacking)}, which the full data has")
    return problems


def tree_differences(full: Path, toy: Path) -> list[str]:
    """Folders and kinds of file that one raw tree has and the other has not. Numbers in names count for nothing."""
    trees = [_names_by_folder(raw) for raw in (full, toy)]
    large = {folder for tree in trees for folder, names in tree.items() if len(names) > MOST_NAMES}
    one, other = (_kinds(tree, large) for tree in trees)
    problems = []
    for kinds, has, lacks in ((one - other, "full", "toy"), (other - one, "toy", "full")):
        problems += [f"raw: {has} has {kind}, {lacks} has none" for kind in sorted(kinds)]
    return problems


def _names_by_folder(raw: Path) -> dict[str, set[bytes]]:
    folders: dict[str, set[bytes]] = {}
    for path in walk(raw, ask=False).names:
        folder, slash, name = path.rpartition(b"/")
        folders.setdefault(_numberless(folder + slash), set()).add(name)
    return folders


def _kinds(tree: dict[str, set[bytes]], large: set[str]) -> set[str]:
    """Folder and name, or of a large folder the folder and the endings."""
    return {
        folder + ("*" + Path(shown_path(name)).suffix.lower() if folder in large else _numberless(name))
        for folder, names in tree.items()
        for name in names
    }


def _numberless(name: bytes) -> str:
    return re.sub(r"\d+", "*", shown_path(name))
