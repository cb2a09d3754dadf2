"""What a model is made of, how large a batch fits, and whether it can learn at all."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from runner.training.trainer import Trainer


def print_model_spec(model: nn.Module, name: str | None = None) -> str:
    """Print and return the line that says how large a model is."""
    total = sum(parameter.numel() for parameter in model.parameters())
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    line = f"Model {name or type(model).__name__}: {total / 1e6:.2f}M parameters of which {trainable / 1e6:.2f}M are trainable."
    print(line, flush=True)
    return line


def largest_batch(fits: Callable[[int], None], *, start: int = 1, limit: int = 1 << 16) -> int:
    """The largest batch size, up to `limit`, for which `fits(batch_size)` does not run out of memory; 0 if none does.

    Doubles until it fails, then halves the gap: about 2 log2(answer) trials.
    """
    fitting, failing, size = 0, limit + 1, min(start, limit)
    while failing - fitting > 1:
        if _fits(fits, size):
            fitting = size
        else:
            failing = size
        size = min(fitting * 2, limit) if failing > limit else (fitting + failing) // 2
    return fitting


def _fits(fits: Callable[[int], None], size: int) -> bool:
    try:
        fits(size)
    except (torch.OutOfMemoryError, MemoryError):
        return False
    except RuntimeError as error:
        if "out of memory" in str(error) or "can't allocate memory" in str(error):
            return False
        raise
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return True


def overfit_one_batch(trainer: "Trainer", n_steps: int = 200) -> tuple[float, float]:
    """Train on the first batch alone; the loss before and after. A model that cannot learn one batch has a bug.

    The trainer is spent after: its weights know that batch by heart.
    """
    trainer.model.train()
    trainer.feed.start(0, 0)
    batch = trainer.preprocess_batch(trainer.feed.next().batch)
    trainer.feed.close()
    first = last = math.nan
    for step in range(n_steps):
        with trainer.update.autocast():
            loss = trainer.forward_loss(batch, trainer.forward_model(batch))
        last = float(loss.detach())
        first = last if step == 0 else first
        trainer.optimiser.zero_grad()
        trainer.update.backward(loss)
        trainer.update.apply()
    return first, last
