"""CIFAR-10 for training: how its images are augmented. Reading them is the library's."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runner.training.data import ImageDataset, dataset_root

MARGIN = 4
"""Pixels by which an augmented image may be moved in each direction."""


class CifarDataset(ImageDataset):
    """The images that lists/<mode>.txt names: `image`, uint8 (3, 32, 32), and `label`, 0..9."""

    def __init__(self, mode: str, root: Path | None = None, augment: bool = False, format: str = "auto") -> None:
        super().__init__(dataset_root("cifar10") if root is None else root, mode, format=format)
        self.augment = augment

    @property
    def augment(self) -> bool:
        """Whether each image is moved by up to 4 pixels and half of them are mirrored, drawn from torch's global generator."""
        return self.transform is not None

    @augment.setter
    def augment(self, on: bool) -> None:
        self.transform = _augmented if on else None


def _augmented(batch: dict[str, Any]) -> dict[str, Any]:
    return {**batch, "image": random_shift_and_flip(batch["image"])}


def random_shift_and_flip(images: Tensor) -> Tensor:
    """Each image moved within a black margin and mirrored with probability 1/2; (batch, 3, 32, 32) both ways."""
    count = len(images)
    down, across = torch.randint(0, 2 * MARGIN + 1, (2, count)).numpy()
    mirrored = torch.rand(count) < 0.5
    padded = torch.nn.functional.pad(images, (MARGIN,) * 4)
    padded[mirrored] = padded[mirrored].flip(3)
    windows = np.lib.stride_tricks.sliding_window_view(padded.numpy(), (32, 32), axis=(2, 3))
    return torch.from_numpy(windows[np.arange(count), :, down, across])
