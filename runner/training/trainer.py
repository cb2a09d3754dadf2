"""The training loop, written once. A project inherits from `Trainer` and writes its data, model, loss and metrics."""

import contextlib
import math
from typing import Any, NoReturn

import torch

from runner.contract.config import snapshot
from runner.contract.errors import RunnerError
from runner.training import text
from runner.training.aside import Aside
from runner.training.assembly import Assembly
from runner.training.distributed import SharedStop
from runner.training.ending import finish
from runner.training.hooks import check_written
from runner.training.horizon import not_counted
from runner.training.interrupts import Interrupted, Interrupts
from runner.training.logger import hyperparameter_lines, stack_lines
from runner.training.metrics import scores_of
from runner.training.monitor import Monitor
from runner.training.placement import place
from runner.training.pretrained import start_from
from runner.training.profiling import Profile
from runner.training.progress import Progress
from runner.training.seeding import deterministic, rng_state, seed_everything
from runner.training.session import Session, read_config
from runner.training.settings import Settings, check_builtin
from runner.training.split import evaluate_split, show
from runner.training.trainer_state import facts_of, save_not_finite, state_of
from runner.training.watch import Clock, NotFinite


class Trainer(Assembly):
    """Everything about training that is not research.

    The loop, as it runs:

        create_data, create_model, create_loss, create_optimiser, create_scheduler, create_metrics
        while step < n_iterations:
            step += 1
            batch = preprocess_batch(the next batch)          seeded by (seed, epoch, batch)
            loss = forward_loss(batch, forward_model(batch))
            zero_grad, backward, optimiser step, scheduler step
            every metric_iterations:  update_metrics(train_metrics, batch, output)
            every vis_iterations:     visualise(batch, output, 'train')
            every print_iterations:   log the loss
            every val_iterations:     validate: val loss, scores, best, patience
            every checkpoint_iterations, and when the score is the best: save
        evaluate the best checkpoint on the test set, if there is one; summary
    """

    def __init__(self, config: Any, *, session: Session | None = None) -> None:
        check_written(self, Trainer)
        self.config = read_config(config)
        with not_counted(self.config):
            self.settings = settings = Settings.from_config(self.config)
        check_builtin(self.config)
        self.device, self.processes = place(self.config, settings)
        self.session = session or Session.of_launch_or_new(self.config, first=self.processes.first)
        self.session_name = self.session.name
        self.logger = self._make_logger(None)
        self.progress = Progress()
        self.monitor = Monitor(name=settings.score, direction=settings.score_direction, patience=settings.patience)
        self.global_step = 0
        self.clock = Clock()
        self.elapsed_s = 0.0
        """Seconds that earlier attempts took."""
        self.registered: dict[str, Any] = {}
        self.aside = Aside()
        self.interrupts = Interrupts()
        seed_everything(self.config.seed)
        with deterministic(settings.deterministic):
            self._create()
            self._assemble()

    @property
    def tensorboard(self) -> Any:
        """torch's SummaryWriter interface; `train/…` goes to tensorboard/train, `val/…` to tensorboard/val."""
        return self.logger.board

    @property
    def best_score(self) -> float:
        """The best score so far; -inf (inf, where less is better) before the first."""
        return self.monitor.best_score

    @property
    def epoch(self) -> int:
        """The epoch of the batch that was read last, counted from 1."""
        return (self.epoch_before if self._fetched is None else self._fetched.epoch) + 1

    def register_state(self, name: str, thing: Any) -> None:
        """Save and restore `thing` (it has state_dict and load_state_dict) with the rest."""
        self.registered[name] = thing

    # Training --------------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train to the end, from wherever the progress stands.

        Raises:
            Interrupted: SIGINT or SIGTERM came; the state after the step under way is saved.
            RunnerError: the loss is not finite, or the last checkpoint could not be written.
        """
        paths = self.session.paths
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._logged())
            stack.enter_context(deterministic(self.settings.deterministic))
            stack.enter_context(self.interrupts)
            self._profile = stack.enter_context(
                Profile(self.settings.profile, paths.debug if paths and self.processes.first else None, self.logger.say)
            )
            stack.callback(self._close)
            try:
                self._begin()
                self._loop()
                self._wait_for_save()
                finish(self)
            except NotFinite as error:
                raise RunnerError(save_not_finite(self, error)) from None

    def resume(self, *, force: bool = False) -> int:
        """Put everything back to the newest valid checkpoint of this run; the step it is from, 0 where there is none.

        Raises:
            RunnerError: the config has changed in what may not change (unless forced), or every checkpoint is damaged.
        """
        from runner.training.resuming import resume

        with self._logged():
            return resume(self, force=force)

    def _rewind_logs(self, step: int) -> None:
        """Forget what was logged after `step`."""
        self.logger.close()
        self.logger = self._make_logger(step + 1)
        self.logger.rewind(step)

    def _begin(self) -> None:
        say, progress = self.logger.say, self.progress
        say("Starting training session.." if not progress.step else f"Continuing after step {progress.step}..")
        say(stack_lines(self.device, deterministic=self.settings.deterministic, processes=self.processes.world))
        say(
            f"Session: {self.session_name or 'nothing is written'}\nConfig:\n{hyperparameter_lines(snapshot(self.config))}\n"
        )
        if not progress.step and getattr(self.config, "init_from", None) is not None:
            start_from(self, self.config.init_from)
        self._stop = SharedStop(self.processes)
        self.model.train()
        self.global_step = progress.step
        self._busy_at = self.schedule.next_busy(progress.step)
        self.feed.start(progress.epoch, progress.batch)
        if self._saver is not None:
            self._saver.prepare(state_of(self, [rng_state(self.device)]))
        self.clock.start(progress.step, progress.examples, self.elapsed_s)

    def _loop(self) -> None:
        progress, n_iterations = self.progress, self.schedule.n_iterations
        if progress.step:
            self._periodic(progress.step, resumed=True)
        while progress.step < n_iterations and not self.monitor.hopeless:
            self.global_step += 1
            loss = self.train_step()
            if self._own_step:
                loss = self._loss_of_own_step(loss)
            if self.global_step >= self._busy_at:
                self._observe(loss)
            self._seen = None
            self._complete_step()

    def _observe(self, loss: torch.Tensor) -> None:
        """What is due on this step's batch: count it, show it, log it."""
        step, schedule = self.global_step, self.schedule
        counts, shows = schedule.counts(step), schedule.visualises(step) and self.processes.first
        if counts or shows:
            batch, output = self._seen or self._look_again()
            with torch.no_grad():
                if counts:
                    self.update_metrics(self.train_metrics, batch, output)
                if shows:
                    show(self, batch, output, "train")
        if schedule.prints(step):
            self.print_log(loss)

    def print_log(self, loss: Any) -> None:
        """Log the loss of this step."""
        step, n_iterations, clock = self.global_step, self.schedule.n_iterations, self.clock
        value = self.processes.mean(float(loss.detach()))
        self._watch.check()
        examples_per_s, fetch_s, update_s = clock.interval(step, self.progress.examples)
        self.logger.say(
            text.training_block(
                step=step,
                n_iterations=n_iterations,
                examples_per_s=examples_per_s,
                loss=value,
                elapsed_s=clock.elapsed_s,
                left_s=clock.left_s(step, n_iterations),
                fetch_s=fetch_s,
                update_s=update_s,
            )
        )
        rate = float(self.optimiser.param_groups[0]["lr"])
        self.logger.record(step, self.epoch, "train", {"loss": value, "learning_rate": rate})

    def _complete_step(self) -> None:
        step = self.progress.step = self.global_step
        if self.scheduler is not None:
            self._step_scheduler()
        if self._profile.on:
            self._profile.step()
        stop = self.interrupts.requested
        if self.processes.world > 1:
            stop = self._stop.agreed(stop)
        if stop is not None:
            self._interrupt(stop)
        if step >= self._busy_at:
            self._periodic(step)
            self._busy_at = self.schedule.next_busy(step)

    def _step_scheduler(self) -> None:
        due = self.settings.scheduler_unit == "step" or (self._fetched is not None and self._fetched.last)
        if due and self._applied and not self._on_plateau:
            self.scheduler.step()

    @property
    def _on_plateau(self) -> bool:
        return isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)

    def _periodic(self, step: int, *, resumed: bool = False) -> None:
        """Validation and checkpoint, if due after `step`. After a resume, only a validation that was cut short."""
        is_best = validated = False
        if self.schedule.validates(step) and self.progress.validated_step != step:
            self.validate()
            validated, is_best = True, self.monitor.best_step == step
            self.clock.skip(step, self.progress.examples)
        if (
            is_best
            or (self.schedule.saves(step) and (validated or not resumed))
            or (validated and self.monitor.hopeless)
        ):
            self.save_checkpoint()
        elif validated:
            self.logger.say(f"{text.LINE}\n")

    def validate(self) -> float:
        """Evaluate on the validation set, tell the monitor, return the score. The training's random numbers stay as they are."""
        step, say, monitor = self.global_step, self.logger.say, self.monitor
        self._watch.check()
        say(text.heading("Validation"))
        try:
            scores = self.processes.agree(evaluate_split(self, self.val_dataloader, self.val_metrics, "val"))
        except Interrupted as request:
            self._interrupt(request.number)
        train_scores = scores_of(self.train_metrics, step)
        self.train_metrics.reset()
        self.progress.validated_step = step
        score, best_before = monitor.settle(scores), monitor.best_score
        say(f"Val loss: {scores['loss']:.4f}\n{text.heading('Metrics')}")
        if monitor.name in train_scores:
            say(text.score_line("Train score", train_scores[monitor.name]))
        say(text.score_line("Val score", score))
        for name, value in scores.items():
            if not math.isfinite(value):
                say(f"WARNING: step {step}: the validation's {name} is {value}")
        self.logger.record(step, self.epoch, "train", train_scores)
        self.logger.record(step, self.epoch, "val", scores)
        if monitor.judge(score, step):
            say(text.best_line(best_before, score))
        elif monitor.patience is not None:
            say(f"Early Stopping Counter: {monitor.n_without_better}/{monitor.patience}")
        if self._on_plateau:
            self.scheduler.step(score)
        return score

    def save_checkpoint(self) -> None:
        """Save the state as it stands; returns as soon as the training may go on.

        Raises:
            NotFinite: a loss that was not looked at yet was not finite, so that the weights are spoilt.
        """
        self._watch.check()
        rngs = self.processes.gather(rng_state(self.device))
        if self._saver is not None and self.store is not None:
            self._saver.save(state_of(self, rngs), facts_of(self), best_step=self.monitor.best_step)
            self.logger.say(f"Model saved to: {self.store.path(self.progress.step)}\n{text.LINE}\n")

    # The end ---------------------------------------------------------------------------------------------------------

    def _interrupt(self, number: int) -> NoReturn:
        """Save and stop, as a signal asked."""
        self.logger.say(f"Stopping after step {self.progress.step}, as signal {number} asks..")
        self.save_checkpoint()
        self._wait_for_save()
        raise Interrupted(number)

    def _wait_for_save(self) -> None:
        if self._saver is not None:
            try:
                self._saver.wait()
            except OSError as error:
                problem = f"{error.filename}: the last checkpoint could not be written ({error.strerror})"
                raise RunnerError(f"{problem}; free space and resume") from None
        self.processes.wait()

    def _close(self) -> None:
        """Whatever happened: end the workers and threads, write the rest."""
        self.feed.close()
        if self._saver is not None:
            self._saver.close()
        self.logger.close()
