"""Several processes that train one model, started by `spread` or by torchrun."""

import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from runner.training.order import Shard


@dataclass
class Processes:
    """This process among those that were started together; alone where none were."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    _control: Any = None

    @classmethod
    def join(cls, device_type: str) -> "Processes":
        """Find the other processes by torchrun's variables: gloo on the CPU, nccl on GPUs."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world == 1 or "RANK" not in os.environ:
            return cls()
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device_type == "cuda" else "gloo")
        control = dist.new_group(backend="gloo") if device_type == "cuda" else dist.group.WORLD
        return cls(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")), control)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    @property
    def shard(self) -> Shard:
        """Its part of the data."""
        return Shard(self.rank, self.world)

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model, its gradients averaged over all processes."""
        if self.world == 1:
            return model
        return Replicated(model, device_ids=[device.index] if device.type == "cuda" else None)

    def mean(self, value: float) -> float:
        """The mean over all processes."""
        if self.world == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(tensor, group=self._control)
        return float(tensor) / self.world

    def agree(self, value: Any) -> Any:
        """What the first process says."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._control)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in the order of their ranks."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self._control)
        return values

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier(group=self._control)


class SharedStop:
    """Lets all processes stop after the same step, though a signal reaches each at another moment.

    Each step starts a sum over everybody's wish and reads the one that the step before started, so that nobody waits.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._wish = torch.zeros(1, dtype=torch.int32)
        self._work: Any = None

    def agreed(self, number: int | None) -> int | None:
        """The signal that everybody stops for after this step; None to go on. `number` is what reached this process."""
        if self._processes.world == 1:
            return number
        result = None
        if self._work is not None:
            self._work.wait()
            result = int(self._wish[0]) or None
        self._wish = torch.tensor([number or 0], dtype=torch.int32)
        self._work = dist.all_reduce(self._wish, op=dist.ReduceOp.MAX, group=self._processes._control, async_op=True)
        return result


class Replicated(DistributedDataParallel):
    """A DistributedDataParallel that also has the attributes of the model inside, as `self.model.encoder` expects."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)
