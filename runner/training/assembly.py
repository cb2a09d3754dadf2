"""What stands before the first step: what the project makes, and the machinery around it."""

import contextlib
from typing import Any

import torch
from torch import nn

from runner.training.aside import Aside
from runner.training.checkpoints import CheckpointStore
from runner.training.data import Feed, make_feed
from runner.training.hooks import check_set
from runner.training.horizon import not_counted
from runner.training.logger import Logger
from runner.training.metrics import check_metrics
from runner.training.monitor import Schedule
from runner.training.saver import Saver
from runner.training.seeding import derive_seed
from runner.training.session import Session, Tee
from runner.training.spec import print_model_spec
from runner.training.step import Steps
from runner.training.transfer import Prefetcher
from runner.training.update import Update
from runner.training.watch import LossWatch

_LOSSES_KEPT = 1 << 12
"""Most losses that wait on a GPU to be looked at."""
_TRAIN = 1
"""The stream of random numbers that the training data use."""


class Assembly(Steps):
    """The part of the Trainer that is done once."""

    session: Session
    logger: Logger
    aside: Aside

    def _create(self) -> None:
        self.create_data()
        check_set(self, "create_data", "train_dataloader", "val_dataloader")
        self.create_model()
        check_set(self, "create_model", "model")
        if self.processes.first:
            print_model_spec(self.model)
        self.model.to(self.device, **({"memory_format": torch.channels_last} if self.settings.channels_last else {}))
        if self.settings.compile:
            # Module.compile leaves models of torch's own classes (a Sequential) as they are, without a word
            self.model.forward = torch.compile(self.model.forward)
        self.create_loss()
        check_set(self, "create_loss", "loss_fn")
        if isinstance(self.loss_fn, nn.Module):
            self.loss_fn.to(self.device)
        with not_counted(self.config):
            self.create_optimiser()
            check_set(self, "create_optimiser", "optimiser")
            self.create_scheduler()
        self.create_metrics()
        check_set(self, "create_metrics", "train_metrics", "val_metrics")
        for name in ("train_metrics", "val_metrics"):
            check_metrics(getattr(self, name), name)

    def _assemble(self) -> None:
        """Put the machinery around what the project made."""
        settings, processes = self.settings, self.processes
        self.bare_model = self.model
        self.update = Update(settings, self.bare_model, self.optimiser, self.device)
        self.model = processes.wrap(self.bare_model, self.device)
        self.feed = self._train_feed()
        n_batches = self.feed.n_batches(0)
        self.schedule = Schedule.of(settings, -(-n_batches // settings.accumulate) if n_batches else None)
        self._busy_at = 1
        self._watch = LossWatch(
            self.device,
            stop=settings.nan_policy == "stop",
            length=min(settings.print_iterations * settings.accumulate, _LOSSES_KEPT),
            at_once=self.device.type == "cpu",
        )
        self._own_step = type(self).train_step is not Steps.train_step
        self._simple = self.update.plain and settings.accumulate == 1 and processes.world == 1
        self.epoch_before = 0
        self.store: CheckpointStore | None = None
        self._saver: Saver | None = None
        if self.session.paths is not None and processes.first:
            folder = self.session.paths.checkpoints
            self.store = CheckpointStore(folder, keep_last=settings.keep_last, keep_every=settings.keep_every)
            self._saver = Saver(self.store, before_publish=self._sync_logs, on_failure=self._tell_failure)
        if processes.rank:
            torch.manual_seed(derive_seed(self.config.seed, processes.rank))

    def _train_feed(self) -> Feed:
        settings = self.settings
        feed = make_feed(
            self.train_dataloader,
            how=settings.loader,
            seed=derive_seed(self.config.seed, _TRAIN),
            aside=self.aside,
            endless=True,
            shard=self.processes.shard,
        )
        if self.device.type == "cuda" and settings.prefetch:
            return Prefetcher(feed, self.device, settings.prefetch, channels_last=settings.channels_last)
        return feed

    def _make_logger(self, purge_step: int | None) -> Logger:
        paths, settings = self.session.paths, self.settings
        return Logger(
            first=self.processes.first,
            metrics=paths.metrics if paths is not None and settings.write_file else None,
            tensorboard=paths.tensorboard if paths is not None and settings.write_tb else None,
            purge_step=purge_step,
        )

    def _logged(self) -> contextlib.AbstractContextManager[Any]:
        """Inside, what is printed also goes to logs.txt, unless a launch sees to that."""
        paths = self.session.paths
        if self.session.own and paths is not None and self.processes.first and self.settings.write_file:
            return Tee(paths.logs)
        return contextlib.nullcontext()

    def _sync_logs(self) -> None:
        self.logger.sync()

    def _tell_failure(self, error: OSError) -> None:
        problem = f"{error.filename}: checkpoint not written ({error.strerror})"
        self.logger.say(f"WARNING: {problem}; going on, earlier checkpoints are untouched")
