"""One pass over a split: loss and scores."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from runner.training.data import Batch, Feed, Fetched, make_feed
from runner.training.distributed import SharedStop
from runner.training.interrupts import Interrupted
from runner.training.metrics import scores_of
from runner.training.progress_bar import ProgressBar
from runner.training.seeding import derive_seed, seed_everything, undisturbed

if TYPE_CHECKING:
    from runner.training.step import Steps
    from runner.training.trainer import Trainer

_EVALUATION = 2
"""The stream of random numbers that evaluations use: the same for each, whenever it is."""


def evaluate_split(
    trainer: "Trainer",
    loader: Any,
    metrics: Any,
    mode: str,
    *,
    averaged: bool = True,
    keep: list[dict[str, Any]] | None = None,
) -> dict[str, float]:
    """Loss (the mean over examples) and scores of a whole split; `averaged` takes the moving average's weights.

    Every process evaluates the whole split: metrics objects need not know of each other, and no uneven share can bend a
    mean. With `keep`, what `predict` returns is gathered there and nothing is visualised.

    Raises:
        Interrupted: a signal came in a training; the split was not finished.
    """
    seed = derive_seed(trainer.config.seed, _EVALUATION)
    feed = make_feed(loader, how=trainer.settings.loader, seed=seed, aside=trainer.aside, endless=False)
    ema = trainer.update.ema
    total: Any = 0.0
    n_examples = 0
    shared = SharedStop(trainer.processes)
    metrics.reset()
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(feed))
        if averaged and ema is not None:
            stack.enter_context(ema.in_place())
        stack.enter_context(quiet(trainer))
        seed_everything(seed)
        for fetched in _one_epoch(feed, trainer.processes.first):
            _stop_if_asked(trainer, shared)
            batch = trainer.preprocess_batch(fetched.batch)
            with trainer.update.autocast():
                output = trainer.forward_model(batch)
                loss = trainer.forward_loss(batch, output)
            if keep is not None:
                keep.append(on_cpu(trainer.predict(batch, output)))
            elif n_examples == 0 and trainer.processes.first:
                show(trainer, batch, output, mode)
            total = total + loss.double() * fetched.n_examples
            n_examples += fetched.n_examples
            trainer.update_metrics(metrics, batch, output)
    return {"loss": float(total) / n_examples, **scores_of(metrics, trainer.global_step)}


@contextlib.contextmanager
def quiet(trainer: "Steps") -> Iterator[None]:
    """Inside, `trainer.model` is the model alone, in evaluation mode and without gradients; after, all is as before,
    the random generators too."""
    model, wrapped = trainer.bare_model, trainer.model
    was_training = model.training
    trainer.model = model
    model.eval()
    try:
        with undisturbed(trainer.device), torch.no_grad():
            yield
    finally:
        trainer.model = wrapped
        model.train(was_training)


def show(trainer: "Trainer", batch: Batch, output: Any, mode: str) -> None:
    """Call `visualise`. What it draws at random changes nothing, so that it may be called as often as one likes."""
    with undisturbed(trainer.device):
        trainer.visualise(batch, output, mode)


def _one_epoch(feed: Feed, shown: bool) -> Iterator[Fetched]:
    feed.start(0, 0)
    bar = ProgressBar(feed.n_batches(0), on=shown)
    last = False
    while not last:
        fetched = feed.next()
        last = fetched.last
        yield fetched
        bar.advance()
    bar.close()


def _stop_if_asked(trainer: "Trainer", shared: SharedStop) -> None:
    """A long validation must not use up the grace time; several processes leave it after the same batch."""
    requested = shared.agreed(trainer.interrupts.requested)
    if requested is not None:
        raise Interrupted(requested)


def on_cpu(value: Any) -> Any:
    """The same structure, its tensors as numpy arrays."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()
    if isinstance(value, dict):
        return {key: on_cpu(inner) for key, inner in value.items()}
    return value if isinstance(value, list | np.ndarray) else list(value)
