"""A folder for each class, decoded by Pillow, an example at a time: torchvision's ImageFolder without torchvision."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from photos import Source
from PIL import Image
from task import loader, to_tensor
from torch.utils.data import Dataset


class Folder(Dataset[Any]):
    """What lies below a folder, class by class."""

    def __init__(self, folder: Path) -> None:
        classes = sorted(folder.iterdir())
        self.files = [(str(path), label) for label, one in enumerate(classes) for path in sorted(one.iterdir())]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        path, label = self.files[index]
        with open(path, "rb") as handle, Image.open(handle) as image:
            return to_tensor(image), label


def write(source: Source, folder: Path) -> None:
    """The files as they are."""
    source.copy_files(folder / "files")


def opened(folder: Path) -> Callable[[bool], Iterator[Any]]:
    """Passes over it."""
    dataset = Folder(folder / "files")
    return lambda shuffle: iter(loader(dataset, shuffle))
