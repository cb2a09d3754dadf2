"""The floor of blocking: copy every tensor to memory that is there already. Nothing is written."""

import torch
from saves import Job


class Copy:
    """Keeps one copy in memory."""

    def __init__(self, job: Job) -> None:
        self.step = job.step
        self._sources = job.tensors()
        self._targets = [torch.zeros_like(source) for source in self._sources]

    def save(self, number: int) -> None:
        torch._foreach_copy_(self._targets, self._sources)

    def wait(self) -> None:
        pass


build = Copy
