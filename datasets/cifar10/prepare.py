"""What only CIFAR-10 knows of its own preparation: its authors' files, how they are split, and a toy set like them.

A batch file is a row of records of 3,073 bytes: one label (0..9), then 3,072 pixels, the red plane of 32 x 32 first,
then green, then blue.
"""

import hashlib
import re
import shutil
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from runner.inside.dataset.lists import DataError, Entry
from runner.inside.dataset.recipe import Recipe, main
from runner.inside.dataset.stages import Places

Bytes = NDArray[np.uint8]

RECORD = 1 + 3 * 32 * 32
"""Bytes of one record: label and pixels."""
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
META = "batches.meta.txt"
TEST = "test_batch.bin"
KEPT = re.compile(r"data_batch_\d+\.bin|test_batch\.bin|batches\.meta\.txt|readme\.html")
"""What belongs to the data set; anything else in a source is left there."""
VAL_SHARE = 10
"""One in so many training images of each class is for validation."""
TOY_BATCHES, TOY_IMAGES = 5, 200


# ---------------------------------------------------------------------------------------------------------------- raw


def write_raw(places: Places, folder: Path) -> None:
    """Take the authors' files out of a folder or an archive; names are ours, so that nothing can land elsewhere."""
    source = places.source
    assert source is not None, "dataset.yml names a source"
    if source.is_dir():
        _copy_folder(source, folder)
    else:
        _unpack(source, folder)


def _copy_folder(source: Path, folder: Path) -> None:
    inner = source / "cifar-10-batches-bin"
    for path in sorted((inner if inner.is_dir() else source).iterdir()):
        if KEPT.fullmatch(path.name) and path.is_file():
            with path.open("rb") as handle:
                _copy(handle, folder / path.name)


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                name = Path(member.name).name
                handle = tar.extractfile(member) if member.isfile() and KEPT.fullmatch(name) else None
                if handle is not None:
                    _copy(handle, folder / name)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's trouble, not the archive's
            raise
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{archive}: not a whole tar archive ({reason}); expected cifar-10-binary.tar.gz, get it again"
        ) from None


def _copy(handle: IO[bytes], target: Path) -> None:
    with target.open("wb") as out:
        shutil.copyfileobj(handle, out, 1 << 20)


def check_raw(folder: Path) -> None:
    """Refuse anything but whole batches 1..n of equal size, a test batch and ten class names."""
    batches = training_batches(folder)
    for path in (folder / META, folder / TEST):
        if not path.is_file():
            raise DataError(f"{folder}: {path.name} is missing (found: {_found(folder)})")
    names = tuple((folder / META).read_text(encoding="utf-8", errors="replace").split())
    if len(names) != len(CLASSES):
        raise DataError(f"{folder / META}: found {len(names)} class names, expected {len(CLASSES)}")
    sizes = {path.name: len(read_batch(path)) for path in batches}
    if len(set(sizes.values())) > 1:
        listing = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise DataError(
            f"{folder}: found batches of different sizes ({listing} images), expected equal ones; a copy was cut short"
        )
    read_batch(folder / TEST)


def training_batches(folder: Path) -> list[Path]:
    """data_batch_1.bin … data_batch_n.bin, in that order.

    Raises:
        DataError: there is none, or one in between is missing.
    """
    numbers = sorted(
        int(path.stem.rpartition("_")[2]) for path in folder.glob("data_batch_*.bin") if KEPT.fullmatch(path.name)
    )
    if not numbers:
        raise DataError(f"{folder}: data_batch_1.bin is missing (found: {_found(folder)})")
    missing = [number for number in range(1, numbers[-1] + 1) if number not in numbers]
    if missing:
        raise DataError(f"{folder}: data_batch_{missing[0]}.bin is missing (found: {_found(folder)})")
    return [folder / f"data_batch_{number}.bin" for number in numbers]


def read_batch(path: Path) -> Bytes:
    """All records of a batch file, shape (images, 3073), mapped rather than read.

    Raises:
        DataError: its size is no whole number of records, it is empty, or a label is not 0..9.
    """
    size = path.stat().st_size
    if size == 0 or size % RECORD:
        whole, rest = divmod(size, RECORD)
        raise DataError(
            f"{path}: found {size} bytes ({whole} images and {rest} bytes), expected a multiple of {RECORD}: cut short"
        )
    records: Bytes = np.memmap(path, dtype=np.uint8, mode="r").reshape(-1, RECORD)
    wrong = np.flatnonzero(records[:, 0] >= len(CLASSES))
    if wrong.size:
        raise DataError(f"{path}: image {wrong[0]} has label {records[wrong[0], 0]}, expected 0..{len(CLASSES) - 1}")
    return records


def _found(folder: Path) -> str:
    return ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"


# ------------------------------------------------------------------------------------------------------------- splits


def splits(raw: Path) -> dict[str, list[Entry]]:
    """train, val and test for the batches in `raw`.

    Of each class, the tenth of its training images with the smallest sha256 is for validation: the split depends on the
    images alone, and equal images never stand on both sides of it.
    """
    found: dict[str, list[Entry]] = {"train": [], "val": []}
    batches = [(path.name, read_batch(path)) for path in training_batches(raw)]
    digests = [[hashlib.sha256(record[1:].tobytes()).digest() for record in records] for _, records in batches]
    limits = _val_limits(
        np.concatenate([records[:, 0] for _, records in batches]), [d for part in digests for d in part]
    )
    for (name, records), part in zip(batches, digests, strict=True):
        for index, (label, digest) in enumerate(zip(records[:, 0].tolist(), part, strict=True)):
            found["val" if digest <= limits[label] else "train"].append(Entry(f"raw/{name}", label, index))
    if not found["val"]:
        raise DataError(f"{raw}: no class has {VAL_SHARE} training images, so that one could be for validation")
    test = read_batch(raw / TEST)[:, 0].tolist()
    return {**found, "test": [Entry(f"raw/{TEST}", label, index) for index, label in enumerate(test)]}


def _val_limits(labels: Bytes, digests: list[bytes]) -> dict[int, bytes]:
    """By class, the largest digest that is for validation."""
    limits = {}
    for label in range(len(CLASSES)):
        of_class = sorted(digest for digest, other in zip(digests, labels, strict=True) if other == label)
        limits[label] = of_class[len(of_class) // VAL_SHARE - 1] if len(of_class) >= VAL_SHARE else b""
    return limits


# ---------------------------------------------------------------------------------------------------------------- toy


def write_toy(raw: Path) -> None:
    """The same files with generated images: five shapes in two families of colour make ten classes.

    Integers and SHAKE-256 only, so that every machine and every version of numpy makes the same bytes.
    """
    for number in range(1, TOY_BATCHES + 1):
        (raw / f"data_batch_{number}.bin").write_bytes(toy_batch(f"data_batch_{number}", TOY_IMAGES).tobytes())
    (raw / TEST).write_bytes(toy_batch("test_batch", TOY_IMAGES).tobytes())
    (raw / META).write_text("".join(f"{name}\n" for name in CLASSES))
    (raw / "readme.html").write_text(
        "<p>Generated images in the format of CIFAR-10; see README.md of this data set.</p>\n"
    )


def toy_batch(name: str, images: int) -> Bytes:
    """Records of shape (images, 3073) that depend on `name` and `images` alone."""
    draw = _bytes(f"toy cifar10 {name} parameters", images * 16).reshape(images, 16, 1, 1).astype(np.int32)
    noise = _bytes(f"toy cifar10 {name} noise", images * 3 * 32 * 32).reshape(images, 3, 32, 32).astype(np.int32)
    labels = (np.arange(images) * 7 + 3) % len(CLASSES)
    family = (labels // 5).reshape(-1, 1, 1, 1)
    mask = _shapes(labels % 5, across=12 + draw[:, 0] % 9, down=12 + draw[:, 1] % 9, size=7 + draw[:, 2] % 4)
    ground = 30 + draw[:, 3:6] % 80
    warm = np.concatenate([130 + draw[:, 6:7] % 110, 90 + draw[:, 7:8] % 100, 40 + draw[:, 8:9] % 90], axis=1)
    colour = np.where(family == 0, warm, warm[:, ::-1])
    image = np.where(mask[:, None], colour, ground) + (noise - 128) // 4
    records = np.empty((images, RECORD), np.uint8)
    records[:, 0] = labels
    records[:, 1:] = image.clip(0, 255).astype(np.uint8).reshape(images, -1)
    return records


def _shapes(
    kinds: NDArray[np.int64], across: NDArray[np.int32], down: NDArray[np.int32], size: NDArray[np.int32]
) -> NDArray[np.bool_]:
    """One mask of 32 x 32 an image: disc, square, cross, ring or triangle around (`across`, `down`)."""
    y, x = np.mgrid[0:32, 0:32].astype(np.int32)
    dx, dy = abs(x - across), abs(y - down)
    radius2, inside = dx * dx + dy * dy, np.maximum(dx, dy) <= size
    shapes: list[Callable[[], NDArray[np.bool_]]] = [
        lambda: radius2 <= size * size,
        lambda: inside,
        lambda: inside & (np.minimum(dx, dy) * 3 <= size),
        lambda: (radius2 <= size * size) & (radius2 * 2 > size * size),
        lambda: inside & (dx * 2 <= y - down + size),
    ]
    result = np.zeros((len(kinds), 32, 32), np.bool_)
    for kind, shape in enumerate(shapes):
        result[kinds == kind] = shape()[kinds == kind]
    return result


def _bytes(text: str, length: int) -> Bytes:
    return np.frombuffer(hashlib.shake_256(text.encode()).digest(length), np.uint8)


RECIPE = Recipe(write_raw=write_raw, check_raw=check_raw, write_toy=write_toy, splits=splits)

if __name__ == "__main__":
    sys.exit(main(RECIPE, __file__, sys.argv[1:]))
