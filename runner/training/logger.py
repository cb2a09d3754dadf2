"""Where numbers go: the terminal, metrics.jsonl and tensorboard."""

import json
import math
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from runner.training.appended_file import AppendedFile
from runner.training.board import Board


class Logger:
    """Prints, and writes metrics.jsonl and tensorboard. Only the first of several processes has one that does anything."""

    def __init__(
        self, *, first: bool, metrics: Path | None, tensorboard: Path | None, purge_step: int | None = None
    ) -> None:
        self._first = first
        self._path = metrics if first else None
        self._file = AppendedFile(metrics, self.say) if metrics is not None and first else None
        self.board = Board(tensorboard if first else None, purge_step=purge_step, tell=self.say)

    def say(self, text: str) -> None:
        """Print a line or a block."""
        if self._first:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def record(self, step: int, epoch: int, split: str, values: Mapping[str, float]) -> None:
        """One line of metrics.jsonl and the same numbers on tensorboard."""
        for name, value in values.items():
            self.board.add_scalar(f"{split}/{name}", value, step)
        if self._file is not None:
            numbers = {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
            line = {"step": step, "epoch": epoch, "split": split, **numbers, "time": round(time.time(), 3)}
            self._file.append((json.dumps(line) + "\n").encode(), f"step {step}")

    def sync(self) -> None:
        """Make durable what was recorded; a checkpoint is published only after the lines that belong to it."""
        self.board.flush()
        if self._file is not None:
            self._file.sync()

    def close(self) -> None:
        """Write the rest."""
        self.board.close()
        if self._file is not None:
            self._file.close()

    def rewind(self, step: int) -> None:
        """Drop what was recorded after `step`, the final evaluation and a torn last line, in the file as it stands.

        The file is cut, not replaced: it may be a mount of its own, which no rename can reach.
        """
        if self._path is None or not self._path.exists():
            return
        with self._path.open("r+b") as handle:
            lines = handle.read().splitlines(keepends=True)
            for number, line in enumerate(lines, 1):
                if line.endswith(b"\n") and _entry(line) is None:
                    self.say(f"WARNING: {self._path}: line {number} cannot be read, it is dropped: {line[:80]!r}")
            handle.seek(0)
            handle.write(b"".join(line for line in lines if _is_before(line, step)))
            handle.truncate()


def _entry(line: bytes) -> dict[str, Any] | None:
    """What a line of metrics.jsonl holds; None where it is torn or foreign."""
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("step"), int) else None


def _is_before(line: bytes, step: int) -> bool:
    entry = _entry(line)
    return entry is not None and entry.get("split") != "test" and entry["step"] <= step


def stack_lines(device: torch.device, *, deterministic: bool, processes: int) -> str:
    """What computed this: the first lines of every log."""
    cuda = f"CUDA {torch.version.cuda}, cuDNN {_cudnn()}" if torch.version.cuda else "no CUDA"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} {_vector_width()}"
    return (
        f"Python {platform.python_version()}, torch {torch.__version__}, {cuda}\n"
        f"Device: {device} ({name}), {torch.get_num_threads()} threads, {processes} process{'es' if processes > 1 else ''}, "
        f"deterministic algorithms {'on' if deterministic else 'off'}"
    )


def _cudnn() -> str:
    return str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]


def _vector_width() -> str:
    return str(torch.backends.cpu.get_cpu_capability())


def hyperparameter_lines(values: Mapping[str, Any]) -> str:
    """The config, one key a line."""
    return "\n".join(f"  {name}: {json.dumps(value, default=str)}" for name, value in values.items())
