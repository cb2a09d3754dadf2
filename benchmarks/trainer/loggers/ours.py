"""The Trainer's self.tensorboard: a call appends to a list, a thread encodes and writes the event file."""

from pathlib import Path

from runner.training.board import Board


class Ours:
    """One board."""

    def __init__(self, folder: Path) -> None:
        self._board = Board(folder)
        self.add, self.flush = self._board.add_scalar, self._board.flush


build = Ours
