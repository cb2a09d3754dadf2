"""Image files and arrays: what Pillow decodes, as uint8 (channels, height, width), and back."""

import io
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.contract.dataset_schema import ArrayField, Schema
from runner.inside.dataset.lists import DataError

Images = NDArray[Any] | list[NDArray[Any]]
"""One array (images, …) where every example has the same shape, else an array each."""
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Channels, and Pillow's name for them."""
CONVERTED = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
"""Kinds of picture that become MODES without losing depth."""
LINES = {"L": "L", "RGB": "RGB;L", "RGBA": "RGBA;L"}
"""Pillow's name for pixels whose lines each hold one channel after the other: planes are then copied by the line."""


def decoded(schema: Schema, contents: Iterable[tuple[bytes | memoryview, str]], count: int) -> Images:
    """`count` pictures, each with its name for messages; one array if the schema has one shape."""
    shape = schema.image.shape
    if not schema.fixed:
        return [decode(content, shape, where) for content, where in contents]
    out = np.empty((count, *schema.image.sizes), np.uint8)
    for row, (content, where) in zip(out, contents, strict=True):
        decode(content, shape, where, row)
    return out


def decode(
    content: bytes | memoryview, shape: Sequence[int | None], where: str, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """The picture in a PNG, a JPEG or whatever else Pillow reads, as uint8 (channels, height, width), in `out` if given.

    Its kind of colour becomes the one with shape[0] channels; any turning that a camera noted in it is not done.

    Raises:
        DataError: it is none, is damaged, or has another shape; `where` names it.
    """
    if len(content) == 0:
        raise DataError(f"{_one_line(where)}: found 0 bytes, expected an image")
    open_image, problems = _pillow()
    mode = MODES[shape[0] or 3]
    try:
        image = open_image(io.BytesIO(content))
        _check_mode(image, where)
        image.load()
        if image.mode != mode:
            image = image.convert(mode)
        (width, height), channels = image.size, len(mode)
        if (channels, height, width) != shape:
            check_shape((channels, height, width), shape, where)
        lines = image.tobytes("raw", LINES[mode])
    except problems as error:
        raise DataError(f"{_one_line(where)}: not a readable image ({_one_line(str(error))})") from None
    if out is None:
        out = np.empty((channels, height, width), np.uint8)
    out[...] = np.frombuffer(lines, np.uint8).reshape(height, channels, width).transpose(1, 0, 2)
    return out


@contextmanager
def opened(source: Any, where: str) -> Iterator[Any]:
    """Pillow's image of a file or of bytes. All that its decoders raise for what is no image of theirs is a DataError."""
    open_image, problems = _pillow()
    try:
        with open_image(source) as image:
            _check_mode(image, where)
            yield image
    except problems as error:
        raise DataError(f"{_one_line(where)}: not a readable image ({_one_line(str(error))})") from None


def _check_mode(image: Any, where: str) -> None:
    if image.mode not in CONVERTED:
        raise DataError(f"{_one_line(where)}: found pixels of kind {image.mode}, expected 8 bits a channel")


@lru_cache(maxsize=1)
def _pillow() -> tuple[Any, tuple[type[BaseException], ...]]:
    from PIL import Image

    broken = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error, zlib.error)
    return Image.open, (*broken, Image.DecompressionBombError, Image.DecompressionBombWarning)


def check_shape(found: Sequence[int], shape: Sequence[int | None], where: str) -> None:
    """Refuse another shape than the schema's."""
    if any(size not in (None, seen) for size, seen in zip(shape, found, strict=True)):
        one, other = (str(ArrayField(dtype="uint8", shape=tuple(sizes))) for sizes in (found, shape))
        raise DataError(f"{_one_line(where)}: found {one}, expected {other}")


def png(image: NDArray[np.uint8]) -> bytes:
    """A PNG of uint8 (channels, height, width), with 1, 3 or 4 channels. It decodes to the same array."""
    from PIL import Image

    picture = Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def shown(path: Path | str) -> str:
    """A path as a message shows it: one line, whatever bytes it is made of."""
    return _one_line(str(path))


def _one_line(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("\n", "\\n")
