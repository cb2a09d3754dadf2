"""The config keys that every Trainer project has without listing them: one table, read by the host and by the Trainer.

The host merges DEFAULTS under the default.yml of a project whose project.yml says `trainer: true`, and asks ON_RESUME
which of them may differ when a run is resumed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runner.contract.schema import BUILTIN

FREE = "free"
"""May change on resume: what was computed does not depend on it."""
HORIZON = "horizon"
"""May only be extended, and only if nothing depends on where the training ends; the Trainer asks the scheduler."""
FIXED = "fixed"
"""May not change on resume: it would be another run."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """One config key of the Trainer."""

    name: str
    default: Any
    kind: str
    """What a value must be: int, float, bool, or the words it may be, separated by |. `null` is allowed where it is the default."""
    meaning: str
    unit: str = ""
    resume: str = FIXED
    minimum: float | None = None


def _key(
    name: str, default: Any, kind: str, unit: str, meaning: str, resume: str = FIXED, minimum: float | None = None
) -> Key:
    return Key(name=name, default=default, kind=kind, unit=unit, meaning=meaning, resume=resume, minimum=minimum)


KEYS: tuple[Key, ...] = (
    _key(
        "n_iterations",
        None,
        "int",
        "optimiser steps",
        "length of the training; exactly one of n_iterations and n_epochs",
        HORIZON,
        0,
    ),
    _key(
        "n_epochs",
        None,
        "float",
        "epochs",
        "length of the training; exactly one of n_iterations and n_epochs",
        HORIZON,
        0,
    ),
    _key("print_iterations", 100, "int", "steps", "how often the loss is logged, always in steps", FREE, 1),
    _key("metric_iterations", 10, "int", "steps", "how often a training batch counts in the train score", FIXED, 1),
    _key(
        "val_iterations",
        None,
        "int",
        "steps",
        "how often to validate; neither this nor val_epochs: every epoch",
        FIXED,
        1,
    ),
    _key("val_epochs", None, "float", "epochs", "how often to validate, in epochs", FIXED, 0),
    _key(
        "vis_iterations",
        None,
        "int",
        "steps",
        "how often to visualise a training batch; neither: with the validation",
        FREE,
        1,
    ),
    _key("vis_epochs", None, "float", "epochs", "how often to visualise a training batch, in epochs", FREE, 0),
    _key("checkpoint_iterations", None, "int", "steps", "how often to save; neither: after each validation", FREE, 1),
    _key("checkpoint_epochs", None, "float", "epochs", "how often to save, in epochs", FREE, 0),
    _key("keep_last", 2, "int", "checkpoints", "how many of the newest to keep; best is always kept", FREE, 1),
    _key("keep_every", None, "int", "steps", "also keep those whose step is a multiple of this", FREE, 1),
    _key(
        "score",
        None,
        "text",
        "",
        "what `best` and patience look at: a score, or loss; null: the metrics' first, else loss",
    ),
    _key("score_direction", None, "max|min", "", "which way is better; null: min for loss, max for any other"),
    _key("patience", None, "int", "validations", "stop after so many without a better score; null: never", FIXED, 1),
    _key(
        "final_evaluation",
        True,
        "bool",
        "",
        "at the end, evaluate the best checkpoint on the test set, if there is one",
        FREE,
    ),
    _key(
        "loader",
        "auto",
        "auto|samples|batches",
        "",
        "read sample by sample, or whole batches from a data set that has get_batch",
    ),
    _key(
        "n_workers",
        0,
        "int",
        "processes",
        "worker processes that read data; the results depend on it for a stream (IterableDataset) alone",
        FREE,
        0,
    ),
    _key(
        "prefetch", 2, "int", "batches", "how many batches are copied to the GPU ahead; no effect on the CPU", FREE, 0
    ),
    _key("scheduler_unit", "step", "step|epoch", "", "when the learning-rate scheduler steps"),
    _key(
        "precision",
        "fp32",
        "fp32|bf16|fp16",
        "",
        "type of the forward pass (autocast); fp16 scales the loss and needs a GPU",
    ),
    _key(
        "accumulate",
        1,
        "int",
        "batches",
        "batches per optimiser step; examples weigh the same as in one large batch",
        FIXED,
        1,
    ),
    _key("clip_norm", None, "float", "", "largest norm of the gradient; null: not clipped", FIXED, 0),
    _key(
        "ema",
        None,
        "float",
        "",
        "decay of the weights' moving average, which validation and evaluation then use; null: none",
        FIXED,
        0,
    ),
    _key("channels_last", False, "bool", "", "memory format of 4-D weights and inputs"),
    _key("compile", False, "bool", "", "torch.compile the model"),
    _key(
        "deterministic",
        False,
        "bool",
        "",
        "only deterministic algorithms; one without a deterministic form is an error",
    ),
    _key(
        "nan_policy",
        "stop",
        "stop|ignore",
        "",
        "a NaN or infinite loss: stop names the step, saves the state and ends with an error",
        FREE,
    ),
    _key("write_file", True, "bool", "", "write metrics.jsonl and, where no launch does, logs.txt", FREE),
    _key("write_tb", True, "bool", "", "write tensorboard events", FREE),
    _key("profile", 0, "int", "steps", "trace so many steps with torch.profiler into debug/", FREE, 0),
    _key(
        "debug",
        False,
        "bool",
        "",
        "on an error open pdb where it happened; needs a terminal (make shell), which a launch has not",
        FREE,
    ),
)

DEFAULTS: dict[str, Any] = {key.name: key.default for key in KEYS}
ON_RESUME: dict[str, str] = {**{key.name: key.resume for key in KEYS}, "output_path": FREE}
"""output_path is no key of the Trainer's, but the seeds' configs have it: a run folder may be moved."""


def check(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The Trainer's keys among `values`, each as its kind, and what is wrong with them: all of it, not only the first.

    The host asks before it launches; the Trainer asks again, since it also runs without a host.
    """
    kept = {key.name: _coerced(key, values[key.name]) for key in KEYS if key.name in values}
    problems = [problem for key in KEYS if key.name in kept and (problem := _problem(key, kept[key.name]))]
    return kept, problems + _conflicts({**DEFAULTS, **kept})


def _coerced(key: Key, value: Any) -> Any:
    """`1e4` is a whole number of steps, and 2 a number of epochs."""
    if key.kind == "float" and type(value) is int:
        return float(value)
    if key.kind == "int" and type(value) is float and value.is_integer():
        return int(value)
    return value


def _problem(key: Key, value: Any) -> str | None:
    """What is wrong with one value."""
    if value is None and key.default is None:
        return None
    if key.kind == "text":
        right = isinstance(value, str)
    elif "|" in key.kind:
        right = value in key.kind.split("|")
    elif key.kind == "bool":
        right = isinstance(value, bool)
    else:
        right = type(value) is int or (key.kind == "float" and type(value) is float)
    if not right:
        return f"{key.name}: {key.kind} expected, found {value!r}"
    if key.minimum is not None and not value >= key.minimum:
        return f"{key.name}: at least {key.minimum:g} expected, found {value!r}"
    return None


def _conflicts(values: dict[str, Any]) -> list[str]:
    """Combinations that make no sense."""
    found = []
    iterations, epochs = values["n_iterations"], values["n_epochs"]
    if (iterations is None) == (epochs is None):
        found.append(
            f"exactly one of n_iterations and n_epochs expected, found {'neither' if iterations is None else 'both'} "
            "(set the other to null)"
        )
    for what in ("val", "vis", "checkpoint"):
        if values[f"{what}_iterations"] is not None and values[f"{what}_epochs"] is not None:
            found.append(
                f"only one of {what}_iterations and {what}_epochs expected, found both (set the other to null)"
            )
        if values[f"{what}_epochs"] == 0:
            found.append(f"{what}_epochs: more than 0 expected, found 0 (null validates after every epoch)")
    ema = values["ema"]
    if isinstance(ema, float) and not 0 < ema < 1:
        found.append(f"ema: a decay between 0 and 1 expected (0.999 is common), found {ema!r}; null switches it off")
    if values["clip_norm"] == 0:
        found.append("clip_norm: more than 0 expected, found 0 (no step would change anything); null switches it off")
    return found


BESIDES = ("seed", "gpu", "init_from", "resources.threads", "resources.processes")
"""Keys that every project has, Trainer or not, and on which a training depends."""


def table() -> str:
    """All keys as a Markdown table: `python -m runner.contract.trainer_keys` prints it, docs/trainer.md holds it."""
    rows = ["| key | default | unit | meaning | on resume |", "| --- | --- | --- | --- | --- |"]
    for key in KEYS:
        default = key.default if isinstance(key.default, str) else json.dumps(key.default)
        choices = f" ({key.kind.replace('|', ', ')})" if "|" in key.kind else ""
        rows.append(f"| `{key.name}` | {default} | {key.unit} | {key.meaning}{choices} | {key.resume} |")
    return "\n".join(rows)


def table_besides() -> str:
    """The keys of `BESIDES`, and output_path, the same way."""
    rows = ["| key | default | meaning | on resume |", "| --- | --- | --- | --- |"]
    for name in BESIDES:
        builtin = BUILTIN[name]
        default = builtin.default if isinstance(builtin.default, str) else json.dumps(builtin.default)
        rows.append(f"| `{name}` | {default} | {builtin.meaning} | {ON_RESUME.get(name, FIXED)} |")
    where = "where a Trainer outside any launch makes its session's folder; without the key ./checkpoints"
    return "\n".join([*rows, f"| `output_path` | | {where} | {ON_RESUME['output_path']} |"])


if __name__ == "__main__":
    print(table(), table_besides(), sep="\n\n")
