"""What contestants share: batches of 64, without workers, and how one gets a tensor of Pillow's image."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

BATCH = 64


def loader(dataset: Dataset[Any], shuffle: bool) -> DataLoader[Any]:
    """The ordinary loader, which asks for an example at a time."""
    return DataLoader(dataset, batch_size=BATCH, shuffle=shuffle)


def batch_loader(dataset: Any, shuffle: bool) -> DataLoader[Any]:
    """A loader that asks for a batch at a time: of a list of indices."""
    sampler = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)
    return DataLoader(dataset, sampler=BatchSampler(sampler, BATCH, drop_last=False), batch_size=None)


def to_tensor(image: Image.Image) -> torch.Tensor:
    """The pixels, uint8 (3, height, width), as torchvision's PILToTensor gives them, contiguous."""
    pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
