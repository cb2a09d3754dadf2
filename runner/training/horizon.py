"""Does the learning rate depend on where the training ends? A cosine to 100 extended to 200 is another run."""

import warnings
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from runner.training.trainer import Trainer


def rates_differ(trainer: "Trainer", old_config: Any, n_steps: int) -> int | None:
    """The first of `n_steps` steps whose learning rates differ between the old config and the trainer's; None if none.

    It asks the scheduler itself: one is made under each config and stepped to the end.
    """
    config, optimiser, scheduler = trainer.config, trainer.optimiser, trainer.scheduler
    if scheduler is None or isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        return None
    try:
        before = _rates(trainer, old_config, n_steps)
        after = _rates(trainer, config, n_steps)
    finally:
        trainer.config, trainer.optimiser, trainer.scheduler = config, optimiser, scheduler
    return next((step for step, (a, b) in enumerate(zip(before, after, strict=True), 1) if a != b), None)


def _rates(trainer: "Trainer", config: Any, n_steps: int) -> list[list[float]]:
    """The learning rates of the first steps, all parameter groups."""
    trainer.config = config
    trainer.create_optimiser()
    trainer.create_scheduler()
    per_epoch = trainer.schedule.steps_per_epoch or 1
    rates = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        for step in range(1, n_steps + 1):
            rates.append([float(group["lr"]) for group in trainer.optimiser.param_groups])
            if trainer.settings.scheduler_unit == "step" or step % per_epoch == 0:
                trainer.scheduler.step()
    return rates
