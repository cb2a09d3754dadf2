"""What a project says of itself in project.yml, and its experiments."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.contract.errors import RunnerError
from runner.contract.names import check_name, unknown
from runner.contract.yaml12 import load_mapping

BASES = ("auto", "bare", "cpu", "gpu")
COMMANDS = ("train", "evaluate", "resume")
KEYS = ("description", "base", "dataset", "trainer", *COMMANDS)
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_.]*)\}")


@dataclass(frozen=True, kw_only=True)
class Project:
    """One project, complete."""

    name: str
    folder: Path
    base: str
    """Which base image: bare, cpu, gpu, or auto (gpu where the launch gets a GPU, else cpu)."""
    dataset: str | None
    trainer: str | None
    """module:Class of a runner.training.Trainer; it stands for the three commands."""
    commands: Mapping[str, tuple[str, ...]]
    """argv templates of train, evaluate and resume, as far as the project has them."""
    text: bytes
    """project.yml as it was read."""
    description: str = ""

    @property
    def configs(self) -> Path:
        """The folder of experiments."""
        return self.folder / "configs"

    @property
    def lock_name(self) -> str:
        """Name of its requirements: requirements/<name>.in and .txt."""
        return self.name


def project_names(root: Path) -> list[str]:
    """The folders of projects/ that have a project.yml."""
    return sorted(path.parent.name for path in (root / "projects").glob("*/project.yml"))


def load_project(root: Path, name: str) -> Project:
    """The project of this name.

    Raises:
        RunnerError: no such project, or a project.yml that cannot be used.
    """
    check_name("PROJECT", name)
    folder = root / "projects" / name
    path = folder / "project.yml"
    if not path.is_file():
        raise unknown("PROJECT", name, project_names(root))
    return parse_project(path, name, folder)


def parse_project(path: Path, name: str, folder: Path) -> Project:
    """The project that a project.yml describes: the repository's, or the one that a run keeps in its inputs/.

    Raises:
        RunnerError: it cannot be used; all problems in one line.
    """
    raw = load_mapping(path)
    problems = [f"unknown key {key!r} (known: {', '.join(KEYS)})" for key in raw if key not in KEYS]
    base = raw.get("base", "auto")
    if base not in BASES:
        problems.append(f"base: found {base!r}, expected one of {', '.join(BASES)}")
    dataset = raw.get("dataset")
    if dataset is not None and not isinstance(dataset, str):
        problems.append(f"dataset: found {dataset!r}, expected a name or null")
    trainer = raw.get("trainer")
    commands = {} if trainer is None else trainer_commands(str(trainer))
    for key in COMMANDS:
        if raw.get(key) is not None:
            if not isinstance(raw[key], list) or not raw[key]:
                problems.append(
                    f"{key}: found {raw[key]!r}, expected a list of words such as [python, -m, projects.{name}.{key}]"
                )
            else:
                commands[key] = tuple(str(word) for word in raw[key])
    if "train" not in commands:
        problems.append("neither trainer: module:Class nor train: [command] is given")
    if problems:
        raise RunnerError(f"{path}: {'; '.join(problems)}")
    return Project(
        name=name,
        folder=folder,
        base=base,
        dataset=dataset,
        trainer=None if trainer is None else str(trainer),
        commands=commands,
        text=path.read_bytes(),
        description=str(raw.get("description") or ""),
    )


def trainer_commands(trainer: str) -> dict[str, tuple[str, ...]]:
    """The commands of a project whose code is a Trainer class, given as module:Class."""
    python = ("python", "-m", "runner.training")
    return {
        "train": (*python, "train", trainer),
        "resume": (*python, "resume", trainer),
        "evaluate": (*python, "evaluate", trainer, "--split", "{split}", "--checkpoint", "{checkpoint}"),
    }


def experiment_names(project: Project) -> list[str]:
    """The experiments in its configs/."""
    return sorted(path.stem for path in project.configs.glob("*.yml"))


def experiment_path(project: Project, name: str) -> Path:
    """The file of an experiment, by its name (with or without .yml) or by its path inside the project's configs/.

    Raises:
        RunnerError: there is none; the nearest name and the list are given.
    """
    stem = Path(name).name if Path(name).parent == project.configs else name
    stem = stem.removesuffix(".yml").removesuffix(".yaml")
    check_name("CONFIG", stem)
    path = project.configs / f"{stem}.yml"
    if not path.is_file():
        raise unknown("CONFIG", stem, experiment_names(project))
    return path


def render(template: tuple[str, ...], values: Mapping[str, Any]) -> tuple[str, ...]:
    """An argv from its template: `{key}` and `{a.b}` are replaced by the config's values, word by word, never split again.

    Raises:
        RunnerError: a placeholder that no key answers.
    """

    def value_of(match: re.Match[str]) -> str:
        value: Any = values
        for part in match[1].split("."):
            if not isinstance(value, Mapping) or part not in value:
                raise RunnerError(f"project.yml: {{{match[1]}}} in {' '.join(template)!r} is no key of the config")
            value = value[part]
        if isinstance(value, bool):
            return "true" if value else "false"
        return "" if value is None else str(value)

    return tuple(_PLACEHOLDER.sub(value_of, word) for word in template)
