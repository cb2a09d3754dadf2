"""ImageDataset: the same batches from raw files and both kinds of LMDB, and so the same training."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from runner.contract.errors import RunnerError
from runner.inside.dataset.examples import open_raw
from runner.inside.dataset.lmdb_file import KINDS
from runner.inside.dataset.lmdb_write import write_lmdb
from runner.training import AccuracyMetrics, Trainer
from runner.training.data import BatchLoader, ImageDataset
from tests.inside.dataset import made

FORMATS = ("raw", *KINDS)
SIZES = [made.pixels(1, n, (3, 8 + n % 5, 8 + n % 3))[0] for n in range(53)]


def resized(image: torch.Tensor) -> torch.Tensor:
    """Any size to 8 x 8, a little brighter or darker by the generator that the Trainer seeds."""
    small = nn.functional.interpolate(image[None].float(), (8, 8), mode="bilinear", antialias=True)[0]
    return small / 255 + 0.1 * torch.rand(1)


def flipped(batch: dict[str, Any]) -> dict[str, Any]:
    turned = torch.rand(len(batch["image"])) < 0.5
    batch["image"][turned] = batch["image"][turned].flip(3)
    return batch


class ShapesTrainer(Trainer):
    """A linear model on images of many sizes."""

    def create_data(self) -> None:
        def opened() -> ImageDataset:
            return ImageDataset(
                Path(self.config.root), "train", format=self.config.format, each=resized, transform=flipped
            )

        self.train_dataset, self.val_dataset = opened(), opened()
        options: dict[str, Any] = {"batch_size": 8, "num_workers": self.config.n_workers}
        self.train_dataloader = DataLoader(self.train_dataset, shuffle=True, **options)
        self.val_dataloader = DataLoader(self.val_dataset, **options)

    def create_model(self) -> None:
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))

    def create_loss(self) -> None:
        self.loss_fn = nn.CrossEntropyLoss()

    def create_optimiser(self) -> None:
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=0.01)

    def create_metrics(self) -> None:
        self.train_metrics, self.val_metrics = AccuracyMetrics(), AccuracyMetrics()

    def forward_model(self, batch: Any) -> Any:
        return self.model(batch["image"])

    def forward_loss(self, batch: Any, output: Any) -> Any:
        return self.loss_fn(output, batch["label"])

    def visualise(self, batch: Any, output: Any, mode: str) -> None:
        self.tensorboard.add_images(mode + "/image", batch["image"], self.global_step)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of many sizes as files and as both kinds of LMDB."""
    folder = tmp_path_factory.mktemp("shapes")
    what = made.files(folder, SIZES)
    for kind in KINDS:
        (folder / "lmdb" / kind).mkdir(parents=True)
        examples = open_raw(folder, "train", what)
        write_lmdb(folder / "lmdb" / kind / "train.mdb", examples, folder / "lists" / "train.txt", what, kind)
    return folder


def trained(folder: Path, root: Path, format: str, n_workers: int, loader: str = "auto") -> tuple[Any, list[Any]]:
    """The weights after twenty steps, and what was logged."""
    config = {
        "seed": 3,
        "gpu": False,
        "tag": "x",
        "batch_size": 8,
        "n_iterations": 20,
        "print_iterations": 1,
        "val_iterations": 10,
        "vis_iterations": 10,
        "n_workers": n_workers,
        "root": str(root),
        "format": format,
        "loader": loader,
        "output_path": str(folder),
    }
    trainer = ShapesTrainer(config)
    trainer.train()
    (metrics,) = folder.glob("**/metrics.jsonl")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    return trainer.model.state_dict(), [{k: v for k, v in line.items() if k != "time"} for line in lines]


def test_the_same_training_from_every_format_and_any_number_of_workers(root: Path, tmp_path: Path) -> None:
    """Random augmentation of every image and of the batch included."""
    runs = {(f, n): trained(tmp_path / f"{f}{n}", root, f, n) for f in FORMATS for n in (0, 2)}
    runs["raw", -1] = trained(tmp_path / "samples", root, "raw", 0, "samples")
    weights, lines = runs["raw", 0]
    assert len([line for line in lines if line["split"] == "train"]) >= 20
    for name, (other, said) in runs.items():
        assert all(torch.equal(weights[key], other[key]) for key in weights), name
        assert said == lines, name


def test_fixed_shapes_batches_and_examples(tmp_path: Path) -> None:
    images = made.pixels(20)
    made.binary(tmp_path, images)
    dataset = ImageDataset(tmp_path, "train")
    assert (dataset.format, len(dataset), dataset.draws_random) == ("raw", 20, False)
    assert dataset.schema.classes == made.CLASSES and dataset.labels.tolist() == [n % 2 for n in range(20)]
    batch = dataset.get_batch(torch.tensor([19, 2, 2]))
    assert torch.equal(batch["image"], torch.from_numpy(images[[19, 2, 2]])) and batch["image"].dtype == torch.uint8
    assert torch.equal(batch["label"], torch.tensor([1, 0, 0]))
    assert torch.equal(dataset[19]["image"], batch["image"][0]) and int(dataset[19]["label"]) == 1
    for n_workers in (0, 2):
        loader = DataLoader(dataset, 6, num_workers=n_workers)
        assert torch.equal(torch.cat([part["image"] for part in loader]), torch.from_numpy(images))
    whole = torch.cat([part["image"] for part in BatchLoader(dataset, 6)])
    assert torch.equal(whole, torch.from_numpy(images))


def test_auto_takes_the_quickest_that_is_there(root: Path, tmp_path: Path) -> None:
    assert ImageDataset(root, "train", each=resized).format == "arrays"
    (tmp_path / "lmdb" / "encoded").mkdir(parents=True)
    for part in ("raw", "lists", "lmdb/encoded/train.mdb"):
        (tmp_path / part).symlink_to(root / part)
    assert ImageDataset(tmp_path, "train", each=resized).format == "encoded"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "jpg"}, "format: 'jpg': expected one of auto, raw, arrays, encoded"),
        ({}, r"images of different sizes \(uint8 \(3, \*, \*\)\); give each=, which makes them of one size"),
        ({"split": "test"}, "test.txt: not there; make it with `make dataset"),
    ],
)
def test_what_cannot_be_opened_says_why(root: Path, options: dict[str, Any], message: str) -> None:
    split = options.pop("split", "train")
    with pytest.raises(RunnerError, match=message):
        ImageDataset(root, split, **options)


def test_a_damaged_file_is_named_also_by_a_worker(tmp_path: Path) -> None:
    made.files(tmp_path, SIZES)
    (tmp_path / "raw" / "9.png").write_bytes(b"")
    loader = DataLoader(ImageDataset(tmp_path, "train", each=resized), 8, num_workers=2)
    with pytest.raises(RunnerError, match=r"9.png: found 0 bytes, expected an image"):
        list(loader)
