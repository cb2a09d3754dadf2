"""Does what is computed depend on where the training ends? A cosine to 100 extended to 200 is another run."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from runner.contract.config import Config
from runner.contract.frozen_config import forget_read, was_read
from runner.contract.trainer_keys import HORIZON, ON_RESUME
from runner.training.monitor import Schedule
from runner.training.settings import Settings

if TYPE_CHECKING:
    from runner.training.trainer import Trainer

KEYS = tuple(key for key, rule in ON_RESUME.items() if rule == HORIZON)
"""The config keys that say where a training ends."""


@contextmanager
def not_counted(config: Config) -> Iterator[None]:
    """Inside, whoever reads these keys may: the Trainer itself, and what `first_difference` can ask."""
    unread = [key for key in KEYS if not was_read(config, key)]
    yield
    for key in unread:
        forget_read(config, key)


def keys_read(config: Config) -> list[str]:
    """Those of these keys that the project's code read where nobody can ask what for."""
    return [key for key in KEYS if was_read(config, key)]


def first_difference(trainer: "Trainer", old_config: Config, n_steps: int) -> tuple[int, str] | None:
    """The first of `n_steps` steps for which the old config's optimiser and the trainer's have another setting, and its
    name in the parameter groups; None if there is none.

    The project itself is asked: both optimisers are made, with their schedulers, and stepped side by side.
    """
    attributes = ("config", "settings", "schedule", "optimiser", "scheduler")
    own = {name: getattr(trainer, name) for name in attributes}
    try:
        sides = [_Side(trainer, config) for config in (old_config, own["config"])]
        for step in range(1, n_steps + 1):
            name = _different(*(side.optimiser.param_groups for side in sides))
            if name is not None:
                return step, name
            if not any([side.step(step) for side in sides]):
                return None
        return None
    finally:
        for name, value in own.items():
            setattr(trainer, name, value)


class _Side:
    """What the project makes of one config."""

    def __init__(self, trainer: "Trainer", config: Config) -> None:
        self._trainer = trainer
        settings = Settings.from_config(config)
        schedule = Schedule.of(settings, trainer.schedule.steps_per_epoch)
        self._view: dict[str, Any] = {"config": config, "settings": settings, "schedule": schedule, "scheduler": None}
        self._enter()
        trainer.create_optimiser()
        trainer.create_scheduler()
        self._view |= {"optimiser": trainer.optimiser, "scheduler": trainer.scheduler}
        self.optimiser: Any = trainer.optimiser

    def step(self, number: int) -> bool:
        """Step the scheduler, if one is due after step `number`; False if there is none that goes by steps."""
        scheduler, schedule = self._view["scheduler"], self._view["schedule"]
        if scheduler is None or isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            return False
        if self._view["settings"].scheduler_unit == "step" or number % (schedule.steps_per_epoch or 1) == 0:
            self._enter()
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
                scheduler.step()
        return True

    def _enter(self) -> None:
        """A schedule may read the config, or the trainer's schedule, whenever it is stepped."""
        for name, value in self._view.items():
            setattr(self._trainer, name, value)


def _different(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> str | None:
    if len(before) != len(after):
        return "param_groups"
    for a, b in zip(before, after, strict=True):
        for name in a.keys() | b.keys():
            if name != "params" and not _same(a.get(name), b.get(name)):
                return str(name)
    return None


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    return bool(a == b)
