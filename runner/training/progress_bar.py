"""A bar on a terminal; in a pipe or a file only its last line."""

import sys
import time

_WIDTH = 45
_EVERY_S = 0.1


class ProgressBar:
    """`100%|█████| 79/79 [00:01<00:00, 47.14it/s]`, rewritten in place on a terminal."""

    def __init__(self, total: int | None, *, on: bool = True) -> None:
        self._total, self._on = total, on
        self._live = on and sys.stderr.isatty()
        self._n = 0
        self._start = time.perf_counter()
        self._shown = self._start

    def advance(self) -> None:
        """One more is done."""
        self._n += 1
        if self._live and (now := time.perf_counter()) - self._shown > _EVERY_S:
            self._shown = now
            sys.stderr.write("\r" + self._line(now))
            sys.stderr.flush()

    def close(self) -> None:
        """Leave the last line standing."""
        if self._on:
            line = self._line(time.perf_counter())
            if self._live:
                sys.stderr.write("\r" + line + "\n")
                sys.stderr.flush()
            else:
                print(line, flush=True)

    def _line(self, now: float) -> str:
        seconds = max(now - self._start, 1e-9)
        rate = self._n / seconds
        if self._total is None:
            return f"{self._n}it [{_clock(seconds)}, {rate:.2f}it/s]"
        part = self._n / max(1, self._total)
        left = (self._total - self._n) / rate if rate else 0
        bar = ("█" * round(part * _WIDTH)).ljust(_WIDTH)
        return f"{part:>4.0%}|{bar}| {self._n}/{self._total} [{_clock(seconds)}<{_clock(left)}, {rate:.2f}it/s]"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"
