"""Hugging Face datasets: its image feature in a mapped Arrow file, whole batches through a transform."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features, Image, Value, load_from_disk
from photos import Source
from task import batch_loader, to_tensor


def write(source: Source, folder: Path) -> None:
    """One Arrow file, or several."""

    def rows() -> Iterator[Any]:
        for path, label in zip(source.files, source.labels.tolist(), strict=True):
            yield {"image": {"bytes": (source.folder / path).read_bytes(), "path": None}, "label": label}

    features = Features({"image": Image(), "label": Value("int64")})
    dataset = Dataset.from_generator(rows, features=features, cache_dir=str(folder / "cache"))
    dataset.save_to_disk(str(folder / "dataset"))
    shutil.rmtree(folder / "cache")


def opened(folder: Path) -> Callable[[bool], Iterator[Any]]:
    """Passes over it."""
    dataset = load_from_disk(str(folder / "dataset")).with_transform(tensors)
    return lambda shuffle: ((batch["image"], batch["label"]) for batch in batch_loader(dataset, shuffle))


def tensors(batch: dict[str, list[Any]]) -> dict[str, torch.Tensor]:
    """A batch of Pillow's images as one tensor."""
    return {"image": torch.stack([to_tensor(image) for image in batch["image"]]), "label": torch.tensor(batch["label"])}
