"""torch.distributed.checkpoint.async_save as it is by default, in one process."""

from typing import Any

from saves import Job
from torch.distributed.checkpoint import FileSystemWriter, async_save


class Dcp:
    """Saves asynchronously; `settings` go to async_save."""

    def __init__(self, job: Job, **settings: Any) -> None:
        self._job, self.step, self._settings = job, job.step, settings
        self._future: Any = None

    def save(self, number: int) -> None:
        self.wait()
        writer = FileSystemWriter(self._job.path(number))  # syncs its files
        self._future = async_save(self._job.state(), storage_writer=writer, no_dist=True, **self._settings)

    def wait(self) -> None:
        if self._future is not None:
            self._future.result()


build = Dcp
