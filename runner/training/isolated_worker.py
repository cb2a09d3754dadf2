"""The other side of `isolated`: started as a file, it imports runner and the project from the run's snapshot alone."""

import importlib
import io
import os
import sys
import traceback
from pathlib import Path
from typing import IO, Any

import torch

_OUTPUT = "its output holds more than tensors, numbers, texts, lists and dicts"


class Worker:
    """One model and what can be asked of it."""

    def start(self, trainer: str, values: dict[str, Any], checkpoint: str | None) -> None:
        """Make the model. A snapshot from before `building` makes its whole Trainer, data included."""
        from runner.contract.config import Config
        from runner.training.session import Session

        module, _, name = trainer.partition(":")
        cls = getattr(importlib.import_module(module), name)
        try:
            from runner.training.building import build

            self.trainer = build(cls, Config(values))
        except ModuleNotFoundError as error:
            if error.name != "runner.training.building":
                raise
            self.trainer = cls(Config(values), session=Session.none())
        if checkpoint is not None:
            self.restore(checkpoint, True)

    def restore(self, checkpoint: str, averaged: bool) -> None:
        """Put a checkpoint's weights into the model."""
        from runner.training.checkpoints import load_state

        state = load_state(Path(checkpoint))
        weights = state["ema"] if averaged and state.get("ema") else state["model"]
        self.trainer.bare_model.load_state_dict(weights)
        self.trainer.bare_model.eval()

    def call(self, arguments: Any, named: Any) -> Any:
        """The model's output."""
        return self.trainer.bare_model(*arguments, **named)

    def forward(self, batch: Any) -> Any:
        """The Trainer's output for a batch."""
        return self.trainer.forward_model(self.trainer.preprocess_batch(batch))

    def state_dict(self) -> Any:
        """The weights by name."""
        return self.trainer.bare_model.state_dict()


def main(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until nobody asks any more."""
    worker = Worker()
    while len(header := requests.read(8)) == 8:
        name, *arguments = torch.load(io.BytesIO(requests.read(int.from_bytes(header, "big"))), weights_only=True)
        try:
            with torch.no_grad():
                content = _packed((True, getattr(worker, name)(*arguments)))
        except Exception as error:
            traceback.print_exc()
            content = _packed((False, f"{type(error).__name__}: {error}"))
        answers.write(len(content).to_bytes(8, "big") + content)
        answers.flush()


def _packed(answer: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(answer, buffer)
    try:
        torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    except Exception as error:
        raise TypeError(_OUTPUT) from error
    return buffer.getvalue()


if __name__ == "__main__":
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the project prints must not get among the answers
    main(sys.stdin.buffer, channel)
