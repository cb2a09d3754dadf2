"""The Trainer's own config keys, read once and checked together."""

from dataclasses import dataclass
from typing import Any

from runner.contract.errors import RunnerError
from runner.contract.trainer_keys import KEYS, check


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What trainer_keys.KEYS lists, for one run; meaning and units stand there."""

    n_iterations: int | None
    n_epochs: float | None
    print_iterations: int
    metric_iterations: int
    val_iterations: int | None
    val_epochs: float | None
    vis_iterations: int | None
    vis_epochs: float | None
    checkpoint_iterations: int | None
    checkpoint_epochs: float | None
    keep_last: int
    keep_every: int | None
    score: str | None
    score_direction: str | None
    patience: int | None
    final_evaluation: bool
    loader: str
    n_workers: int
    prefetch: int
    scheduler_unit: str
    precision: str
    accumulate: int
    clip_norm: float | None
    ema: float | None
    channels_last: bool
    compile: bool
    deterministic: bool
    nan_policy: str
    write_file: bool
    write_tb: bool
    profile: int
    debug: bool

    @classmethod
    def from_config(cls, config: Any) -> "Settings":
        """Read every key from `config`, its default where the config has it not.

        Raises:
            RunnerError: names every key that is wrong, not only the first.
        """
        values, problems = check({key.name: getattr(config, key.name, key.default) for key in KEYS})
        if problems:
            raise RunnerError("config: " + "; ".join(problems))
        return cls(**values)


def check_builtin(config: Any) -> None:
    """Look at the keys that a launch has checked and a config of somebody's own has not.

    Raises:
        RunnerError: names each that is wrong.
    """
    problems = []
    seed, gpu = getattr(config, "seed", None), getattr(config, "gpu", "auto")
    if type(seed) is not int or seed < 0:
        problems.append(f"seed: a whole number from 0 on expected, found {seed!r}")
    if gpu not in ("auto", True, False) or type(gpu) is int:
        problems.append(f"gpu: true, false or auto expected, found {gpu!r}")
    if problems:
        raise RunnerError("config: " + "; ".join(problems))


def refuse_nonsense(settings: Settings, *, device: str, has_cuda_bf16: bool = True) -> None:
    """Refuse what this device cannot do, with the reason.

    Raises:
        RunnerError: names key, device and what to set instead.
    """
    if settings.precision == "fp16" and device == "cpu":
        raise RunnerError("precision: fp16 needs a GPU (its loss scaling has no CPU form); set precision: bf16 or fp32")
    if settings.precision == "bf16" and device == "cuda" and not has_cuda_bf16:
        raise RunnerError("precision: bf16 is not supported by this GPU; set precision: fp16")
