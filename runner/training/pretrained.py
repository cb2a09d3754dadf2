"""`init_from: models/<name>[/<version>]`: a new training begins with the weights of a model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from runner.contract.errors import RunnerError
from runner.contract.jsonio import file_sha256
from runner.contract.models import find_model
from runner.training.places import known_root

if TYPE_CHECKING:
    from runner.training.trainer import Trainer

_WRAPPERS = ("ema", "model", "state_dict", "model_state_dict")
"""Under which key a file may hold the weights; without one of them it is the weights."""
_SAFE_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def start_from(trainer: "Trainer", reference: str) -> None:
    """Load a model's weights into the Trainer's new model, and say so.

    Raises:
        RunnerError: no such model, a damaged file, or weights that do not fit: what differs is named.
    """
    root = known_root("models")
    if root is None:
        raise RunnerError(f"init_from={reference!r}: where models are is not known here; set MODELS_ROOT")
    model = find_model(root, reference)
    if file_sha256(model.file) != model.sha256:
        raise RunnerError(f"{model.file}: its bytes are not those that its card names; release it again")
    weights = read_weights(model.file)
    check_fit(weights, trainer.bare_model.state_dict(), model.reference)
    trainer.bare_model.load_state_dict(weights)
    if trainer.update.ema is not None:
        trainer.update.ema.load_state_dict(trainer.bare_model.state_dict())
    trainer.logger.say(f"Initial weights: {model.reference} (sha256 {model.sha256[:12]})")


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors file, a checkpoint, or a saved state dict; no code is executed.

    Raises:
        RunnerError: none of these.
    """
    try:
        value = _safetensors(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise RunnerError(
            f"{path}: cannot be read as weights ({reason}); a state dict of tensors is expected"
        ) from None
    for name in _WRAPPERS:
        if isinstance(value, Mapping) and isinstance(value.get(name), Mapping) and value[name]:
            value = value[name]
            break
    if not isinstance(value, Mapping) or not all(isinstance(tensor, torch.Tensor) for tensor in value.values()):
        raise RunnerError(f"{path}: holds {type(value).__name__} instead of tensors by name")
    return dict(value)


def check_fit(weights: Mapping[str, Any], wanted: Mapping[str, Any], reference: str) -> None:
    """Refuse weights with other names or shapes than the model's.

    Raises:
        RunnerError: names what is missing, what is too much and what has another shape.
    """
    shared = [name for name in wanted if name in weights and weights[name].shape != wanted[name].shape]
    shapes = [f"{name} {tuple(weights[name].shape)} for {tuple(wanted[name].shape)}" for name in shared]
    problems = [
        f"{what} {_some(names)}"
        for what, names in (
            ("lacks", [name for name in wanted if name not in weights]),
            ("has besides", [name for name in weights if name not in wanted]),
            ("has another shape:", shapes),
        )
        if names
    ]
    if problems:
        raise RunnerError(
            f"init_from={reference!r}: does not fit this model: it {'; it '.join(problems)}; give the layers the same "
            "names and shapes, or load it in create_model from MODELS_DIR"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The format in full: 8 bytes of length, a JSON table of types, shapes and places, then the bytes."""
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    table = json.loads(content[8:start])
    table.pop("__metadata__", None)
    tensors = {}
    for name, entry in table.items():
        kind, (begin, end) = _SAFE_TYPES[entry["dtype"]], entry["data_offsets"]
        if begin == end:
            tensors[name] = torch.empty(entry["shape"], dtype=kind)
            continue
        part = content[start + begin : start + end]
        tensors[name] = torch.frombuffer(part, dtype=kind).reshape(entry["shape"])
    return tensors
