"""Evaluate a checkpoint: scores, and what the model said about every example."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runner.contract.errors import RunnerError
from runner.contract.jsonio import pretty_json, write_atomic
from runner.contract.layout import METRICS_JSON
from runner.training import text
from runner.training.checkpoints import load_state
from runner.training.seeding import deterministic
from runner.training.split import evaluate_split

if TYPE_CHECKING:
    from runner.training.trainer import Trainer


def evaluate(trainer: "Trainer", *, split: str, checkpoint: Path | None, output_dir: Path) -> dict[str, Any]:
    """Evaluate `split` (train, val or test) with a checkpoint's weights; write metrics.json and the predictions.

    Raises:
        RunnerError: the project has no such split, or the checkpoint cannot be read.
    """
    loader = getattr(trainer, f"{split}_dataloader", None)
    if loader is None:
        have = ", ".join(
            name for name in ("train", "val", "test") if getattr(trainer, f"{name}_dataloader") is not None
        )
        raise RunnerError(
            f"split {split!r}: {type(trainer).__name__} has none (have: {have}); set self.{split}_dataloader in create_data"
        )
    step = 0
    if checkpoint is not None:
        state = load_state(checkpoint)
        trainer.bare_model.load_state_dict(state["ema"] or state["model"])
        step = trainer.global_step = int(state["progress"]["step"])
    metrics = trainer.test_metrics if split == "test" and trainer.test_metrics is not None else trainer.val_metrics
    kept: list[dict[str, Any]] = []
    with deterministic(trainer.settings.deterministic):
        scores = evaluate_split(trainer, loader, metrics, split, averaged=False, keep=kept)
    name = checkpoint.name if checkpoint is not None else None
    result = {
        "split": split,
        "checkpoint": name,
        "step": step,
        "score": _finite(trainer.monitor.settle(scores)),
        **{key: _finite(value) for key, value in scores.items()},
    }
    output_dir.mkdir(parents=True, exist_ok=True)
    write_atomic(output_dir / METRICS_JSON, pretty_json(result))
    predictions = joined(kept)
    trainer.write_evaluation(predictions, scores, split, output_dir)
    print(text.heading(f"Evaluation of {split} with {name or 'untrained weights'}"))
    for key, value in scores.items():
        print(f"{key}: {value:.4f}")
    print(f"Written to: {output_dir}\n{text.LINE}", flush=True)
    return result


def joined(batches: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows of all batches under their names: arrays where the batches hold arrays, else lists."""
    if not batches:
        return {}
    return {
        name: np.concatenate([batch[name] for batch in batches])
        if isinstance(batches[0][name], np.ndarray)
        else [row for batch in batches for row in batch[name]]
        for name in batches[0]
    }


def write_predictions(predictions: dict[str, Any], output_dir: Path) -> None:
    """predictions.npz with all arrays; predictions.csv with what fits in a cell, and the class where `output` holds scores."""
    arrays = {
        name: value if isinstance(value, np.ndarray) else np.asarray(value) for name, value in predictions.items()
    }
    np.savez(output_dir / "predictions.npz", allow_pickle=False, **arrays)
    columns: dict[str, Any] = {}
    output = arrays.get("output")
    if output is not None and output.ndim == 2:
        columns["prediction"] = output.argmax(axis=1)
    columns |= {name: value for name, value in arrays.items() if value.ndim == 1}
    with (output_dir / "predictions.csv").open("w", newline="") as handle:
        table = csv.writer(handle, lineterminator="\n")
        table.writerow(["index", *columns])
        for index, row in enumerate(zip(*(column.tolist() for column in columns.values()), strict=True)):
            table.writerow([index, *row])


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
