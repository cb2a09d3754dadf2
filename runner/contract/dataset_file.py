"""What dataset.yml says: the host prepares and mounts by it, and inside the data is held against its schema."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from runner.contract.checksum import Checksum
from runner.contract.dataset_schema import Schema, parse_schema
from runner.contract.errors import RunnerError
from runner.contract.jsonio import file_sha256, sha256_of
from runner.contract.names import check_name, unknown
from runner.contract.preparation import LISTS, LMDB, README, STAGES
from runner.contract.yaml12 import load_mapping, type_name

DATASET_FILE = "dataset.yml"
KEYS = ("description", "source", "licence", "citation", "splits", "classes", "encoding", "record", "image", "stages")
MADE_BY_CODE = "code"
"""The `source:` of a data set that prepare.py makes out of nothing but what its image holds."""
RECIPE_VERSION = 1
"""Goes up when our own part in making lists and lmdb makes them otherwise than before."""
_CHECKSUMS = {"md5": 32, "sha256": 64}


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One file as its authors offer it."""

    url: str
    checksum: Checksum

    @property
    def file_name(self) -> str:
        """The last part of the address."""
        return PurePosixPath(urlsplit(self.url).path).name


@dataclass(frozen=True, kw_only=True)
class ImageChoice:
    """Whose Python prepares a data set: a base image, or a project's image."""

    base: str | None = None
    project: str | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What dataset.yml says, complete."""

    name: str
    folder: Path
    """The folder of dataset.yml in the repository."""
    image: ImageChoice
    stages: tuple[str, ...]
    """The stages that can be prepared, in the order in which they run."""
    described: Schema | None = None
    """What an example is; None of a data set that says nothing of its examples and so has no lists."""
    sources: tuple[SourceFile, ...] = ()
    made_by_code: bool = False
    """Whether raw needs neither a download nor a SOURCE."""
    description: str = ""
    licence: str = ""
    citation: str = ""
    splits: Mapping[str, str] = field(default_factory=dict)

    @property
    def schema(self) -> Schema:
        """What an example is.

        Raises:
            RunnerError: dataset.yml does not say.
        """
        if self.described is None:
            raise RunnerError(
                f"data set {self.name}: dataset.yml does not say what an example is; add encoding, record and {LISTS}"
            )
        return self.described

    @property
    def code(self) -> Path:
        """What makes the stages."""
        return self.folder / "prepare.py"

    @property
    def recipe(self) -> str:
        """The hash of what the stages are made by: the Python files of the folder, the schema, the splits and the stages. The
        words in dataset.yml count for nothing."""
        code = {path.name: file_sha256(path) for path in sorted(self.folder.glob("*.py"))}
        return sha256_of(
            [RECIPE_VERSION, code, self.described and self.described.to_json(), sorted(self.splits), self.stages]
        )

    def command(self, word: str) -> tuple[str, ...]:
        """What makes a stage, or does another thing with the data, from the repository's root."""
        return "python", f"datasets/{self.name}/prepare.py", word


def dataset_names(root: Path) -> list[str]:
    """The data sets of the repository at `root`: the folders of datasets/ that have a dataset.yml."""
    return sorted(path.parent.name for path in (root / "datasets").glob(f"*/{DATASET_FILE}"))


def load_dataset(root: Path, name: str) -> DatasetInfo:
    """The data set `name` of the repository at `root`.

    Raises:
        RunnerError: there is none of that name (the nearest and the list are given), or its dataset.yml cannot be used
            (all problems in one line).
    """
    check_name("DATASET", name)
    folder = root / "datasets" / name
    if not (folder / DATASET_FILE).is_file():
        raise unknown("DATASET", name, dataset_names(root))
    return load_dataset_file(folder / DATASET_FILE)


def load_dataset_file(path: Path) -> DatasetInfo:
    """The data set that the dataset.yml at `path` describes; it is named by its folder.

    Raises:
        RunnerError: the file is not there, or cannot be used.
    """
    raw = load_mapping(path)
    problems = [f"unknown key {key!r} (known: {', '.join(KEYS)})" for key in raw if key not in KEYS]
    stages = _stages(raw.get("stages"), problems)
    by_example = sorted({LISTS, LMDB, README} & set(stages))
    if by_example and LISTS not in stages:
        problems.append(f"stages: {', '.join(by_example)} need {LISTS}")
    info = DatasetInfo(
        name=path.parent.name,
        folder=path.parent,
        image=_image(raw.get("image"), problems),
        stages=stages,
        described=parse_schema(raw, problems) if by_example or "record" in raw else None,
        sources=_sources(raw.get("source"), problems),
        made_by_code=raw.get("source") == MADE_BY_CODE,
        splits=_splits(raw.get("splits"), problems) if by_example or "splits" in raw else {},
        description=_text("description", raw.get("description"), problems),
        licence=_text("licence", raw.get("licence"), problems),
        citation=_text("citation", raw.get("citation"), problems),
    )
    if problems:
        raise RunnerError(f"{path}: {'; '.join(problems)}")
    return info


def _text(key: str, value: Any, problems: list[str]) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    problems.append(f"{key}: found {type_name(value)}, expected text")
    return ""


def _splits(value: Any, problems: list[str]) -> dict[str, str]:
    if isinstance(value, dict) and value:
        return {check_name("splits", str(name)): str(text) for name, text in value.items()}
    problems.append(f"splits: found {type_name(value)}, expected each split's name and how it was chosen")
    return {}


def _image(value: Any, problems: list[str]) -> ImageChoice:
    if isinstance(value, dict) and len(value) == 1:
        [(kind, name)] = value.items()
        if kind in ("base", "project") and isinstance(name, str):
            return ImageChoice(**{kind: name})
    problems.append(f"image: found {value!r}, expected {{base: cpu}} or {{project: <name>}}")
    return ImageChoice()


def _stages(value: Any, problems: list[str]) -> tuple[str, ...]:
    """In our order, whatever theirs."""
    if not isinstance(value, list) or not value:
        problems.append(f"stages: found {type_name(value)}, expected a list of some of {', '.join(STAGES)}")
        return ()
    problems += [
        f"stages: unknown stage {stage!r} (known: {', '.join(STAGES)})" for stage in value if stage not in STAGES
    ]
    return tuple(stage for stage in STAGES if stage in value)


def _sources(value: Any, problems: list[str]) -> tuple[SourceFile, ...]:
    if value is None or value == MADE_BY_CODE:
        return ()
    if not isinstance(value, list):
        problems.append(
            f"source: found {type_name(value)}, expected a list of {{url: …, sha256: …}}, or {MADE_BY_CODE}"
        )
        return ()
    files = tuple(file for entry in value if (file := _source(entry, problems)) is not None)
    names = [file.file_name for file in files]
    problems += [
        f"source: two files are called {name}; one would hide the other" for name in {*names} if names.count(name) > 1
    ]
    return files


def _source(entry: Any, problems: list[str]) -> SourceFile | None:
    url = entry.get("url") if isinstance(entry, dict) else None
    sums = [key for key in _CHECKSUMS if isinstance(entry, dict) and key in entry]
    if not isinstance(url, str) or not re.match(r"https?://[^/]+/.*[^/]\Z", url):
        problems.append(f"source: found {entry!r}, expected url: https://…/<file>")
    elif len(sums) != 1 or set(entry) - {"url", *_CHECKSUMS}:
        problems.append(
            f"source: {url} has the keys {', '.join(entry)}, expected url and one of {', '.join(_CHECKSUMS)}"
        )
    elif not re.fullmatch(rf"[0-9a-f]{{{_CHECKSUMS[sums[0]]}}}", str(entry[sums[0]])):
        problems.append(f"source: {sums[0]} {entry[sums[0]]!r} is not {_CHECKSUMS[sums[0]]} hexadecimal digits")
    else:
        return SourceFile(url=url, checksum=Checksum(sums[0], str(entry[sums[0]])))
    return None
