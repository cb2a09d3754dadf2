"""What only the drawn shapes know of their own preparation: how one is drawn. An example of a folder of image files."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw

from runner.inside.dataset.lists import DataError, Entry
from runner.inside.dataset.recipe import Recipe, main
from runner.inside.dataset.stages import Places

CLASSES = ("circle", "square", "triangle")
FULL, TOY = 200, 20
"""Pictures of each class."""
SMALLEST, LARGEST = 48, 111
"""Pixels of a side."""


def write_raw(places: Places, folder: Path) -> None:
    """All pictures."""
    _draw_all(folder, FULL)


def write_toy(folder: Path) -> None:
    """The first of each class: the toy set is a part of the full one."""
    _draw_all(folder, TOY)


def _draw_all(folder: Path, count: int) -> None:
    for name in CLASSES:
        (folder / name).mkdir()
        for number in range(count):
            picture = draw(name, number)
            if number % 3:
                picture.save(folder / name / f"{number:04d}.jpg", quality=90)
            else:
                picture.save(folder / name / f"{number:04d}.png")


def draw(name: str, number: int) -> Image.Image:
    """One picture, from its class and number alone."""
    numbers = _numbers(f"shapes {name} {number}")
    width, height = (SMALLEST + next(numbers) % (LARGEST - SMALLEST) for _ in range(2))
    ground, ink = (tuple(low + next(numbers) % 90 for _ in range(3)) for low in (20, 150))
    picture = Image.new("RGB", (width, height), ground)
    radius = min(width, height) // 4 + next(numbers) % (min(width, height) // 6)
    x = radius + next(numbers) % (width - 2 * radius + 1)
    y = radius + next(numbers) % (height - 2 * radius + 1)
    pen = ImageDraw.Draw(picture)
    if name == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)
    elif name == "square":
        pen.rectangle((x - radius, y - radius, x + radius, y + radius), fill=ink)
    else:
        pen.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=ink)
    return picture


def _numbers(text: str) -> Iterator[int]:
    yield from hashlib.shake_256(text.encode()).digest(64)


def check_raw(raw: Path) -> None:
    """Refuse a folder of a class that is not there."""
    for name in CLASSES:
        if not (raw / name).is_dir():
            raise DataError(f"{raw / name}: not there; expected a folder for each of {', '.join(CLASSES)}")


def splits(raw: Path) -> dict[str, list[Entry]]:
    """By the last digit of a picture's number."""
    found: dict[str, list[Entry]] = {"train": [], "val": [], "test": []}
    for label, name in enumerate(CLASSES):
        for path in sorted((raw / name).iterdir()):
            split = {"8": "val", "9": "test"}.get(path.stem[-1:], "train")
            found[split].append(Entry(f"raw/{name}/{path.name}", label, name=f"{name} {path.stem}"))
    return found


RECIPE = Recipe(
    write_raw=write_raw, write_toy=write_toy, check_raw=check_raw, splits=splits, lmdb=("encoded", "arrays")
)

if __name__ == "__main__":
    sys.exit(main(RECIPE, __file__, sys.argv[1:]))
