"""What tensorboard can show: refused by its tag where it is added, encoded where it is written."""

import struct
import zlib
from typing import Any

import numpy as np
import torch

from runner.contract.errors import RunnerError
from runner.training.event_file import image_value


def number(tag: str, value: Any) -> Any:
    """One number, or a tensor of one that nobody else changes.

    Raises:
        RunnerError: it is none.
    """
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.detach().clone()
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if isinstance(value, int | float | np.number | np.bool_):
        return float(value)
    raise RunnerError(f"tensorboard: {tag}: one number expected, found {_described(value)}")


def check_numbers(tag: str, values: Any) -> None:
    """Refuse what is no array of numbers, with its tag."""
    kind = values.dtype if isinstance(values, torch.Tensor) else np.asarray(values).dtype
    if not isinstance(kind, torch.dtype) and kind.kind not in "biuf":
        raise RunnerError(f"tensorboard: {tag}: numbers expected, found {_described(values)}")


def check_picture(tag: str, picture: Any, layout: str) -> None:
    """Refuse what is no picture, with its tag."""
    check_numbers(tag, picture)
    shape = tuple(np.shape(picture))
    if sorted(layout) not in (sorted("HW"), sorted("CHW"), sorted("NCHW")):
        raise RunnerError(f"tensorboard: {tag}: dataformats HW, CHW, HWC, NCHW or NHWC expected, found {layout!r}")
    channels = shape[layout.index("C")] if "C" in layout and len(shape) == len(layout) else 1
    if len(shape) != len(layout) or channels not in (1, 3, 4) or 0 in shape:
        raise RunnerError(
            f"tensorboard: {tag}: a picture of shape {layout} with 1, 3 or 4 channels expected, found shape {shape}"
        )


def _described(value: Any) -> str:
    """Its type, and its shape or itself."""
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__} {f'of shape {tuple(shape)}' if shape is not None else repr(value)[:60]}"


def picture_value(tag: str, pixels: torch.Tensor, layout: str) -> bytes:
    """A Summary.Value with a picture, or with a sheet of pictures; `check_picture` has seen it."""
    if layout == "HW":
        pixels, layout = pixels[None], "CHW"
    if len(layout) == 3:
        pixels = pixels.permute(*(layout.index(axis) for axis in "HWC"))
    else:
        pixels = _sheet(pixels.permute(*(layout.index(axis) for axis in "NHWC")))
    if pixels.is_floating_point():
        pixels = (pixels.float() * 255).clamp(0, 255)
    pixels = pixels.to(torch.uint8).contiguous()
    height, width, channels = pixels.shape
    return image_value(tag, _png(pixels), height, width, channels)


def _sheet(images: torch.Tensor, columns: int = 8) -> torch.Tensor:
    """Pictures (N, H, W, C) side by side, `columns` in a row -> (H', W', C)."""
    n, height, width, channels = images.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    empty = torch.zeros(rows * columns - n, height, width, channels, dtype=images.dtype)
    grid = torch.cat([images, empty]).reshape(rows, columns, height, width, channels)
    return grid.permute(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)


def _png(pixels: torch.Tensor) -> bytes:
    """Pixels (H, W, 1 | 3 | 4), bytes, as PNG (ISO 15948), every line unfiltered."""
    height, width, channels = pixels.shape
    colour = {1: 0, 3: 2, 4: 6}[channels]
    lines = torch.cat([torch.zeros(height, 1, dtype=torch.uint8), pixels.reshape(height, -1)], dim=1)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines.numpy().tobytes(), 4))
        + chunk(b"IEND", b"")
    )
