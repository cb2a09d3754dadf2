"""What is measured besides the loss. Any object with `update`, `evaluate` and `reset` will do."""

import inspect
from collections.abc import Mapping
from typing import Any, Protocol

import torch

from runner.contract.errors import RunnerError


class Metrics(Protocol):
    """What the Trainer asks of a metrics object. With `state_dict` and `load_state_dict` a resume is exact."""

    def update(self, output: Any, label: Any) -> None:
        """Take in one batch."""

    def evaluate(self, global_step: int) -> float | Mapping[str, float]:
        """The score, or several by name, over all batches since `reset`."""

    def reset(self) -> None:
        """Forget all batches."""


class AccuracyMetrics:
    """The part of all examples whose class is right; a short batch weighs less than a full one.

    Batches are kept as they are and counted many at a time: counting each costs 150 us in the middle of a training.
    """

    name = "accuracy"
    _KEPT = 1 << 16
    """Most numbers of output to keep uncounted."""

    def __init__(self) -> None:
        self._confusion: torch.Tensor | None = None
        self._kept: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._n_kept = 0

    def update(self, output: torch.Tensor, label: torch.Tensor) -> None:
        """`output` (batch, classes) scores, `label` (batch,) class numbers. Counts stay on the device: no waiting."""
        self._kept.append((output.detach(), label))
        self._n_kept += output.numel()
        if self._n_kept > self._KEPT:
            self._count()

    def evaluate(self, global_step: int = 0) -> float:
        """The accuracy, 0 to 1; NaN before the first batch."""
        confusion = self.confusion()
        total = int(confusion.sum())
        return int(confusion.trace()) / total if total else float("nan")

    def confusion(self) -> torch.Tensor:
        """How often each class (rows) was taken for each class (columns), shape (classes, classes)."""
        self._count()
        if self._confusion is None:
            return torch.zeros(0, 0, dtype=torch.int64)
        n = round(self._confusion.numel() ** 0.5)
        return self._confusion.reshape(n, n).cpu()

    def per_class(self) -> list[float]:
        """The accuracy among the examples of each class; NaN for a class without examples."""
        confusion = self.confusion()
        return [float(row[i] / row.sum()) if row.sum() else float("nan") for i, row in enumerate(confusion)]

    def reset(self) -> None:
        """Forget all batches."""
        self._kept, self._n_kept = [], 0
        if self._confusion is not None:
            self._confusion.zero_()

    def state_dict(self) -> dict[str, Any]:
        """The counts."""
        self._count()
        return {"confusion": self._confusion}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue counting."""
        self._kept, self._n_kept = [], 0
        self._confusion = state["confusion"]

    def _count(self) -> None:
        if not self._kept:
            return
        output = torch.cat([output for output, _ in self._kept])
        label = torch.cat([label for _, label in self._kept])
        self._kept, self._n_kept = [], 0
        n = output.shape[1]
        if self._confusion is None:
            self._confusion = torch.zeros(n * n, dtype=torch.int64, device=output.device)
        pairs = label * n + output.argmax(dim=1)
        self._confusion.scatter_add_(0, pairs, torch.ones_like(pairs))


class MeanMetrics:
    """The mean over examples of numbers that `compute(output, label)` returns, as a mapping of tensors (batch,)."""

    def __init__(self, compute: Any) -> None:
        self._compute = compute
        self._sums: dict[str, torch.Tensor] = {}
        self._n = 0

    def update(self, output: Any, label: Any) -> None:
        """Take in one batch."""
        values = self._compute(output, label)
        for name, value in values.items():
            total = value.detach().double().sum()
            self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._n += len(next(iter(values.values())))

    def evaluate(self, global_step: int = 0) -> dict[str, float]:
        """The means by name; none before the first batch."""
        return {name: float(total) / self._n for name, total in self._sums.items()}

    def reset(self) -> None:
        """Forget all batches."""
        self._sums, self._n = {}, 0

    def state_dict(self) -> dict[str, Any]:
        """The sums."""
        return {"sums": dict(self._sums), "n": self._n}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue summing."""
        self._sums, self._n = dict(state["sums"]), state["n"]


def check_metrics(metrics: Any, name: str) -> None:
    """Refuse an object that lacks part of the protocol.

    Raises:
        RunnerError: names what is missing.
    """
    missing = [method for method in ("update", "evaluate", "reset") if not callable(getattr(metrics, method, None))]
    if missing:
        raise RunnerError(
            f"create_metrics: self.{name} ({type(metrics).__name__}) has no {', '.join(missing)}; update, evaluate and reset are needed"
        )


def scores_of(metrics: Any, step: int) -> dict[str, float]:
    """What a metrics object says now, by name; a single score is called by the object's `name`, else `score`."""
    takes_step = bool(inspect.signature(metrics.evaluate).parameters)
    value = metrics.evaluate(step) if takes_step else metrics.evaluate()
    if isinstance(value, Mapping):
        return {str(name): float(score) for name, score in value.items()}
    return {str(getattr(metrics, "name", "score")): float(value)}


def metrics_state(metrics: Any) -> Any:
    """Its state: by state_dict where it has one, else its attributes."""
    return metrics.state_dict() if hasattr(metrics, "state_dict") else dict(vars(metrics))


def restore_metrics(metrics: Any, state: Any, device: torch.device) -> None:
    """Put `metrics_state` back, its tensors on the device."""
    moved = _moved(state, device)
    if hasattr(metrics, "load_state_dict"):
        metrics.load_state_dict(moved)
    else:
        vars(metrics).update(moved)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _moved(inner, device) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_moved(inner, device) for inner in value)
    return value
