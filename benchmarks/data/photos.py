"""The images that every contestant is given: noise as smooth as a photograph, so that files get as large as those of one."""

import io
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASSES = 10
SMOOTHNESS = 1.5
"""An amplitude falls with this power of its frequency; photographs have 1 to 2."""
CONTRAST = 52
FORMATS = {32: ("PNG", {}), 224: ("JPEG", {"quality": 90})}
"""By the pixels of a side."""
AT_ONCE = 250


class Source:
    """A folder of generated images: `images.npy`, uint8 (n, 3, side, side), `labels.npy`, and a file for each image.

    The arrays hold what comes of the files, so that whoever decodes delivers the same. Labels ascend: a folder that is
    read class by class has the same order.
    """

    def __init__(self, folder: Path, side: int, n: int) -> None:
        self.folder, self.side, self.n = folder, side, n
        self.format, self._options = FORMATS[side]
        self.suffix = {"PNG": "png", "JPEG": "jpg"}[self.format]

    @property
    def images(self) -> NDArray[np.uint8]:
        """All of them, mapped."""
        images: NDArray[np.uint8] = np.load(self.folder / "images.npy", mmap_mode="r")
        return images

    @property
    def labels(self) -> NDArray[np.int64]:
        """Of each image."""
        labels: NDArray[np.int64] = np.load(self.folder / "labels.npy")
        return labels

    @property
    def files(self) -> list[Path]:
        """Of each image, relative to the folder."""
        labels = self.labels.tolist()
        return [Path("files") / f"{label}" / f"{number:07d}.{self.suffix}" for number, label in enumerate(labels)]

    def copy_files(self, target: Path) -> None:
        """All image files, class by class, into a new folder."""
        shutil.copytree(self.folder / "files", target)

    def make(self) -> None:
        """Generate it."""
        self.folder.mkdir(parents=True)
        np.save(self.folder / "labels.npy", np.arange(self.n) * CLASSES // self.n)
        shape = (self.n, 3, self.side, self.side)
        images = np.lib.format.open_memmap(self.folder / "images.npy", "w+", np.uint8, shape)
        for label in range(CLASSES):
            (self.folder / "files" / f"{label}").mkdir(parents=True)
        dice = np.random.default_rng(0)
        drawn = (one for _ in range(0, self.n, AT_ONCE) for one in draw(dice, AT_ONCE, self.side))
        for number, (path, one) in enumerate(zip(self.files, drawn, strict=False)):
            buffer = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(one.transpose(1, 2, 0))).save(buffer, self.format, **self._options)
            (self.folder / path).write_bytes(buffer.getvalue())
            images[number] = np.asarray(Image.open(buffer)).transpose(2, 0, 1)
        images.flush()


def draw(dice: np.random.Generator, n: int, side: int) -> NDArray[np.uint8]:
    """`n` images, (n, 3, side, side): white noise, filtered, its three channels mixed as brightness and two of colour."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    frequency[0, 0] = 1 / side
    white = dice.standard_normal((n, 3, side, side), np.float32)
    smooth = np.fft.irfft2(np.fft.rfft2(white) * frequency**-SMOOTHNESS, s=(side, side))
    brightness, red, blue = (smooth / smooth.std(axis=(2, 3), keepdims=True)).transpose(1, 0, 2, 3)
    mixed = np.stack([brightness + red / 3, brightness - red / 9 - blue / 9, brightness + blue / 3], axis=1)
    drawn: NDArray[np.uint8] = (128 + CONTRAST * mixed).clip(0, 255).astype(np.uint8)
    return drawn
