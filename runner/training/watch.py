"""The loss, looked at without making a GPU wait; and the time, where it goes."""

import math
import time

import torch


class NotFinite(Exception):
    """The loss became NaN or infinite."""

    def __init__(self, step: int, value: float) -> None:
        super().__init__(f"step {step}: the loss is {value}")
        self.step, self.value = step, value


class LossWatch:
    """Sees every loss. `at_once` (on the CPU) a bad one is noticed before it reaches the weights; on a GPU, where looking
    would make every step wait, the losses are kept there and looked at when one is logged, validated or saved."""

    def __init__(self, device: torch.device, *, stop: bool, length: int, at_once: bool) -> None:
        self._stop, self._at_once = stop, at_once
        self._history = None if at_once or not stop else torch.zeros(length, device=device)
        self._steps: list[int] = []
        """Of the losses that were kept; several where a step has several batches."""

    def see(self, step: int, loss: torch.Tensor) -> None:
        """Take note of a loss of `step`.

        Raises:
            NotFinite: it is NaN or infinite; where losses are kept, only `check` says so.
        """
        if not self._stop:
            return
        if self._at_once:
            value = loss.item()
            if value - value != 0.0:
                raise NotFinite(step, value)
        elif self._history is not None:
            if len(self._steps) == len(self._history):
                self.check()
            self._history[len(self._steps)].copy_(loss.detach())
            self._steps.append(step)

    def check(self) -> None:
        """Look at what was kept.

        Raises:
            NotFinite: names the first step whose loss was not finite.
        """
        if self._history is None or not self._steps:
            return
        steps, self._steps = self._steps, []
        for step, value in zip(steps, self._history[: len(steps)].tolist(), strict=True):
            if not math.isfinite(value):
                raise NotFinite(step, value)


class Clock:
    """Where the time goes, in all and since the last log."""

    def __init__(self) -> None:
        self.fetch_s = 0.0
        """Waited for data since the last log."""
        self.start(0, 0, 0.0)

    def start(self, step: int, examples: int, elapsed_s: float) -> None:
        """Begin an attempt after `step` steps and `examples` examples, `elapsed_s` after the first attempt began."""
        self._before_s = elapsed_s
        self._start = time.perf_counter()
        self._steps_at_start = step
        self.skip(step, examples)

    @property
    def elapsed_s(self) -> float:
        """Of all attempts together."""
        return self._before_s + time.perf_counter() - self._start

    def left_s(self, step: int, n_iterations: int) -> float:
        """At the pace of this attempt."""
        done = step - self._steps_at_start
        return (n_iterations - step) * (time.perf_counter() - self._start) / done if done else 0.0

    def interval(self, step: int, examples: int) -> tuple[float, float, float]:
        """Examples a second, fetch time and update time of a step, since the last call; then count anew.

        The caller has just read a loss, so that everything a GPU was asked for is done.
        """
        seconds, steps = max(time.perf_counter() - self._mark, 1e-9), max(1, step - self._steps_at_mark)
        rates = (
            (examples - self._examples_at_mark) / seconds,
            self.fetch_s / steps,
            max(0.0, seconds - self.fetch_s) / steps,
        )
        self.skip(step, examples)
        return rates

    def skip(self, step: int, examples: int) -> None:
        """Count anew from now: a validation is no part of the training's pace."""
        self._mark, self._steps_at_mark, self._examples_at_mark = time.perf_counter(), step, examples
        self.fetch_s = 0.0
