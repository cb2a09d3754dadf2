"""torch.save as it should be called: beside, fsync, rename, fsync of the folder. In the loop."""

import os

import torch
from saves import Job


class Save:
    """Saves durably in the training thread."""

    def __init__(self, job: Job) -> None:
        self._job, self.step = job, job.step

    def save(self, number: int) -> None:
        path = self._job.path(number)
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as handle:
            torch.save(self._job.state(), handle)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def wait(self) -> None:
        pass


build = Save
