"""Which device and which processes a training runs on."""

import os
from typing import Any

import torch

from runner.contract.errors import RunnerError
from runner.training.distributed import Processes
from runner.training.settings import Settings, refuse_nonsense


def place(config: Any, settings: Settings) -> tuple[torch.device, Processes]:
    """The device that `gpu` names (auto: a GPU where there is one), and the processes that were started together.

    Raises:
        RunnerError: gpu is true and there is none, or the settings make no sense on this device.
    """
    wanted = getattr(config, "gpu", "auto")
    available = torch.cuda.is_available()
    if wanted is True and not available:
        raise RunnerError(
            "gpu: true, but torch sees no GPU here; set gpu: auto or false, or give the launch one (GPUS=1)"
        )
    kind = "cuda" if available and wanted is not False else "cpu"
    refuse_nonsense(settings, device=kind, has_cuda_bf16=kind != "cuda" or torch.cuda.is_bf16_supported())
    if kind == "cuda":
        refuse_crowd(int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count())
    processes = Processes.join(kind)
    if kind == "cpu":
        return torch.device("cpu"), processes
    device = torch.device("cuda", processes.local_rank)
    torch.cuda.set_device(device)
    return device, processes


def refuse_crowd(n_processes: int, n_gpus: int) -> None:
    """Refuse more processes on this machine than it has GPUs: two on one would only hinder each other.

    Raises:
        RunnerError: names both numbers.
    """
    if n_processes > n_gpus:
        raise RunnerError(
            f"resources.processes: {n_processes}, but torch sees {n_gpus} GPU{'s' if n_gpus != 1 else ''} here; "
            f"give the launch {n_processes} (GPUS={n_processes}), or set resources.processes={n_gpus}, or gpu: false"
        )
