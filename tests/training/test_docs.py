"""docs/trainer.md says what is so."""

import inspect
import re
from pathlib import Path
from typing import Any

import torch
from tiny import TinyTrainer, base_config
from torch import nn
from torch.utils.data import Dataset

from runner.contract.config import unread
from runner.contract.schema import SECTIONS
from runner.contract.trainer_keys import BESIDES, DEFAULTS, table, table_besides
from runner.training import Trainer, largest_batch, overfit_one_batch, print_model_spec
from runner.training.hooks import REQUIRED
from runner.training.session import Session, read_config

TEXT = (Path(__file__).parents[2] / "docs" / "trainer.md").read_text()


class CifarDataset(Dataset[dict[str, torch.Tensor]]):
    """What the example in the docs leaves out."""

    def __init__(self, mode: str) -> None:
        self.mode = mode

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"image": torch.rand(3, 32, 32), "label": torch.tensor(index % 10)}


def test_the_tables_of_keys_are_the_source_of_truth() -> None:
    for part in (table(), table_besides()):
        assert part in TEXT, "paste the output of `python -m runner.contract.trainer_keys` into docs/trainer.md"


def test_every_key_that_the_trainer_reads_is_in_a_table() -> None:
    """The config itself knows what was read in a whole training with everything on."""
    config = read_config(base_config(n_iterations=2, scheduler_unit="epoch", schedule="step"))
    trainer = TinyTrainer(config, session=Session.none())
    trainer.train()
    read = set(config) - set(unread(config)) - SECTIONS - {"batch_size", "learning_rate", "schedule"}
    described = set(re.findall(r"^\| `([a-z_.]+)` \|", TEXT, re.MULTILINE))
    assert read | set(BESIDES) | {"output_path"} <= described
    assert set(DEFAULTS) <= described


def test_every_hook_is_described() -> None:
    """All that a project may write or call: the public methods, the required ones among them."""
    table_of_hooks = "\n".join(line for line in TEXT.splitlines() if line.startswith("| `"))
    public = [name for name, value in inspect.getmembers(Trainer) if inspect.isfunction(value) and name[0] != "_"]
    assert set(REQUIRED) < set(public)
    for name in public:
        assert re.search(rf"`{name}[(`]", table_of_hooks), f"{name} is missing in the table of hooks"


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
    first, last = overfit_one_batch(TinyTrainer(base_config(learning_rate=0.02), session=Session.none()), 60)
    assert last < first / 2
