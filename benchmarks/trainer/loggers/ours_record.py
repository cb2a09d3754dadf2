"""What the Trainer itself does for a logged loss: the line of metrics.jsonl and the event, together."""

from pathlib import Path

from runner.training.logger import Logger


class Ours:
    """One logger."""

    def __init__(self, folder: Path) -> None:
        self._logger = Logger(first=True, metrics=folder / "metrics.jsonl", tensorboard=folder / "tensorboard")
        self.flush = self._logger.board.flush

    def add(self, tag: str, value: float, step: int) -> None:
        self._logger.record(step, 1, "train", {"loss": value})


build = Ours
