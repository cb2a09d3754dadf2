"""A run's model in a process of its own, whose every module of ours, the runner too, is the run's snapshot.

Arguments and results travel as tensors and plain values (torch.save), so that nothing of that process is executed here.
"""

import io
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import torch

from runner.contract.config import Config, snapshot
from runner.contract.errors import RunnerError

WORKER = Path(__file__).with_name("isolated_worker.py")


class IsolatedModel:
    """Stands for a model: call it with what the model takes. Gradients stay on the other side."""

    def __init__(self, source: Path, trainer: str, config: Config, checkpoint: Path | None) -> None:
        environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER)],
            cwd=source,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._finalizer = weakref.finalize(self, _end, self._process)
        path = None if checkpoint is None else str(checkpoint)
        self._ask("start", trainer, snapshot(config), path)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """The model's output, without gradients, on the CPU."""
        return self._ask("call", arguments, named)

    def forward(self, batch: Any) -> Any:
        """The Trainer's forward_model for a whole batch."""
        return self._ask("forward", batch)

    def state_dict(self) -> dict[str, Any]:
        """The weights by name."""
        weights: dict[str, Any] = self._ask("state_dict")
        return weights

    def restore(self, checkpoint: Path, *, averaged: bool = True) -> None:
        """Put a checkpoint's weights into the model."""
        self._ask("restore", str(checkpoint), averaged)

    def close(self) -> None:
        """End the process; it also ends with this object."""
        self._finalizer()

    def _ask(self, *request: Any) -> Any:
        """Send one request and wait for its answer.

        Raises:
            RunnerError: the other process failed; its traceback is on stderr, its last line in the message.
        """
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None and answers is not None
        buffer = io.BytesIO()
        torch.save(request, buffer)
        try:
            requests.write(buffer.tell().to_bytes(8, "big") + buffer.getvalue())
            requests.flush()
            header = answers.read(8)
            content = answers.read(int.from_bytes(header, "big"))
        except (OSError, ValueError):
            header = content = b""
        if len(header) < 8 or not content:
            raise RunnerError(f"the isolated process ended ({self._process.wait()}); its own words are on stderr")
        fine, value = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if not fine:
            raise RunnerError(f"in the isolated process: {value}")
        return value


def _end(process: "subprocess.Popen[bytes]") -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
