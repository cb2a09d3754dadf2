"""Scores a checkpoint on one split: metrics.json, predictions.csv, and the confusion matrix as a picture."""

import argparse
import csv
import os
import sys
from pathlib import Path
from typing import Any

import joblib
import matplotlib
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, log_loss

from projects.digits.data import load_split
from runner.contract.jsonio import pretty_json, write_atomic
from runner.contract.layout import METRICS_JSON

matplotlib.use("agg")
from matplotlib.figure import Figure


def main() -> int:
    """Evaluate the checkpoint that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", default="test", help="val or test")
    parser.add_argument("--checkpoint", required=True, type=Path, help="a .joblib file of train.py")
    arguments = parser.parse_args()
    if not arguments.checkpoint.is_file():
        print(f"{str(arguments.checkpoint)!r}: no checkpoint; train the run first", file=sys.stderr)
        return 2
    evaluate(arguments.checkpoint, arguments.split, Path(os.environ["OUTPUT_DIR"]))
    return 0


def evaluate(checkpoint: Path, split: str, folder: Path) -> None:
    """Write all that an evaluation keeps into `folder`."""
    state = joblib.load(checkpoint)
    images, labels = load_split(split)
    probability = state["model"].predict_proba(images)
    predicted = probability.argmax(axis=1)
    accuracy = float((predicted == labels).mean())
    scores = {"loss": float(log_loss(labels, probability, labels=np.arange(10))), "accuracy": accuracy}
    facts = {"split": split, "checkpoint": checkpoint.name, "step": state["step"], "score": accuracy, **scores}
    write_predictions(folder / "predictions.csv", labels, predicted, probability)
    np.savez(folder / "predictions.npz", probability=probability, label=labels)
    (folder / "images").mkdir(exist_ok=True)
    draw_confusion(confusion_matrix(labels, predicted, labels=np.arange(10)), folder / "images" / "confusion.png")
    write_atomic(folder / METRICS_JSON, pretty_json(facts))
    print(f"{split} loss: {scores['loss']:.4f}\n{split} accuracy: {accuracy:.4f}")


def write_predictions(path: Path, labels: NDArray[Any], predicted: NDArray[Any], probability: NDArray[Any]) -> None:
    """One line an image, in the order of the split."""
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["index", "label", "prediction", "probability"])
        for index, (label, guess, row) in enumerate(zip(labels, predicted, probability, strict=True)):
            writer.writerow([index, int(label), int(guess), f"{row[guess]:.6f}"])


def draw_confusion(matrix: NDArray[Any], path: Path) -> None:
    """Rows are labels, columns predictions; the counts stand in the cells."""
    figure = Figure(figsize=(5, 4.6), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(matrix, cmap="Blues")
    axes.set(xlabel="predicted", ylabel="label", xticks=range(10), yticks=range(10))
    for row, column in np.argwhere(matrix):
        colour = "white" if matrix[row, column] * 2 > matrix.max() else "black"
        axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour)
    figure.savefig(path, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    sys.exit(main())
