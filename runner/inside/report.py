"""For commands of any framework: read this launch's settings, log metrics, write scores. Imports no framework.

    from runner.inside import report

    config = report.config()
    report.log(step=100, epoch=1, loss=0.4, accuracy=0.9)      one line of metrics.jsonl
    report.scores(accuracy=0.91, score=0.91)                   metrics.json of an evaluation

JSON has no NaN and no infinity: both are written as null, so that every line can be read by every tool.
"""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsFloat

from runner.contract import layout
from runner.contract.config import Config, load_config
from runner.contract.errors import RunnerError
from runner.contract.jsonio import pretty_json, write_atomic

OURS = ("step", "epoch", "split", "time")


def config() -> Config:
    """The resolved config of this launch, frozen: `config.learning_rate`, `config["model"]["n_hidden"]`.

    Raises:
        RunnerError: this is no launch, or its config.json cannot be read.
    """
    return load_config(_folder("RUNNER_CONFIG"))


def log(step: int, *, split: str = "train", epoch: int | None = None, **scalars: SupportsFloat) -> None:
    """Append the scalars (numbers, or anything that float() takes) at `step` to the run's metrics.jsonl.

    A line is written at once and whole: several processes may log, and a kill leaves no half line.

    Raises:
        RunnerError: a scalar is no number or has a name that the line uses itself.
    """
    line: dict[str, Any] = {"step": int(step), "split": split}
    if epoch is not None:
        line["epoch"] = int(epoch)
    line |= {**_numbers(scalars), "time": round(time.time(), 3)}
    descriptor = os.open(run_dir() / layout.METRICS_JSONL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, json.dumps(line).encode() + b"\n")
    finally:
        os.close(descriptor)


def scores(**values: SupportsFloat) -> None:
    """Write the scores of an evaluation to its metrics.json. `score` is the one that lists show; `step` may name the
    training step of the checkpoint.

    Raises:
        RunnerError: this launch has no outputs folder (a training logs with `log`), or a value is no number.
    """
    write_atomic(output_dir() / layout.METRICS_JSON, pretty_json(_numbers(values, reserved=())))


def run_dir() -> Path:
    """The run's folder: logs, checkpoints/, tensorboard/, debug/."""
    return _folder("RUN_DIR")


def output_dir() -> Path:
    """The folder that an evaluation or a preparation writes to."""
    return _folder("OUTPUT_DIR")


def dataset_dir(name: str | None = None) -> Path:
    """The folder of a data set, with raw/ lmdb/ lists/ of the variant that was asked for; without a name, the config's.

    Raises:
        RunnerError: no name, and the config names no data set or several.
    """
    if name is None:
        named = config().get("dataset")
        if not isinstance(named, str):
            raise RunnerError(f"the config's dataset is {named!r}; expected one name, so say which: dataset_dir(NAME)")
        name = named
    return _folder("DATASETS_DIR") / name


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        kind = os.environ.get("RUNNER_KIND", "no launch at all")
        raise RunnerError(f"{variable} is not set here ({kind}); start this with `make train` or `make eval`")
    return Path(value)


def _numbers(scalars: Mapping[str, SupportsFloat], reserved: tuple[str, ...] = OURS) -> dict[str, int | float | None]:
    """The scalars as JSON has them."""
    found: dict[str, int | float | None] = {}
    for name, value in scalars.items():
        if name in reserved:
            raise RunnerError(f"metric {name!r}: the line has a field of this name already; choose another")
        try:
            number = value if isinstance(value, int) else float(value)
        except (TypeError, ValueError):
            raise RunnerError(f"metric {name!r}: found {value!r}, expected a number") from None
        found[name] = number if math.isfinite(number) else None
    return found
