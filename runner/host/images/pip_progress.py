"""What pip says and does while it fetches wheels, as short lines; on a terminal the bytes of a large one as they come."""

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from runner.host.images.locked import Report
from runner.host.pages.transfer import TransferLine

LOOK_S = 0.2
_UNITS = {"GB": 10**9, "MB": 10**6}


class PipProgress:
    """Turns pip's lines into one short line a package. While a large file comes pip says nothing: its folder is looked at."""

    def __init__(self, total: int, report: Report, folder: Path, stream: TextIO | None = None) -> None:
        """`folder`: pip's TMPDIR; `stream`: stderr, where it is a terminal a line is drawn on it."""
        self.total = total
        self.done = 0
        self.report = report
        self._folder, self._stream = folder, stream or sys.stderr
        self.large_bytes = 0
        """Of the last large file that it began to fetch."""
        self._line: TransferLine | None = None
        self._name = ""
        self._one_at_a_time = threading.Lock()

    def __call__(self, line: str) -> None:
        """pip has said `line`."""
        with self._one_at_a_time:
            self._close()
            started = re.match(
                r"(?:Collecting|Processing) (?:\S*/)?([\w.]+(?:-[A-Za-z][\w.]*)*)(?:===|-)([\w.+]+)", line
            )
            large = re.match(r"\s+Downloading (?:\S*/)?(\S+) \(([\d.]+) ([GM]B)\)$", line)
            if started is not None:
                self.done += 1
                self.report(f"wheels {self.done}/{self.total}: {started[1]} {started[2]}")
            elif large is not None:
                self.report(f"  {large[1]} {large[2]} {large[3]}")
                self.large_bytes = int(float(large[2]) * _UNITS[large[3]])
                if self._stream.isatty():
                    self._name, self._line = large[1], TransferLine(f"  {large[1].split('-')[0]}", self._stream)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at the folder now and then."""
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(ended,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
            self._close()

    def _watch(self, ended: threading.Event) -> None:
        while not ended.wait(LOOK_S):
            with self._one_at_a_time:
                if self._line is not None:
                    self._line(min(self._bytes_there(), self.large_bytes), self.large_bytes)

    def _close(self) -> None:
        if self._line is not None:
            self._line.erase()
            self._line = None

    def _bytes_there(self) -> int:
        """Of the file by its name: pip's cache keeps a second copy beside it."""
        sizes = [0]
        for path in self._folder.rglob(self._name):
            with suppress(OSError):  # gone while we looked
                sizes.append(path.stat().st_size)
        return max(sizes)
