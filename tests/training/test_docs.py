"""docs/trainer.md says what is so."""

import re
from pathlib import Path
from typing import Any

import torch
from tiny import TinyTrainer, base_config
from torch import nn
from torch.utils.data import Dataset

from runner.contract.trainer_keys import table
from runner.training import Trainer, largest_batch, overfit_one_batch, print_model_spec
from runner.training.hooks import REQUIRED

TEXT = (Path(__file__).parents[2] / "docs" / "trainer.md").read_text()


class CifarDataset(Dataset[dict[str, torch.Tensor]]):
    """What the example in the docs leaves out."""

    def __init__(self, mode: str) -> None:
        self.mode = mode

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"image": torch.rand(3, 32, 32), "label": torch.tensor(index % 10)}


def test_the_table_of_keys_is_the_source_of_truth() -> None:
    assert table() in TEXT, "paste the output of `python -m runner.contract.trainer_keys` into docs/trainer.md"


def test_every_hook_is_described() -> None:
    assert all(f"`{name}" in TEXT for name in REQUIRED)


def test_the_example_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, Any] = {
        "CifarDataset": CifarDataset,
        "CifarModel": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)),
    }
    exec(code, names)
    trainer: Trainer = names["CifarTrainer"](base_config(n_iterations=6, output_path=str(tmp_path)))
    trainer.train()
    assert trainer.progress.step == 6


def test_helpers(capsys: Any) -> None:
    assert print_model_spec(nn.Linear(999, 1000), "L") == "Model L: 1.00M parameters of which 1.00M are trainable."
    for answer in (0, 1, 2, 3, 100, 128, 129, 1000):
        tried: list[int] = []

        def fits(size: int, answer: int = answer, tried: list[int] = tried) -> None:
            tried.append(size)
            if size > answer:
                raise MemoryError

        assert largest_batch(fits, limit=1000) == answer and len(tried) == len(set(tried)) <= 21
    first, last = overfit_one_batch(TinyTrainer(base_config(learning_rate=0.02)), 60)
    assert last < first / 2
