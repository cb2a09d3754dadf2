"""init_from: a new training begins with a model's weights; a resumed one does not; what does not fit is named."""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from runner.contract.errors import RunnerError
from runner.training.pretrained import check_fit, read_weights
from runner.training.session import Session
from tests.training.tiny import TinyTrainer, base_config


def put(root: Path, value: Any, name: str = "start") -> Path:
    """A model of one version."""
    folder = root / name / "v1"
    folder.mkdir(parents=True)
    torch.save(value, folder / "weights.pt")
    digest = hashlib.sha256((folder / "weights.pt").read_bytes()).hexdigest()
    card = {"schema_version": 1, "name": name, "version": "v1", "file": "weights.pt", "sha256": digest}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODELS_ROOT", str(tmp_path / "models"))
    return tmp_path / "models"


def begun(**changes: Any) -> TinyTrainer:
    """A Trainer just before its first step."""
    trainer = TinyTrainer(base_config(n_iterations=0, **changes), session=Session.none())
    trainer.train()
    return trainer


def other_weights(seed: int = 77) -> dict[str, torch.Tensor]:
    return TinyTrainer(base_config(seed=seed), session=Session.none()).bare_model.state_dict()


@pytest.mark.parametrize("wrap", [dict, lambda w: {"model": w, "ema": None}, lambda w: {"state_dict": w, "epoch": 3}])
def test_a_training_begins_with_the_models_weights(models: Path, wrap: Any, capsys: pytest.CaptureFixture[str]) -> None:
    weights = other_weights()
    put(models, wrap(weights))
    trainer = begun(init_from="models/start")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in trainer.bare_model.state_dict().items())
    assert "Initial weights: models/start/v1" in capsys.readouterr().out


def test_the_moving_average_begins_there_too_and_is_preferred(models: Path) -> None:
    weights, average = other_weights(1), other_weights(2)
    put(models, {"model": weights, "ema": average, "progress": {"step": 3}})
    trainer = begun(init_from="models/start/v1", ema=0.9)
    assert trainer.update.ema is not None
    averaged = trainer.update.ema.state_dict()
    assert all(torch.equal(tensor, average[name]) for name, tensor in averaged.items())


def test_what_does_not_fit_is_named(models: Path) -> None:
    weights = other_weights()
    first = next(iter(weights))
    shapes = {**weights, first: torch.zeros(2, 2), "head.weight": torch.zeros(1)}
    del shapes[list(weights)[-1]]
    put(models, shapes)
    with pytest.raises(
        RunnerError, match=rf"it lacks 4.bias; it has besides head.weight; .*{first} \(2, 2\) for \(12, 6\)"
    ):
        begun(init_from="models/start")
    with pytest.raises(RunnerError, match=r"there is none of that name; did you mean 'start'"):
        begun(init_from="models/stort")
    many = {f"layer{n}.weight": torch.zeros(1) for n in range(9)}
    with pytest.raises(RunnerError, match=r"layer4.weight and 4 more"):
        check_fit({}, many, "models/start/v1")


def test_damaged_weights_and_code_in_a_pickle_are_refused(models: Path) -> None:
    folder = put(models, other_weights())
    content = bytearray((folder / "weights.pt").read_bytes())
    content[300] ^= 1
    (folder / "weights.pt").write_bytes(content)
    with pytest.raises(RunnerError, match="its bytes are not those that its card names"):
        begun(init_from="models/start")
    torch.save({"weight": torch.zeros(1), "hook": print}, folder / "code.pt")
    with pytest.raises(RunnerError, match="cannot be read as weights"):
        read_weights(folder / "code.pt")


def test_safetensors_are_read(tmp_path: Path) -> None:
    """Written by hand from the format's description."""
    floats, ints = struct.pack("<4f", 1, 2, 3, 4), struct.pack("<2q", -5, 6)
    table = {
        "__metadata__": {"by": "hand"},
        "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "b": {"dtype": "I64", "shape": [2], "data_offsets": [16, 32]},
        "none": {"dtype": "F32", "shape": [0], "data_offsets": [32, 32]},
    }
    header = json.dumps(table).encode()
    path = tmp_path / "weights.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + floats + ints)
    weights = read_weights(path)
    assert torch.equal(weights["a"], torch.tensor([[1.0, 2.0], [3.0, 4.0]])) and weights["b"].tolist() == [-5, 6]
    assert weights["none"].shape == (0,)


def test_a_resumed_training_does_not_begin_again(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(models, other_weights())
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    monkeypatch.setenv("RUN_DIR", str(folder))
    values = base_config(init_from="models/start", n_iterations=4, checkpoint_iterations=4)
    first = TinyTrainer(values)
    first.train()
    (models / "start/v1/weights.pt").unlink()  # nothing may ask for it now
    again = TinyTrainer({**values, "n_iterations": 4})
    assert again.resume() == 4
    again.train()
    for name, tensor in first.bare_model.state_dict().items():
        assert torch.equal(tensor, again.bare_model.state_dict()[name])
