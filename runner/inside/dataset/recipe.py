"""What a data set's prepare.py says, and the stages made of it. Everything that is the same for every data set is here.

    raw      recipe.write_raw, then read-only                     the tree is checked, and what recipe.check_raw adds
    lists    recipe.splits(raw), one list file a split            each example there, once, with a possible label
    lmdb     every split in every kind of recipe.lmdb             readable, and made from these lists
    toy      recipe.write_toy, then lists and lmdb as above       the same checks
    readme   the facts of full and toy, with a picture of each    every image can be read

`lint` and `explore` only look.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.contract.dataset_file import DATASET_FILE, DatasetInfo, load_dataset_file
from runner.contract.dataset_schema import SCHEMA_JSON
from runner.contract.errors import RunnerError
from runner.contract.jsonio import pretty_json, write_atomic
from runner.contract.layout import TOY
from runner.contract.preparation import EXPLORE, LINT, LISTS, LMDB, LOOKS, RAW, README, STAGES
from runner.inside.dataset.checks import balance_table, check_lists, check_tree
from runner.inside.dataset.examples import open_listed
from runner.inside.dataset.lists import DataError, Entry, ListFile, write_list
from runner.inside.dataset.lmdb_file import ARRAYS, LmdbFile
from runner.inside.dataset.lmdb_write import check_kind, write_lmdb
from runner.inside.dataset.progress import Progress
from runner.inside.dataset.stages import Places, Stage, build, places_of


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The part of a data set that only its own prepare.py can know."""

    write_raw: Callable[[Places, Path], None]
    """Fills an empty folder from `places.source`, as the authors provide the data. Raises DataError where that is not right."""
    write_toy: Callable[[Path], None]
    """Fills an empty folder with the same tree in small. It takes no source and makes the same bytes on every machine."""
    splits: Callable[[Path], Mapping[str, Iterable[Entry]]] = lambda raw: {}
    """Given the raw folder, the examples of every split that dataset.yml names."""
    check_raw: Callable[[Path], None] = lambda raw: None
    """Raises DataError unless the raw folder is whole, as far as this data set can tell."""
    lmdb: Sequence[str] = (ARRAYS,)
    """Which kinds of LMDB are made: `arrays`, `encoded`."""


def main(recipe: Recipe, code: str, argv: Sequence[str]) -> int:
    """The command line of a prepare.py, `code`: one word. Returns the exit code; an error is one line on stderr."""
    try:
        info = load_dataset_file(Path(code).absolute().parent / DATASET_FILE)
        made = {stage.name: stage for stage in stages(recipe, info)}
        words = (*made, *LOOKS)
        if len(argv) != 1 or argv[0] not in words:
            raise RunnerError(f"prepare: one of {', '.join(words)} expected, {' '.join(argv) or 'nothing'} found")
        places = places_of(os.environ)
        if argv[0] == LINT:
            return lint(info, places)
        if argv[0] == EXPLORE:
            return explore(info, places)
        build(made[argv[0]], places, info.recipe)
    except RunnerError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"prepare {argv[0]}: {_plain(error)}; nothing was changed", file=sys.stderr)
        return 2
    return 0


def _plain(error: OSError) -> str:
    """What happened, and to which file. shutil wraps the errors of many files in one."""
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        source, _, why = error.args[0][0]
        return f"{why} ({source})"
    what = os.strerror(error.errno) if error.errno else str(error)
    return f"{what} ({error.filename})" if error.filename else what


def stages(recipe: Recipe, info: DatasetInfo) -> tuple[Stage, ...]:
    """The stages that dataset.yml names."""
    maker = _Maker(recipe, info)
    every = {
        RAW: Stage(name=RAW, write=maker.write_raw, check=maker.check_raw),
        LISTS: Stage(name=LISTS, write=maker.write_lists, check=maker.check_lists),
        LMDB: Stage(name=LMDB, write=maker.write_lmdb, check=maker.check_lmdb),
        TOY: Stage(name=TOY, write=maker.write_toy, check=maker.check_toy),
        README: Stage(name=README, write=maker.write_readme, check=lambda places, folder: None),
    }
    return tuple(every[name] for name in STAGES if name in info.stages)


class _Maker:
    """Makes each stage of one data set."""

    def __init__(self, recipe: Recipe, info: DatasetInfo) -> None:
        self.recipe, self.info = recipe, info

    def write_raw(self, places: Places, folder: Path) -> None:
        """Take it from its source."""
        if places.source is None and not self.info.made_by_code:
            raise DataError(
                f"raw: no source was given; run `make dataset DATASET={self.info.name}` [SOURCE=<folder or archive>]"
            )
        self.recipe.write_raw(places, folder)
        for path in folder.rglob("*"):
            if not path.is_symlink():  # folders stay ours to remove, whatever those of the source allowed
                mode = path.stat().st_mode
                path.chmod(mode | 0o700 if path.is_dir() else mode & ~0o222)

    def check_raw(self, places: Places, folder: Path) -> None:
        """What this data set checks first, since it speaks of the data's own terms; then what holds of any tree."""
        self.recipe.check_raw(folder)
        check_tree(folder)

    def write_lists(self, places: Places, folder: Path) -> None:
        """One file a split."""
        self._lists(places.raw, folder)

    def check_lists(self, places: Places, folder: Path) -> None:
        """Against the raw data; the class balance is printed."""
        check_tree(places.raw)
        balance = check_lists(places.root, folder, self.info.splits, self.info.schema, places.raw)
        print(balance_table(balance, self.info.schema), flush=True)

    def write_lmdb(self, places: Places, folder: Path) -> None:
        """Every kind of every split."""
        self._lmdb(places.root, places.raw, places.root / LISTS, folder)

    def check_lmdb(self, places: Places, folder: Path) -> None:
        """Each file opens, and says it is of these lists."""
        self._open_lmdb(folder, places.root / LISTS)

    def write_toy(self, places: Places, folder: Path) -> None:
        """A data set in small, made the same way."""
        raw, lists = folder / RAW, folder / LISTS
        raw.mkdir()
        self.recipe.write_toy(raw)
        if LISTS in self.info.stages:
            lists.mkdir()
            self._lists(raw, lists)
        if LMDB in self.info.stages:
            (folder / LMDB).mkdir()
            self._lmdb(folder, raw, lists, folder / LMDB)

    def check_toy(self, places: Places, folder: Path) -> None:
        """As the full data."""
        raw = folder / RAW
        self.recipe.check_raw(raw)
        check_tree(raw)
        if LISTS in self.info.stages:
            check_lists(folder, folder / LISTS, self.info.splits, self.info.schema, raw)
        if LMDB in self.info.stages:
            self._open_lmdb(folder / LMDB, folder / LISTS)

    def write_readme(self, places: Places, folder: Path) -> None:
        """What is there, full or toy or both."""
        from runner.inside.dataset.facts import write_facts

        for variant in variants(self.info, places):
            write_facts(self.info, variant, folder)

    def _lists(self, raw: Path, folder: Path) -> None:
        splits = self.recipe.splits(raw)
        if set(splits) != set(self.info.splits):
            raise DataError(
                f"lists: prepare.py gives the splits {', '.join(splits)}; dataset.yml names {', '.join(self.info.splits)}"
            )
        for split, entries in splits.items():
            write_list(folder / f"{split}.txt", entries)
        write_atomic(folder / SCHEMA_JSON, pretty_json(self.info.schema.to_json()))

    def _lmdb(self, root: Path, raw: Path, lists: Path, folder: Path) -> None:
        for kind in self.recipe.lmdb:
            check_kind(kind, self.info.schema)
            for split in self.info.splits:
                list_file = lists / f"{split}.txt"
                examples = open_listed(root, ListFile(list_file), self.info.schema, raw=raw)
                path = folder / kind / f"{split}.mdb"
                path.parent.mkdir(exist_ok=True)
                progress = Progress(f"lmdb: {kind} {split}", len(examples))
                write_lmdb(path, examples, list_file, self.info.schema, kind, progress)

    def _open_lmdb(self, folder: Path, lists: Path) -> None:
        for kind in self.recipe.lmdb:
            for split in self.info.splits:
                LmdbFile(folder / kind / f"{split}.mdb", lists / f"{split}.txt")


@dataclass(frozen=True)
class Variant:
    """One variant of a data set as a prepare launch sees it."""

    name: str
    root: Path
    raw: Path

    @property
    def lmdb(self) -> bool:
        """Whether it has an lmdb/."""
        return (self.root / LMDB).is_dir()


def variants(info: DatasetInfo, places: Places) -> list[Variant]:
    """Full and toy, as far as they are there.

    Raises:
        DataError: neither is.
    """
    both = (Variant("full", places.root, places.raw), Variant(TOY, places.root / TOY, places.root / TOY / RAW))
    needed = {LISTS} & set(info.stages)
    found = [one for one in both if one.raw.is_dir() and all((one.root / part).is_dir() for part in needed)]
    if not found:
        raise DataError(
            f"{places.root}: neither the full data nor a toy set is there; run `make dataset` or STAGE=toy first"
        )
    return found


def lint(info: DatasetInfo, places: Places) -> int:
    """Hold toy against full, and both against dataset.yml: exit code 0 if all is well."""
    from runner.inside.dataset.lint import findings

    found = variants(info, places)
    problems = findings(info, found)
    for problem in problems:
        print(f"{info.name}: {problem}", file=sys.stderr)
    if not problems:
        names = " and ".join(variant.name for variant in found)
        print(f"{info.name}: well: {names} {'agree' if len(found) > 1 else 'agrees'} with dataset.yml")
    return 2 if problems else 0


def explore(info: DatasetInfo, places: Places) -> int:
    """Write the page to the launch's output folder."""
    from runner.inside.dataset.explore import write_page

    write_page(info, variants(info, places), Path(os.environ["OUTPUT_DIR"]))
    return 0
