"""torch.utils.tensorboard, which has a writing thread too but encodes in the caller's."""

from pathlib import Path

from torch.utils.tensorboard import SummaryWriter


class Writer:
    """One writer."""

    def __init__(self, folder: Path) -> None:
        self._writer = SummaryWriter(str(folder))
        self.add, self.flush = self._writer.add_scalar, self._writer.flush


build = Writer
