"""One optimiser step: what `train_step` does, and what is asked of one that a project writes instead."""

import contextlib
import time
from typing import Any

import torch
from torch import nn

from runner.contract.errors import RunnerError
from runner.contract.trainer_keys import DEFAULTS
from runner.training.data import Batch, Feed, Fetched
from runner.training.distributed import Processes
from runner.training.hooks import Hooks
from runner.training.progress import Progress
from runner.training.split import quiet
from runner.training.update import Update, clear_gradients, take_step
from runner.training.watch import Clock, LossWatch

PARTS_OF_A_STEP = ("precision", "accumulate", "clip_norm", "ema")
"""Config keys that only `Steps.train_step` carries out."""


class Steps(Hooks):
    """The part of the Trainer that fetches, computes and updates."""

    processes: Processes
    progress: Progress
    clock: Clock
    feed: Feed
    update: Update
    bare_model: nn.Module
    _watch: LossWatch
    _simple: bool
    _fetched: Fetched | None = None
    _batch: Batch = None
    """What was fetched last, on the device."""
    _made_step = 0
    """The last step that `Steps.train_step` made."""
    _seen: tuple[Batch, Any] | None = None
    """The last batch of the step that it made, and the model's output for it."""
    _applied = True

    def train_step(self) -> Any:
        """One optimiser step, on the next batch or the next `accumulate` of them. Returns the loss.

        A project may write its own: it fetches with `_get_next_batch` and returns the loss.
        """
        self._made_step = self.global_step
        if not self._simple:
            return self._careful_step()
        batch = self._get_next_batch()
        output = self.forward_model(batch)
        loss = self.forward_loss(batch, output)
        self._watch.see(self.global_step, loss)
        clear_gradients(self.optimiser)
        loss.backward()
        take_step(self.optimiser)
        self._seen = batch, output
        return loss

    def _careful_step(self) -> Any:
        """A step with everything: accumulation, precision, clipping, moving average, several processes.

        Each batch weighs by its examples. A stream cannot say how many are to come: there every batch is expected to be
        as large as the first, and what was not so is put right at the end.
        """
        update, world, step = self.update, self.processes.world, self.global_step
        clear_gradients(self.optimiser)
        total: Any = 0.0
        n_batches, known = self._group()
        expected, seen = known or 0, 0
        for left in reversed(range(n_batches)):
            batch = self._get_next_batch()
            fetched = self._fetched
            assert fetched is not None
            expected = expected or n_batches * fetched.n_examples
            with self.model.no_sync() if world > 1 and left else contextlib.nullcontext():
                with update.autocast():
                    output = self.forward_model(batch)
                    loss = self.forward_loss(batch, output)
                weight = fetched.n_examples * world / expected
                if weight != 1:
                    loss = loss * weight
                self._watch.see(step, loss)
                update.backward(loss)
            total = total + loss.detach()
            seen += fetched.n_examples
            if known is None and fetched.last:
                break
        if known is None and seen != expected:
            total = total * (expected / seen)
            update.scale_gradients(expected / seen)
        self._applied = update.apply()
        self._seen = batch, output
        return total

    def _group(self) -> tuple[int, int | None]:
        """How many batches make this step, and their examples in all processes; None where a stream cannot say."""
        progress, wanted = self.progress, self.settings.accumulate
        n_batches = self.feed.n_batches(progress.epoch)
        count = wanted if n_batches is None else max(1, min(wanted, n_batches - progress.batch))
        return count, self.feed.n_examples(progress.epoch, progress.batch, count)

    def _get_next_batch(self) -> Batch:
        """The next batch, on the device; counts it and the time it took."""
        start = time.perf_counter()
        self._fetched = fetched = self.feed.next()
        self._batch = batch = self.preprocess_batch(fetched.batch)
        progress = self.progress
        progress.examples += fetched.n_examples_of_all
        if fetched.last:
            progress.epoch, progress.batch = fetched.epoch + 1, 0
        else:
            progress.batch += 1
        self.clock.fetch_s += time.perf_counter() - start
        return batch

    # A train_step of the project's own -------------------------------------------------------------------------------

    def _loss_of_own_step(self, result: Any) -> torch.Tensor:
        """The loss that a project's train_step returned, seen by the watch unless it called ours, which saw it.

        Raises:
            RunnerError: it returned none, or leaves out what the config asks of a step.
            NotFinite: as the watch says.
        """
        loss = _as_loss(result, type(self).__name__)
        if self._made_step != self.global_step:
            self._refuse_what_it_leaves_out()
            self._watch.see(self.global_step, loss)
        return loss

    def _refuse_what_it_leaves_out(self) -> None:
        values = {name: getattr(self.settings, name) for name in PARTS_OF_A_STEP}
        left_out = [f"{name}: {value}" for name, value in values.items() if value != DEFAULTS[name]]
        if left_out:
            raise RunnerError(
                f"{type(self).__name__}.train_step makes the step itself, so {', '.join(left_out)} would do nothing; "
                "call super().train_step() in it, or leave these keys at their defaults"
            )

    def _look_again(self) -> tuple[Batch, Any]:
        """What a project's own step was made on, and the model's output for it now; metrics and visualise see them."""
        if self._batch is None:
            raise RunnerError(f"{type(self).__name__}.train_step fetched no batch; fetch with self._get_next_batch()")
        with quiet(self):
            return self._batch, self.forward_model(self._batch)


def _as_loss(result: Any, name: str) -> torch.Tensor:
    if isinstance(result, torch.Tensor) and result.numel() == 1:
        return result.detach().reshape(())
    if isinstance(result, int | float):
        return torch.tensor(float(result))
    found = f"a tensor of shape {tuple(result.shape)}" if isinstance(result, torch.Tensor) else type(result).__name__
    raise RunnerError(f"{name}.train_step must return the loss, a number or a tensor with one; it returned {found}")
