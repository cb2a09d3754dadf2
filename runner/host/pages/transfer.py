"""How the coming of a file is shown: one line that is drawn again on a terminal, a line at every tenth in a pipe."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:  # urllib, which no launch needs
    from runner.host.data.download import Progress

REDRAW_S = 0.1
STEP_BYTES = 50_000_000
"""How often a line comes in a pipe where nobody says how much there will be."""


@contextmanager
def shown(name: str, say: Callable[[str], None], stream: TextIO | None = None) -> Iterator["Progress"]:
    """The Progress of one file after another, under `name`. `stream` (stderr) decides, and on a terminal takes the line."""
    terminal = stream or sys.stderr
    if not terminal.isatty():
        yield _by_tenths(name, say)
        return
    line = TransferLine(name, terminal)
    try:
        yield line
    finally:
        line.end()


class TransferLine:
    """One line of a terminal: how much, how fast, how long still."""

    def __init__(self, name: str, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self.name, self._stream, self._clock = name, stream, clock
        self._began, self._first, self._have, self._drawn_at = 0.0, 0, -1, -REDRAW_S
        self._open = False

    def __call__(self, have: int, total: int | None) -> None:
        """Draw it, unless that was done just now; the last time always."""
        now = self._clock()
        if self._have < 0 or have < self._have:  # another file, or the same from its beginning
            self._began, self._first = now, have
        self._have = have
        if have != total and now - self._drawn_at < REDRAW_S:
            return
        self._drawn_at, self._open = now, True
        self._write("\r\x1b[K" + self._text(have, total, now - self._began)[: self._width()])

    def end(self) -> None:
        """Leave the line as it is; what comes next is below it."""
        if self._open:
            self._open = False
            self._write("\n")

    def erase(self) -> None:
        """Take the line away."""
        if self._open:
            self._open = False
            self._write("\r\x1b[K")

    def _text(self, have: int, total: int | None, seconds: float) -> str:
        text = f"{self.name}: {have / 1e6:.1f}" + (f" of {total / 1e6:.1f} MB" if total is not None else " MB")
        rate = (have - self._first) / seconds if seconds > 0 else 0.0
        if rate > 0:
            text += f", {rate / 1e6:.1f} MB/s"
            if total is not None:
                minutes, left = divmod(round((total - have) / rate), 60)
                text += f", {minutes}:{left:02} left"
        return text

    def _width(self) -> int:
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except OSError:
            columns = 0
        return (columns or 80) - 1

    def _write(self, text: str) -> None:
        with suppress(OSError):  # a terminal that is gone stops no download
            self._stream.write(text)
            self._stream.flush()


def _by_tenths(name: str, say: Callable[[str], None]) -> "Progress":
    step = -1

    def report(have: int, total: int | None) -> None:
        nonlocal step
        now = have * 10 // total if total else have // STEP_BYTES
        if now != step:
            step = now
            of = f" of {total / 1e6:.0f}" if total else ""
            say(f"{name}: downloaded {have / 1e6:.0f}{of} MB")

    return report
