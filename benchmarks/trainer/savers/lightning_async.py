"""The same with lightning's AsyncCheckpointIO."""

from lightning.pytorch.plugins.io import AsyncCheckpointIO
from savers.lightning import Lightning
from saves import Job


class Async(Lightning):
    """Copies in the loop, saves in a thread."""

    def __init__(self, job: Job) -> None:
        self._io = AsyncCheckpointIO()
        super().__init__(job, plugins=[self._io])

    def wait(self) -> None:
        self._io.teardown()


build = Async
