"""What an evaluation shows beside its scores: accuracy by class, the confusion matrix, the worst mistakes."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray

from projects.cifar.data import CifarDataset

matplotlib.use("agg")
from matplotlib.figure import Figure

COLUMNS, ROWS = 8, 4
"""The sheet of the worst mistakes."""


def confusion_matrix(labels: NDArray[Any], predicted: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """How many images of each class (rows) were taken for each class (columns)."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix


def write_per_class(matrix: NDArray[np.int64], names: Sequence[str], path: Path) -> None:
    """One line a class: its name, how many images it has, how many were right, and their share."""
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["class", "images", "right", "accuracy"])
        for name, row, right in zip(names, matrix, matrix.diagonal(), strict=True):
            total = int(row.sum())
            writer.writerow([name, total, int(right), f"{right / total:.4f}" if total else ""])


def draw_confusion(matrix: NDArray[np.int64], names: Sequence[str], path: Path) -> None:
    """The matrix as a picture: a row a class, shaded by its share of that class, with the counts."""
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(7, 6.4), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    axes.set_title(f"{matrix.trace()} of {matrix.sum()} right ({matrix.trace() / max(matrix.sum(), 1):.1%})")
    for row, column in np.argwhere(matrix):
        axes.text(
            column,
            row,
            str(matrix[row, column]),
            ha="center",
            va="center",
            color="white" if share[row, column] > 0.5 else "black",
        )
    figure.savefig(path, dpi=110, metadata={"Software": None})


def worst_mistakes(
    output: NDArray[Any], labels: NDArray[Any], most: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Indices of the wrong predictions, the surest first, and every image's probabilities, (images, classes)."""
    probability = torch.softmax(torch.from_numpy(np.asarray(output, np.float32)), dim=1).numpy()
    predicted = probability.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    order = np.argsort(-probability[wrong, predicted[wrong]], kind="stable")
    return wrong[order][:most], probability


def draw_mistakes(
    dataset: CifarDataset, output: NDArray[Any], labels: NDArray[Any], names: Sequence[str], path: Path
) -> None:
    """A sheet of the images that the model got wrong while it was surest, each with what it said and what it is."""
    worst, probability = worst_mistakes(output, labels, ROWS * COLUMNS)
    figure = Figure(figsize=(1.5 * COLUMNS, 1.8 * ROWS), layout="constrained")
    figure.suptitle("wrong, and sure of it: predicted (probability) / label" if worst.size else "no mistakes")
    cells = figure.subplots(ROWS, COLUMNS).ravel()
    for cell in cells:
        cell.axis("off")
    for cell, index in zip(cells, worst, strict=False):
        said = probability[index].argmax()
        cell.imshow(dataset[int(index)]["image"].permute(1, 2, 0).numpy())
        cell.set_title(f"{names[said]} ({probability[index, said]:.2f})\n{names[int(labels[index])]}", fontsize=8)
    figure.savefig(path, dpi=110, metadata={"Software": None})
