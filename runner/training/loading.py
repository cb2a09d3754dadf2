"""`load_run`: a run's config, data and trained model in a notebook or a script, from its folder alone.

The code is the run's own (inputs/source.tar), whatever became of the place it was written in. Only reads the folder.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import runner
from runner.contract import catalogue, checkpoints
from runner.contract import config as configs
from runner.contract.config import Config, load_config, snapshot
from runner.contract.errors import RunnerError
from runner.contract.layout import LaunchPaths, RunPaths
from runner.contract.records import Manifest, load_record
from runner.contract.yaml12 import load_mapping
from runner.training.building import DATA, build, load_weights, make_data
from runner.training.checkpoints import CheckpointStore, Saved
from runner.training.places import root_of
from runner.training.snapshot import source_folder, tree_id
from runner.training.tree_import import Tree, tree_at


class RunnerDiffers(UserWarning):
    """The installed runner is not the one that the run was made with."""


def load_run(
    run: str | Path,
    checkpoint: str | int = "best",
    *,
    overrides: Mapping[str, Any] | None = None,
    weights_only: bool = False,
    isolated: bool = False,
    project: str | None = None,
    root: Path | str | None = None,
) -> "LoadedRun":
    """The run that RUN= would mean (a path, a session name, a part of one, latest, <tag>/<n>), ready to use.

    `checkpoint` is best, latest or a step. `overrides` are config values by dotted name, `{"batch_size": 1}`. With
    `weights_only` no code of the run is executed: there is a config and a state, no model. With `isolated` the model
    lives in a process of its own, with the run's own runner too. `root` is the checkpoints root.

    Raises:
        RunnerError: no such run or checkpoint, a damaged file, an unknown override.
    """
    path = Path(run).expanduser()
    if path.is_dir() and (isinstance(run, Path) or (path / "attempts").is_dir()):
        folder = path.resolve()
    else:
        folder = catalogue.find_run(Path(root or root_of("checkpoints")), str(run), project=project).folder
    loaded = LoadedRun(RunPaths(folder), checkpoint, dict(overrides or {}), isolated=isolated)
    if weights_only:
        loaded.forbid("it was loaded with weights_only=True")
    elif loaded.trainer_name is not None:
        loaded.model  # noqa: B018  what cannot work fails here, not at the first use
    return loaded


class LoadedRun:
    """One run. `data, model, restore = load_run(…)` works too."""

    def __init__(
        self, paths: RunPaths, checkpoint: str | int, overrides: Mapping[str, Any], *, isolated: bool = False
    ) -> None:
        self.paths = paths
        self.folder = paths.folder
        self.name = paths.folder.name
        self.config: Config = _config(paths, overrides)
        """Resolved, with the overrides."""
        self.checkpoint = checkpoints.find_checkpoint(paths.checkpoints, str(checkpoint))
        """The file that was asked for; None in a run that has none."""
        self._isolated = isolated
        self._no_code: str | None = None

    def __iter__(self) -> Iterator[Any]:
        return iter((self.data, self.model, self.restore))

    def __repr__(self) -> str:
        return f"<run {self.name}, {self.checkpoint.name if self.checkpoint else 'no checkpoint'}>"

    @cached_property
    def manifest(self) -> Manifest:
        """What the run was made of."""
        path = self.paths.attempt(1).manifest
        if not path.is_file():
            raise RunnerError(
                f"{self.folder}: was trained outside a launch, so its code is not kept; weights_only=True reads its state"
            )
        return load_record(Manifest, path)

    @cached_property
    def saved(self) -> Saved:
        """The checkpoint: its path, the whole state, the facts of its sidecar. Every byte is checked."""
        return self._read(self.checkpoint)

    @property
    def state(self) -> dict[str, Any]:
        """Everything that the checkpoint holds; tensors and plain values, read without executing any code."""
        return self.saved.state

    @property
    def weights(self) -> dict[str, Any]:
        """The model's tensors by name; the moving average where there is one, as evaluations use it."""
        averaged: dict[str, Any] | None = self.state.get("ema")
        return averaged or dict(self.state["model"])

    @property
    def step(self) -> int:
        """How long the loaded weights were trained, in optimiser steps."""
        return int(self.state["progress"]["step"])

    @cached_property
    def source(self) -> Path:
        """The run's code as files. Read-only by agreement: what is changed there is unpacked anew next time."""
        record = self.manifest.source
        if record is None:
            raise RunnerError(f"{self.name}: its manifest names no source")
        return source_folder(self.paths.inputs / "source.tar", record.tree)

    @property
    def trainer_name(self) -> str | None:
        """module:Class of the project's Trainer; None for a project that has commands instead."""
        path = self.paths.inputs / "project.yml"
        value = load_mapping(path).get("trainer") if path.is_file() else None
        return None if value is None else str(value)

    def module(self, name: str) -> ModuleType:
        """A module of the run's code: `run.module("projects.cifar.model")`. For any framework."""
        return self._tree.import_module(name)

    @cached_property
    def trainer(self) -> Any:
        """The project's Trainer, for forward_model, forward_loss, preprocess_batch, predict …; it cannot train."""
        module_name, _, class_name = self._trainer_name().partition(":")
        trainer = build(getattr(self.module(module_name), class_name), self.config)
        if self.checkpoint is not None:
            load_weights(trainer, self.state)
        return trainer

    @cached_property
    def model(self) -> Any:
        """The model with its weights restored, in evaluation mode, on the device that `gpu` names."""
        if self._isolated:
            from runner.training.isolated import IsolatedModel

            self._trainer_name()
            return IsolatedModel(self.source, self._trainer_name(), self.config, self.checkpoint)
        return self.trainer.model

    @cached_property
    def data(self) -> "RunData":
        """The Trainer's data sets and loaders, under its own names; read when first asked for."""
        if self._isolated:
            raise RunnerError(f"{self.name}: isolated=True keeps its data in the other process; load it without")
        return RunData(self.trainer)

    @property
    def restore(self) -> Callable[..., int]:
        """`run.restore("latest")`: put another checkpoint's weights into the model; the step they are from."""
        return self._restore

    def _restore(self, checkpoint: str | int = "best", *, averaged: bool = True) -> int:
        path = checkpoints.find_checkpoint(self.paths.checkpoints, str(checkpoint))
        saved = self._read(path)
        if self._isolated:
            self.model.restore(saved.path, averaged=averaged)
        else:
            load_weights(self.trainer, saved.state, averaged=averaged)
        self.checkpoint = path
        self.__dict__["saved"] = saved
        return self.step

    def forbid(self, reason: str) -> None:
        """Execute none of the run's code from now on."""
        self._no_code = reason

    @cached_property
    def _tree(self) -> Tree:
        self._check_allowed()
        record = self.manifest.source
        assert record is not None
        tree = tree_at(self.source, record.tree)
        different = _different_parts(self.source / "runner", Path(runner.__file__).parent)
        if different:
            warnings.warn(
                f"{self.name} was made with another {' and '.join(different)} than the one installed here; if it behaves "
                "differently, load_run(…, isolated=True) uses the run's own",
                RunnerDiffers,
                stacklevel=_outside(),
            )
        return tree

    def _trainer_name(self) -> str:
        self._check_allowed()
        name = self.trainer_name
        if name is None:
            raise RunnerError(
                f"{self.name}: its project has no trainer: in project.yml; .config, .checkpoint (a path) and "
                ".module(name) are there for any framework"
            )
        return name

    def _check_allowed(self) -> None:
        if self._no_code is not None:
            raise RunnerError(
                f"{self.name}: {self._no_code}, which executes no code; .config, .state and .weights are there"
            )

    def _read(self, path: Path | None) -> Saved:
        if path is None:
            raise RunnerError(f"{self.name}: has no checkpoint in {self.paths.checkpoints}")
        return CheckpointStore(path.parent, keep_last=1, keep_every=None).read(path)


class RunData:
    """train_dataset, val_dataset, test_dataset and the loaders of the same names, as create_data sets them."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def __getattr__(self, name: str) -> Any:
        if name not in DATA:
            raise AttributeError(f"the data of a run are {', '.join(DATA)}; not {name!r}")
        make_data(self._trainer)
        return getattr(self._trainer, name)

    def __dir__(self) -> list[str]:
        return list(DATA)


def _config(paths: RunPaths, overrides: Mapping[str, Any]) -> Config:
    """The resolved config of the last attempt with other values; keys and types are checked as SET= is."""
    entry = catalogue.read_entry(paths.folder)
    launch = LaunchPaths(entry.launch) if entry is not None else None
    if launch is not None and launch.config_json.is_file():
        values = snapshot(load_config(launch.config_json))
    else:
        values = dict(load_mapping(paths.config_yml))
    values["gpu"] = "auto"
    nested: dict[str, Any] = {}
    for dotted, value in overrides.items():
        *sections, key = dotted.split(".")
        inner = nested
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[key] = value
    return configs.resolve(values, nested, tag=values.get("tag", ""), dataset=values.get("dataset"))


def _different_parts(theirs: Path, ours: Path) -> list[str]:
    """The packages that a model's code may use and that differ; none where the run's house had no runner of its own."""
    if not theirs.is_dir():
        return []
    ids = {name: tree_id(ours / name, ignore="__pycache__") for name in ("training", "contract")}
    return [f"runner.{name}" for name, own in ids.items() if tree_id(theirs / name) != own]


def _outside() -> int:
    """The stack level of the first caller outside this package, which a warning should point to."""
    import sys

    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and (
        frame.f_globals.get("__name__", "").startswith("runner.") or frame.f_code.co_filename.endswith("functools.py")
    ):
        level, frame = level + 1, frame.f_back
    return level
