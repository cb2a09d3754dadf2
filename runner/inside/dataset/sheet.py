"""Pictures of examples: thumbnails, and a sheet with a row of them for each class. Drawn with Pillow alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runner.contract.dataset_file import DatasetInfo
from runner.inside.dataset.examples import Examples, open_raw
from runner.inside.dataset.lists import DataError

if TYPE_CHECKING:
    from runner.inside.dataset.recipe import Variant

CELL, GAP, TEXT = 48, 4, 110
"""Pixels: a thumbnail, between two, the names of the classes."""
COLUMNS = 10
MOST_ROWS = 40


def draw_sheet(info: DatasetInfo, variant: "Variant", maximum: float, path: Path) -> None:
    """A row for each class, its first examples of the first split."""
    from PIL import Image, ImageDraw, ImageFont

    examples = open_raw(variant.root, next(iter(info.splits)), info.schema, raw=variant.raw)
    names = info.schema.classes[:MOST_ROWS] or ("examples",)
    width, height = TEXT + COLUMNS * (CELL + GAP) + GAP, len(names) * (CELL + GAP) + GAP
    sheet = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for row, name in enumerate(names):
        y = GAP + row * (CELL + GAP)
        pen.text((TEXT - 8, y + CELL // 2), name[:16], fill="#202020", font=font, anchor="rm")
        chosen = first_of_class(examples, row if info.schema.classes else None, COLUMNS)
        for column, image in enumerate(chosen):
            sheet.paste(thumbnail(image, maximum), (TEXT + column * (CELL + GAP), y))
    sheet.save(path, "PNG", optimize=True)


def first_of_class(examples: Examples, label: int | None, count: int) -> list[NDArray[Any]]:
    """The first readable images of a class; of all, if `label` is None."""
    places = np.arange(len(examples)) if label is None else np.flatnonzero(examples.labels == label)
    found: list[NDArray[Any]] = []
    for index in places.tolist():
        if len(found) == count:
            break
        try:
            found.append(examples.images(np.array([index]))[0])
        except DataError:  # `survey` tells of it
            continue
    return found


def thumbnail(image: NDArray[Any], maximum: float, size: int = CELL) -> Any:
    """A square picture of an image (channels, height, width) or (height, width) whose data set goes up to `maximum`.

    Small images are enlarged with their pixels in sight.
    """
    from PIL import Image

    picture = Image.fromarray(_pixels(image, maximum))
    method = Image.Resampling.NEAREST if max(picture.size) < size else Image.Resampling.LANCZOS
    scale = size / max(picture.size)
    fitted = picture.resize([max(1, round(side * scale)) for side in picture.size], method)
    square = Image.new("RGB", (size, size), "white")
    square.paste(fitted, ((size - fitted.width) // 2, (size - fitted.height) // 2))
    return square


def _pixels(image: NDArray[Any], maximum: float) -> NDArray[np.uint8]:
    """(height, width, 3), from 0..maximum to 0..255; a byte that uses its whole range stays as it is."""
    planes = image if image.ndim > 2 else image.reshape(1, *_rectangle(image.shape))
    planes = planes[:3] if len(planes) >= 3 else np.repeat(planes[:1], 3, axis=0)
    if image.dtype != np.uint8 or maximum < 128:
        planes = (planes.astype(np.float64) * (255 / (maximum or 1.0))).clip(0, 255)
    return np.ascontiguousarray(planes.astype(np.uint8).transpose(1, 2, 0))


def _rectangle(shape: Sequence[int]) -> tuple[int, int]:
    return (1, shape[0]) if len(shape) == 1 else (shape[0], shape[1])
