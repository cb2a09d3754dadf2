"""One optimiser step: precision, accumulation, clipping, moving average."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from functools import cache
from types import CodeType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer, optimizer

from runner.training.settings import Settings

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Update:
    """What happens between a loss and new weights."""

    def __init__(self, settings: Settings, model: nn.Module, optimiser: Any, device: torch.device) -> None:
        self._optimiser = optimiser
        self._clip_norm = settings.clip_norm
        self._precision = _TYPES.get(settings.precision)
        self._device = device
        self.scaler = torch.amp.GradScaler(device.type) if settings.precision == "fp16" else None
        self.ema = MovingAverage(model, settings.ema) if settings.ema is not None else None
        self.plain = self._precision is None and self._clip_norm is None and self.ema is None
        """Whether a step is forward, backward and the optimiser, and nothing else."""
        self._nothing = contextlib.nullcontext()

    def autocast(self) -> Any:
        """The precision of the forward pass."""
        if self._precision is None:
            return self._nothing
        return torch.autocast(self._device.type, self._precision)

    def backward(self, loss: torch.Tensor) -> None:
        """Add this loss to the gradients."""
        scaled: Any = loss if self.scaler is None else self.scaler.scale(loss)
        scaled.backward()

    @torch.no_grad()
    def scale_gradients(self, factor: float) -> None:
        """Multiply what was added so far."""
        gradients = [p.grad for group in self._optimiser.param_groups for p in group["params"] if p.grad is not None]
        torch._foreach_mul_(gradients, factor)

    def apply(self) -> bool:
        """New weights from the gradients; False where a half-precision overflow made the scaler skip the step."""
        optimiser, scaler = self._optimiser, self.scaler
        if self.plain:
            take_step(optimiser)
            return True
        if self._clip_norm is not None:
            if scaler is not None:
                scaler.unscale_(optimiser)
            parameters = (p for group in optimiser.param_groups for p in group["params"])
            nn.utils.clip_grad_norm_(parameters, self._clip_norm)
        applied = True
        if scaler is None:
            take_step(optimiser)
        else:
            before = scaler.get_scale()
            scaler.step(optimiser)
            scaler.update()
            applied = scaler.get_scale() >= before
        if self.ema is not None and applied:
            self.ema.update()
        return applied


def clear_gradients(optimiser: Any) -> None:
    """What `optimiser.zero_grad()` does, without its line in the profiler: 10 us of a small step."""
    known = _known()
    if known is None or getattr(optimiser.zero_grad, "__func__", None) is not Optimizer.zero_grad or known.profiling():
        optimiser.zero_grad()
        return
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


def take_step(optimiser: Any) -> None:
    """What `optimiser.step()` does, without what torch wraps around it: a line in the profiler and the calling of hooks,
    20 us of a small step. Where a hook is registered, a profiler runs in this thread, or anything but torch's wrapper and a
    scheduler's is around the step, the whole call is made."""
    known, outer = _known(), optimiser.step
    scheduled = getattr(outer, "_wrapped_by_lr_sched", False)  # a scheduler warns where no step came before its own
    step = getattr(outer, "__wrapped__" if scheduled else "__func__", None)
    if known is None or getattr(step, "__code__", None) is not known.wrapper or _is_heard(optimiser, known):
        optimiser.step()
    else:
        if scheduled:
            optimiser._opt_called = True
        step.__wrapped__(optimiser)  # type: ignore[union-attr]


class _Known(NamedTuple):
    """What must be known of torch's inside to leave some of it out."""

    wrapper: CodeType
    """What is put around the step of every optimiser."""
    hooks: tuple[dict[int, Any], ...]
    """Those of all optimisers."""
    profiling: Callable[[], bool]


def _is_heard(optimiser: Any, known: _Known) -> bool:
    hooks = optimiser._optimizer_step_pre_hooks, optimiser._optimizer_step_post_hooks
    return known.profiling() or any(hooks) or any(known.hooks)


@cache
def _known() -> _Known | None:
    """None with a torch that has not what it takes."""
    try:
        wrapped: Any = Optimizer.profile_hook_step(Optimizer.step)
        hooks: Any = optimizer._global_optimizer_pre_hooks, optimizer._global_optimizer_post_hooks
        return _Known(wrapped.__code__, hooks, torch._C._autograd._profiler_enabled)
    except AttributeError:
        return None


class MovingAverage:
    """Weights that follow the model's: average <- decay x average + (1 - decay) x weights. Buffers are copied."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        state = model.state_dict(keep_vars=True)
        self._live = {name: tensor.detach() for name, tensor in state.items()}
        self._average = {name: tensor.clone() for name, tensor in self._live.items()}
        averaged = [name for name, tensor in self._live.items() if tensor.is_floating_point()]
        copied = [name for name in self._live if name not in averaged]
        self._pairs = [self._average[name] for name in averaged], [self._live[name] for name in averaged]
        self._copies = [self._average[name] for name in copied], [self._live[name] for name in copied]

    @torch.no_grad()
    def update(self) -> None:
        """Follow one step."""
        torch._foreach_lerp_(*self._pairs, 1 - self._decay)
        if self._copies[0]:
            torch._foreach_copy_(*self._copies)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model has the averaged weights; after, its own again."""
        own = copy.deepcopy(self._live)
        self._load(self._average)
        try:
            yield
        finally:
            self._load(own)

    def state_dict(self) -> dict[str, Any]:
        """The averages, by the model's names."""
        return dict(self._average)

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from saved averages."""
        for name, tensor in self._average.items():
            tensor.copy_(state[name])

    @torch.no_grad()
    def _load(self, state: dict[str, torch.Tensor]) -> None:
        for name, tensor in self._live.items():
            tensor.copy_(state[name])
