"""Curves as a PNG, one panel a curve, one colour a run. Drawn with Pillow: the host has neither numpy nor matplotlib."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from runner.contract.errors import RunnerError

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

Curve = Mapping[int, float]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

SCALE = 2
"""Everything is drawn twice as large and shrunk: smooth lines."""
PANEL = (520, 300)
LEFT, TOP, RIGHT, BOTTOM = 62, 30, 14, 34
"""Margins of a panel."""
LEGEND = 18
"""Height of a line of the legend."""
MOST_PANELS = 12
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Told apart by everybody (Okabe and Ito 2008)."""
GREY, BLACK = "#d0d0d0", "#202020"


def curves_png(labels: Sequence[str], curves: Mapping[tuple[str, str], Sequence[Curve]]) -> bytes:
    """All curves in two columns, the legend on top.

    Raises:
        RunnerError: Pillow is not installed here.
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError:
        raise RunnerError("Pillow is not installed here, so no picture can be drawn; run `make` again") from None
    shown = list(curves.items())[:MOST_PANELS]
    width = PANEL[0] * min(2, len(shown))
    height = LEGEND * len(labels) + 12 + PANEL[1] * math.ceil(len(shown) / 2)
    image = Image.new("RGB", (width * SCALE, height * SCALE), "white")
    pen = Pen(ImageDraw.Draw(image))
    for number, label in enumerate(labels):
        y = 12 + LEGEND * number
        pen.line([(LEFT, y), (LEFT + 24, y)], COLOURS[number % len(COLOURS)], 2.0)
        pen.text((LEFT + 32, y), label, anchor="lm")
    for number, ((split, key), runs) in enumerate(shown):
        x, y = PANEL[0] * (number % 2), LEGEND * len(labels) + 12 + PANEL[1] * (number // 2)
        box = (x + LEFT, y + TOP, x + PANEL[0] - RIGHT, y + PANEL[1] - BOTTOM)
        _panel(pen, box, f"{split} {key}".strip(), runs)
    buffer = io.BytesIO()
    image.resize((width, height), Image.Resampling.LANCZOS).save(buffer, "PNG")
    return buffer.getvalue()


class Pen:
    """Draws in the coordinates of the finished picture."""

    def __init__(self, draw: "ImageDraw") -> None:
        from PIL import ImageFont

        self._draw = draw
        self._font = ImageFont.load_default(size=11 * SCALE)

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float) -> None:
        """A line through points; a dot where there is only one."""
        scaled = [(x * SCALE, y * SCALE) for x, y in points]
        if len(scaled) == 1:
            (x, y), r = scaled[0], 2.5 * SCALE
            self._draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        else:
            self._draw.line(scaled, fill=colour, width=round(width * SCALE), joint="curve")

    def text(self, at: tuple[float, float], text: str, *, anchor: str, colour: str = BLACK) -> None:
        """One line of text; `anchor` as Pillow has it."""
        self._draw.text((at[0] * SCALE, at[1] * SCALE), text, fill=colour, font=self._font, anchor=anchor)


def _panel(pen: Pen, box: Box, title: str, runs: Sequence[Curve]) -> None:
    left, top, right, bottom = box
    values = [value for curve in runs for value in curve.values()]
    steps = [step for curve in runs for step in curve]
    low, high = _range(min(values), max(values))
    first, last = min(0, *steps), max(1, *steps)

    def place(step: float, value: float) -> tuple[float, float]:
        return (
            left + (right - left) * (step - first) / (last - first),
            bottom - (bottom - top) * (value - low) / (high - low),
        )

    pen.text((left, top - 10), title, anchor="ls")
    for value in ticks(low, high):
        y = place(first, value)[1]
        pen.line([(left, y), (right, y)], GREY, 0.5)
        pen.text((left - 6, y), f"{value:.4g}", anchor="rm")
    for step in ticks(first, last):
        pen.text((place(step, low)[0], bottom + 8), f"{step:g}", anchor="mt")
    pen.line([(left, top), (left, bottom), (right, bottom)], BLACK, 1.0)
    for number, curve in reversed(list(enumerate(runs))):
        if curve:
            points = [place(step, value) for step, value in sorted(curve.items())]
            pen.line(points, COLOURS[number % len(COLOURS)], 1.5)


def _range(low: float, high: float) -> tuple[float, float]:
    """A little more than the values take; never empty."""
    margin = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
    return low - margin, high + margin


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between two values, some five of them."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((factor * power for factor in (1, 2, 5, 10) if factor * power >= rough), power)
    return [round(number * step, 12) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
