"""tensorboardX."""

from pathlib import Path

from tensorboardX import SummaryWriter


class Writer:
    """One writer."""

    def __init__(self, folder: Path) -> None:
        self._writer = SummaryWriter(str(folder))
        self.add, self.flush = self._writer.add_scalar, self._writer.flush


build = Writer
