"""All scheduling in one place: when to log, validate, save and stop, and which score is the best."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runner.contract.errors import RunnerError
from runner.training.settings import Settings

NEVER = 1 << 62


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Every frequency, converted to optimiser steps."""

    n_iterations: int
    print_every: int
    metric_every: int
    val_every: int
    vis_every: int
    checkpoint_every: int
    steps_per_epoch: int | None
    """None where the data set has no length."""

    @classmethod
    def of(cls, settings: Settings, steps_per_epoch: int | None) -> "Schedule":
        """Convert epochs to steps, rounded to the nearest step and never below one."""

        def steps(name: str, iterations: int | None, epochs: float | None) -> int | None:
            if epochs is None:
                return iterations
            if steps_per_epoch is None:
                raise RunnerError(
                    f"{name}: in epochs, but the data set has no length; give it __len__, or use steps instead"
                )
            return max(1, round(epochs * steps_per_epoch)) if epochs else 0

        n_iterations = steps("n_epochs", settings.n_iterations, settings.n_epochs)
        assert n_iterations is not None
        val = steps("val_epochs", settings.val_iterations, settings.val_epochs) or steps_per_epoch or n_iterations or 1
        return cls(
            n_iterations=n_iterations,
            print_every=settings.print_iterations,
            metric_every=settings.metric_iterations,
            val_every=val,
            vis_every=steps("vis_epochs", settings.vis_iterations, settings.vis_epochs) or val,
            checkpoint_every=steps("checkpoint_epochs", settings.checkpoint_iterations, settings.checkpoint_epochs)
            or val,
            steps_per_epoch=steps_per_epoch,
        )

    def prints(self, step: int) -> bool:
        """Whether the loss of `step` is logged."""
        return step % self.print_every == 0 or step == self.n_iterations

    def counts(self, step: int) -> bool:
        """Whether the batch of `step` counts in the train score; the one before a validation always does."""
        return step % self.metric_every == 0 or self.validates(step)

    def visualises(self, step: int) -> bool:
        """Whether the batch of `step` is visualised."""
        return step % self.vis_every == 0

    def validates(self, step: int) -> bool:
        """Whether a validation follows `step`: also after the last one, so that no tail is dropped."""
        return step % self.val_every == 0 or step == self.n_iterations

    def saves(self, step: int) -> bool:
        """Whether a checkpoint follows `step`."""
        return step % self.checkpoint_every == 0 or step == self.n_iterations

    def next_busy(self, step: int) -> int:
        """The first step after `step` on which anything at all is due besides training."""
        frequencies = (self.print_every, self.metric_every, self.val_every, self.vis_every, self.checkpoint_every)
        return min(self.n_iterations, *((step // every + 1) * every for every in frequencies))

    def in_epochs(self, step: int) -> str:
        """`step`, shown back in epochs too where that is known."""
        return f"{step}" if not self.steps_per_epoch else f"{step} ({step / self.steps_per_epoch:.4g} epochs)"


class Monitor:
    """The best score so far, and whether there is still hope for a better one."""

    def __init__(self, *, name: str | None, direction: str | None, patience: int | None) -> None:
        self.name = name
        """Which score; None until the first validation tells the metrics' first."""
        self._direction = direction
        self.patience = patience
        self.best_score: float = -math.inf
        self.best_step: int | None = None
        self.last_score: float | None = None
        self.n_without_better = 0
        self.n_validations = 0
        if name == "loss" or direction == "min":
            self.best_score = math.inf if self.direction == "min" else -math.inf

    @property
    def direction(self) -> str:
        """max or min."""
        return self._direction or ("min" if self.name == "loss" else "max")

    def settle(self, scores: dict[str, float]) -> float:
        """The score that counts, of all that a validation gave.

        Raises:
            RunnerError: the config names a score that the metrics do not give.
        """
        if self.name is None:
            self.name = next((name for name in scores if name != "loss"), "loss")
            if self.best_step is None:
                self.best_score = math.inf if self.direction == "min" else -math.inf
        if self.name not in scores:
            raise RunnerError(f"score: {self.name!r} is not among the scores of the validation ({', '.join(scores)})")
        return scores[self.name]

    def judge(self, score: float, step: int) -> bool:
        """Take note of a validation's score; True if it is the best so far. NaN never is. Equal is not better."""
        better: Callable[[float, float], bool] = (
            (lambda a, b: a < b) if self.direction == "min" else (lambda a, b: a > b)
        )
        self.n_validations += 1
        self.last_score = score if math.isfinite(score) else None
        if not math.isnan(score) and (self.best_step is None or better(score, self.best_score)):
            self.best_score, self.best_step, self.n_without_better = score, step, 0
            return True
        self.n_without_better += 1
        return False

    @property
    def hopeless(self) -> bool:
        """Whether patience has run out."""
        return self.patience is not None and self.n_without_better >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run must know."""
        return {
            "name": self.name,
            "best_score": self.best_score,
            "best_step": self.best_step,
            "last_score": self.last_score,
            "n_without_better": self.n_without_better,
            "n_validations": self.n_validations,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        for name, value in state.items():
            setattr(self, name, value)
