"""Which device and which processes a training runs on."""

from typing import Any

import torch

from runner.contract.errors import RunnerError
from runner.training.distributed import Processes
from runner.training.settings import Settings, refuse_nonsense


def place(config: Any, settings: Settings) -> tuple[torch.device, Processes]:
    """The device that `gpu` names (auto: a GPU where there is one), and the processes that torchrun started.

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
    processes = Processes.join(kind)
    if kind == "cpu":
        return torch.device("cpu"), processes
    device = torch.device("cuda", processes.local_rank)
    torch.cuda.set_device(device)
    return device, processes
