"""Trains a scikit-learn classifier: a plain script that reads its config, logs metrics and keeps checkpoints.

for each epoch:
    shuffle the training images (from the seed and the epoch)
    partial_fit, a batch at a time
    log loss and accuracy; save; point `latest` here, and `best` where the validation accuracy is the best so far
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier

from projects.digits.data import Split, load_split
from runner.contract.checkpoints import BEST, LATEST, pointed, sidecar
from runner.contract.errors import RunnerError
from runner.contract.jsonio import atomic_path, file_sha256, pretty_json, write_atomic
from runner.contract.layout import METRICS_JSONL
from runner.inside import report

CLASSES = np.arange(10)


def main() -> int:
    """Train from the beginning, or with --resume from the run's latest checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resume", action="store_true", help="go on from the run's latest checkpoint")
    resume = parser.parse_args().resume
    folder = Path(os.environ["RUN_DIR"]) / "checkpoints"
    try:
        train(report.config(), folder, resume)
    except RunnerError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def train(config: Any, folder: Path, resume: bool) -> None:
    """The whole training; each epoch depends on the seed, its number and the state before it alone.

    Raises:
        RunnerError: resume was asked for and there is no checkpoint to go on from.
    """
    state = load_latest(folder) if resume else start(config)
    drop_lines_after(state["step"], folder.parent / METRICS_JSONL)
    training, validation = load_split("train"), load_split("val")
    while state["epoch"] < config.n_epochs and state["worse"] < config.patience:
        state["epoch"] += 1
        run_epoch(state, training, config)
        score = score_epoch(state, training, validation)
        improved = score > state["best_score"]
        state["worse"] = 0 if improved else state["worse"] + 1
        state["best_score"] = max(score, state["best_score"])
        save(state, score, folder, improved)
    print(f"Best score: {state['best_score']:.4f} after {state['epoch']} epochs")


def start(config: Any) -> dict[str, Any]:
    """All that changes during a training."""
    model = MLPClassifier(
        hidden_layer_sizes=(config.n_hidden,),
        learning_rate_init=config.learning_rate,
        alpha=config.weight_decay,
        random_state=config.seed,
    )
    return {"model": model, "epoch": 0, "step": 0, "best_score": -np.inf, "worse": 0}


def run_epoch(state: dict[str, Any], training: Split, config: Any) -> None:
    """One pass over the training images, in an order drawn from the seed and the epoch."""
    images, labels = training
    order = np.random.default_rng([config.seed, state["epoch"]]).permutation(len(labels))
    for first in range(0, len(order), config.batch_size):
        batch = order[first : first + config.batch_size]
        state["model"].set_params(batch_size=len(batch)).partial_fit(images[batch], labels[batch], classes=CLASSES)
        state["step"] += 1


def score_epoch(state: dict[str, Any], training: Split, validation: Split) -> float:
    """Log loss and accuracy on both sets; returns the validation accuracy."""
    accuracy = 0.0
    for split, (images, labels) in (("train", training), ("val", validation)):
        probability = state["model"].predict_proba(images)
        accuracy = float((probability.argmax(axis=1) == labels).mean())
        loss = float(log_loss(labels, probability, labels=CLASSES))
        report.log(step=state["step"], epoch=state["epoch"], split=split, loss=loss, accuracy=accuracy)
        print(f"Epoch {state['epoch']:>3} | {split:<5} | loss: {loss:.4f} | accuracy: {accuracy:.4f}")
    return accuracy


def save(state: dict[str, Any], score: float, folder: Path, improved: bool) -> None:
    """Write the state beside and rename it, then its sidecar, then the pointers; only then drop what neither names."""
    path = folder / f"step_{state['step']:08d}.joblib"
    with atomic_path(path) as temporary:
        joblib.dump(state, temporary)
    facts = {"schema_version": 1, "file": path.name, "size": path.stat().st_size, "sha256": file_sha256(path)}
    facts |= {"step": state["step"], "epoch": state["epoch"], "score": score, "score_name": "accuracy"}
    write_atomic(sidecar(path), pretty_json(facts))
    for pointer in (LATEST, BEST) if improved else (LATEST,):
        write_atomic(folder / pointer, f"{path.name}\n".encode())
    kept = {pointed(folder, LATEST), pointed(folder, BEST)}
    for old in set(folder.glob("step_*.joblib")) - kept:
        old.unlink()
        sidecar(old).unlink(missing_ok=True)


def drop_lines_after(step: int, path: Path) -> None:
    """Cut off what a run logged after the step it goes on from, a torn last line included. The file stays the same file."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if line.endswith(b"\n") and json.loads(line)["step"] <= step]
    if kept != lines:
        os.truncate(path, sum(map(len, kept)))


def load_latest(folder: Path) -> dict[str, Any]:
    """The state to go on from.

    Raises:
        RunnerError: the run has no checkpoint yet.
    """
    path = pointed(folder, LATEST)
    if path is None:
        raise RunnerError(f"{folder}: no checkpoint to go on from; start the run again")
    state: dict[str, Any] = joblib.load(path)
    return state


if __name__ == "__main__":
    sys.exit(main())
