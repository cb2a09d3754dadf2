"""What only NAME knows of its own preparation. Three functions to fill; the runner makes every stage of them."""

import sys
from pathlib import Path

from PIL import Image, ImageDraw

from runner.inside.dataset.lists import DataError, Entry
from runner.inside.dataset.recipe import Recipe, main
from runner.inside.dataset.sources import take
from runner.inside.dataset.stages import Places

CLASSES = ("one", "another")


def write_raw(places: Places, folder: Path) -> None:
    """Fill `folder` as the authors provide the data; it is read-only afterwards. `places.source` is what was downloaded, or
    what SOURCE= named, a folder or an archive. Here: a folder of images for each class."""
    take(places.source, folder)


def check_raw(raw: Path) -> None:
    """Refuse raw data that is not whole, as far as this data set can tell."""
    for name in CLASSES:
        if not (raw / name).is_dir():
            raise DataError(
                f"{raw}: has no folder {name} (found: {', '.join(sorted(path.name for path in raw.iterdir()))})"
            )


def write_toy(folder: Path) -> None:
    """Fill `folder` with the same tree in small: from code alone, and the same bytes on every machine."""
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir()
        for number in range(20):
            image = Image.new("RGB", (24 + number, 32), "black")
            draw = ImageDraw.Draw(image)
            (draw.ellipse if label else draw.rectangle)((4, 4, 16 + number % 8, 20), fill=(255, 200 - 8 * number, 0))
            image.save(folder / name / f"{number:04d}.png")


def splits(raw: Path) -> dict[str, list[Entry]]:
    """The examples of each split that dataset.yml names. Of a file with many: Entry("raw/file.bin", label, record)."""
    found: dict[str, list[Entry]] = {"train": [], "val": []}
    for label, name in enumerate(CLASSES):
        for number, path in enumerate(sorted((raw / name).glob("[!.]*"))):
            found["val" if number % 10 == 0 else "train"].append(Entry(f"raw/{name}/{path.name}", label))
    return found


RECIPE = Recipe(write_raw=write_raw, check_raw=check_raw, write_toy=write_toy, splits=splits, lmdb=("encoded",))

if __name__ == "__main__":
    sys.exit(main(RECIPE, __file__, sys.argv[1:]))
