"""The images of a data set's split, from raw/ or lmdb/: the same batches whichever is read."""

import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from runner.contract.dataset_schema import Schema, read_schema
from runner.contract.errors import RunnerError
from runner.inside.dataset.examples import Examples, open_raw
from runner.inside.dataset.lmdb_file import ARRAYS, ENCODED, LmdbFile, lmdb_path
from runner.training.data.batches import Batch

RAW, AUTO = "raw", "auto"
FORMATS = (AUTO, RAW, ARRAYS, ENCODED)


def dataset_root(name: str) -> Path:
    """The folder with raw/, lists/ and lmdb/ of data set `name` in this launch: of its full data or its toy set, whichever
    the config names."""
    return Path(os.environ["DATASETS_DIR"]) / name


class ImageDataset(Dataset[dict[str, Any]]):
    """What `lists/<split>.txt` below `root` names: a batch is `image`, (batch, channels, height, width), and `label`, int64.

    `format` says where the pixels are read: `raw`, or one of the two LMDB kinds, `arrays` and `encoded`. `auto` takes the
    quickest that is there. What comes out is the same in every bit.

    `each(image)` is called for every image, a tensor (channels, height, width), and must make all of one size where theirs
    differ; then `transform(batch)` for the whole batch. Both may draw from torch's global generator, which the Trainer seeds
    for each batch.
    """

    def __init__(
        self,
        root: Path | str,
        split: str,
        *,
        format: str = AUTO,
        each: Callable[[Tensor], Tensor] | None = None,
        transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        """Open the split; no image is read yet.

        Raises:
            RunnerError: the split or the format is not there, or was made from other lists.
        """
        self.root, self.split, self.each, self.transform = Path(root), split, each, transform
        self.schema: Schema = read_schema(self.root)
        """What an example is; `schema.classes` are the names of the labels."""
        self.format = _chosen(self.root, split, format, self.schema)
        """Where the pixels are read."""
        self.examples: Examples = _opened(self.root, split, self.format, self.schema)
        if each is None and not self.schema.fixed:
            raise RunnerError(
                f"{self.root}: images of different sizes ({self.schema.image}); give each=, which makes them of one size"
            )

    def __len__(self) -> int:
        return len(self.examples)

    @cached_property
    def labels(self) -> Tensor:
        """Of every example, int64."""
        return torch.from_numpy(self.examples.labels)

    @property
    def draws_random(self) -> bool:
        """Whether reading may use random numbers."""
        return self.each is not None or self.transform is not None

    def get_batch(self, indices: Tensor) -> Batch:
        """The batch of these examples."""
        wanted = indices.numpy()
        images = self.examples.images(wanted)
        each = self.each
        tensors = torch.from_numpy(images) if each is None else torch.stack([each(torch.tensor(one)) for one in images])
        batch = {"image": tensors, "label": torch.from_numpy(self.examples.labels[wanted])}
        return batch if self.transform is None else self.transform(batch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: value[0] for name, value in self.get_batch(torch.tensor([index])).items()}

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """One batch in its examples: the same as get_batch, for a DataLoader that collates."""
        batch = self.get_batch(torch.tensor(indices))
        return [{name: value[row] for name, value in batch.items()} for row in range(len(indices))]


def _chosen(root: Path, split: str, format: str, schema: Schema) -> str:
    if format not in FORMATS:
        raise RunnerError(f"format: {format!r}: expected one of {', '.join(FORMATS)}")
    if format != AUTO:
        return format
    kinds = [kind for kind in (ARRAYS, ENCODED) if lmdb_path(root, kind, split).is_file()]
    return kinds[0] if kinds else RAW


def _opened(root: Path, split: str, format: str, schema: Schema) -> Examples:
    if format == RAW:
        return open_raw(root, split, schema)
    return LmdbFile(lmdb_path(root, format, split), root / "lists" / f"{split}.txt")
