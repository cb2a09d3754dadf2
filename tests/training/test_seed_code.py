"""The example of the seeds, as they print it, with nothing but its imports changed; and what its log looks like."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Adam
from torch.utils.data import DataLoader, Dataset

from runner.training import AccuracyMetrics, Trainer
from runner.training.session import Session

DATA_ROOT = "cifar10"


class CifarDataset(Dataset[dict[str, torch.Tensor]]):
    """As many pictures as a test needs."""

    def __init__(self, root: str = DATA_ROOT, mode: str = "train") -> None:
        n = 48 if mode == "train" else 30
        generator = torch.Generator().manual_seed(len(mode))
        self.label = torch.randint(0, 10, (n,), generator=generator)
        self.image = torch.rand(n, 3, 32, 32, generator=generator) * 0.2 + self.label[:, None, None, None] / 12

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"image": self.image[index], "label": self.label[index]}


class CifarModel(nn.Sequential):
    """A simple convolutional net."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 10))


# fmt: off
class CifarTrainer(Trainer):
    def create_data(self):
        self.train_dataset = CifarDataset(DATA_ROOT, mode='train')
        self.val_dataset = CifarDataset(DATA_ROOT, mode='val')

        self.train_dataloader = DataLoader(
            self.train_dataset, batch_size=self.config.batch_size,
            num_workers=self.config.n_workers, shuffle=True)
        self.val_dataloader = DataLoader(
            self.val_dataset, batch_size=self.config.batch_size,
            num_workers=self.config.n_workers, shuffle=False)

    def create_model(self):
        self.model = CifarModel()

    def create_loss(self):
        self.loss_fn = nn.CrossEntropyLoss()

    def create_optimiser(self):
        parameters_with_grad = \
            filter(lambda p: p.requires_grad, self.model.parameters())
        self.optimiser = Adam(parameters_with_grad, lr=self.config.learning_rate,
                              weight_decay=self.config.weight_decay)

    def create_metrics(self):
        self.train_metrics = AccuracyMetrics()
        self.val_metrics = AccuracyMetrics()

    def forward_model(self, batch):
        return self.model(batch['image'])

    def forward_loss(self, batch, output):
        return self.loss_fn(output, batch['label'])

    def visualise(self, batch, output, mode):
        self.tensorboard.add_images(mode + '/image', batch['image'],
                                    self.global_step)
# fmt: on


CONFIG = """\
output_path: {output}
tag: baseline
batch_size: 16
n_iterations: 200
print_iterations: 100
vis_iterations: 100
val_iterations: 200
n_workers: 0
gpu: false
learning_rate: 1e-3
weight_decay: 1e-4
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One training of the example."""
    folder = tmp_path_factory.mktemp("seed")
    config = folder / "cifar.yml"
    config.write_text(CONFIG.format(output=folder / "runs"))
    trainer = CifarTrainer(config)
    trainer.train()
    return {
        "folder": Path(trainer.session_name),
        "log": (Path(trainer.session_name) / "logs.txt").read_text(),
        "trainer": trainer,
    }


def test_the_session_folder(run: dict[str, Any]) -> None:
    assert re.fullmatch(r"session_.+_\d{4}_\d\d_\d\d_\d\d_\d\d_\d\d_baseline", run["folder"].name)
    assert sorted(path.name for path in run["folder"].iterdir()) == [
        "checkpoints",
        "config.yml",
        "logs.txt",
        "metrics.jsonl",
        "tensorboard",
    ]


def test_the_log_block(run: dict[str, Any]) -> None:
    time = r"\d\dh\d\dm\d\ds"
    block = (
        rf"Iteration  100/200 \| examples/s: \d+\.\d \| loss: \d\.\d{{4}} \| time elapsed: {time} \| time left: {time}\n"
        r"Fetch data time: [\d.]+ms, model update time: [\d.]+ms\n\n"
    )
    assert re.search(block, run["log"])
    assert "time left: 00h00m00s\n" in run["log"]


def test_the_validation_block(run: dict[str, Any]) -> None:
    line = "-" * 100
    block = (
        rf"{line}\nValidation\n{line}\n100%\|█+\| 2/2 \[00:00<00:00, [\d.]+it/s\]\nVal loss: \d\.\d{{4}}\n{line}\nMetrics\n{line}\n"
        rf"Train score: [01]\.\d{{3}}\nVal score: [01]\.\d{{3}}\nNew best score: -inf -> [01]\.\d{{3}}\n"
        rf"Model saved to: .+/checkpoints/step_00000200.pt\n{line}\n"
    )
    assert re.search(block, run["log"])
    assert "Starting training session.." in run["log"]


def test_it_learns_and_restores(run: dict[str, Any]) -> None:
    trainer = run["trainer"]
    assert isinstance(trainer.best_score, float) and trainer.best_score > 0.2
    again = CifarTrainer(run["folder"] / "config.yml", session=Session.existing(run["folder"]))
    assert again.resume() == 200 and again.best_score == trainer.best_score
    for name, value in again.model.state_dict().items():
        assert torch.equal(value, trainer.model.state_dict()[name])
    assert str(again.optimiser.state_dict()) == str(trainer.optimiser.state_dict())


def test_tensorboard_holds_the_picture(run: dict[str, Any]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run["folder"] / "tensorboard" / "train")).Reload()
    assert {"train/loss", "train/accuracy"} <= set(events.Tags()["scalars"] + events.Tags()["tensors"])
    pictures = events.Images("train/image")
    assert [(picture.step, picture.width, picture.height) for picture in pictures] == [
        (100, 8 * 32, 2 * 32),
        (200, 8 * 32, 2 * 32),
    ]
    val = EventAccumulator(str(run["folder"] / "tensorboard" / "val")).Reload()
    assert val.Images("val/image")[0].encoded_image_string.startswith(b"\x89PNG")


def test_what_is_missing_is_named_at_once() -> None:
    from runner.contract.errors import RunnerError

    class Half(Trainer):
        def create_data(self) -> None: ...

        def create_model(self) -> None: ...

    expected = "Half lacks create_loss, create_optimiser, create_metrics, forward_model, forward_loss, visualise; "
    with pytest.raises(RunnerError, match=expected):
        Half({"n_iterations": 1})
