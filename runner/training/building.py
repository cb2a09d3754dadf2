"""Make a project's Trainer for its model and data alone: nothing is written, trained, or drawn from the process's
random numbers; data are read when they are first asked for."""

from typing import Any

import torch

from runner.contract.config import Config
from runner.contract.errors import RunnerError
from runner.training.hooks import check_set
from runner.training.places import launch_view
from runner.training.seeding import undisturbed
from runner.training.session import Session
from runner.training.trainer import Trainer

DATA = ("train_dataset", "val_dataset", "test_dataset", "train_dataloader", "val_dataloader", "test_dataloader")


def build(cls: type[Trainer], config: Config) -> Any:
    """A `cls` with a new model on its device, in evaluation mode; the rest of a training is not made.

    Raises:
        RunnerError: the project's create_model fails, or sets no model.
    """
    with undisturbed(torch.device("cpu")), launch_view(config):
        trainer: Any = _only_model(cls)(config, session=Session.none())
    return trainer


def load_weights(trainer: Any, state: dict[str, Any], *, averaged: bool = True) -> None:
    """Put a checkpoint's weights into the model: the moving average where there is one, as evaluations do."""
    weights = state["ema"] if averaged and state.get("ema") else state["model"]
    trainer.bare_model.load_state_dict(weights)
    trainer.global_step = int(state["progress"]["step"])


class _OnDemand:
    """One of the Trainer's data attributes: reading it before it is set calls create_data."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, trainer: Any, owner: type | None = None) -> Any:
        if trainer is None:
            return None
        make_data(trainer)
        return vars(trainer).get(self._name)


def make_data(trainer: Any) -> None:
    """Call create_data, once."""
    if "_data_is_made" in vars(trainer):
        return
    trainer._data_is_made = True
    try:
        with undisturbed(torch.device("cpu")), launch_view(trainer.config):
            trainer.create_data()
    except KeyError as error:
        if error.args != ("DATASETS_DIR",):
            raise
        raise RunnerError(
            "the data are not known here: set DATASETS_ROOT, or work below a folder with a runner.yml"
        ) from None


def _only_model(cls: type[Trainer]) -> type[Trainer]:
    """`cls` with a constructor that stops after the model."""

    def _create(self: Any) -> None:
        self.create_model()
        check_set(self, "create_model", "model")
        layout: Any = {"memory_format": torch.channels_last} if self.settings.channels_last else {}
        self.model.to(self.device, **layout)
        self.model.eval()

    def _assemble(self: Any) -> None:
        self.bare_model = self.model

    def __getattr__(self: Any, name: str) -> Any:
        """What create_data sets besides, where create_model asks for it."""
        if name.startswith("_") or "_data_is_made" in vars(self):
            raise AttributeError(f"{cls.__name__} has no {name!r}; neither create_data nor create_model sets it")
        make_data(self)
        return getattr(self, name)

    names = {name: _OnDemand() for name in DATA}
    methods = {"_create": _create, "_assemble": _assemble, "__getattr__": __getattr__}
    return type(cls.__name__, (cls,), {**names, **methods, "__module__": cls.__module__, "__doc__": cls.__doc__})
