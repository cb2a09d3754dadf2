"""projects/cifar: its data set and pictures on the toy set, and whole sessions through the Trainer's command line."""

import csv
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from PIL import Image  # noqa: E402 (after the skips)

from projects.cifar.data import CifarDataset, random_shift_and_flip  # noqa: E402
from projects.cifar.model import CifarModel  # noqa: E402
from projects.cifar.pictures import confusion_matrix, worst_mistakes, write_per_class  # noqa: E402
from runner.contract.errors import RunnerError  # noqa: E402
from runner.host.launch import gather  # noqa: E402
from runner.host.projects import experiment_names, load_project  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[2]
TRAINER = "projects.cifar.trainer:CifarTrainer"


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A datasets folder as a launch sees it, with the toy set at cifar10/."""
    folder = tmp_path_factory.mktemp("datasets")
    (folder / "made").mkdir()
    script = REPOSITORY / "datasets" / "cifar10" / "prepare.py"
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "DATASET_DIR": str(folder / "made")}
    subprocess.run([sys.executable, str(script), "toy"], env=variables, check=True, stdout=subprocess.DEVNULL)
    (folder / "cifar10").symlink_to("made/toy")
    return folder


class TestDataset:
    def test_images_and_labels_are_those_of_the_records(self, datasets: Path) -> None:
        root = datasets / "cifar10"
        dataset = CifarDataset("train", root)
        assert (len(dataset), len(CifarDataset("val", root)), len(CifarDataset("test", root))) == (900, 100, 200)
        for index, line in enumerate((root / "lists" / "train.txt").read_text().splitlines()[::97]):
            _, path, label = line.split("\t")
            file, record = path.split("#")
            raw = (root / file).read_bytes()[int(record) * 3073 : (int(record) + 1) * 3073]
            sample = dataset[index * 97]
            assert int(sample["label"]) == int(label) == raw[0] == dataset.labels[index * 97]
            assert sample["image"].shape == (3, 32, 32)
            assert bytes(sample["image"].flatten().tolist()) == raw[1:]

    def test_a_batch_equals_its_samples_in_any_order_and_with_workers(self, datasets: Path) -> None:
        dataset = CifarDataset("train", datasets / "cifar10")
        indices = torch.tensor([899, 3, 3, 450, 0])
        batch = dataset.get_batch(indices)
        for row, index in enumerate(indices.tolist()):
            assert torch.equal(batch["image"][row], dataset[index]["image"])
            assert int(batch["label"][row]) == int(dataset[index]["label"])
        for workers in (0, 2):
            loader = torch.utils.data.DataLoader(dataset, 64, num_workers=workers)
            images = torch.cat([part["image"] for part in loader])
            assert torch.equal(images, dataset.get_batch(torch.arange(900))["image"])

    def test_its_pickle_is_small_and_works(self, datasets: Path) -> None:
        dataset = CifarDataset("val", datasets / "cifar10")
        first = dataset[0]["image"]
        text = pickle.dumps(dataset)
        assert len(text) < 20_000
        assert torch.equal(pickle.loads(text)[0]["image"], first)

    def test_the_folder_comes_from_the_variable(self, datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DATASETS_DIR", str(datasets))
        assert CifarDataset(mode="val").root == datasets / "cifar10"
        assert CifarDataset(mode="val").schema.classes[9] == "truck"

    def test_a_cut_file_is_named(self, datasets: Path, tmp_path: Path) -> None:
        root = tmp_path / "cifar10"
        shutil.copytree(datasets / "cifar10", root)
        os.truncate(root / "raw" / "test_batch.bin", 3074)
        with pytest.raises(RunnerError, match=r"test_batch.bin: found 3074 bytes .* expected a multiple of 3073"):
            CifarDataset("test", root, format="raw")[0]
        os.truncate(root / "raw" / "test_batch.bin", 3073)
        with pytest.raises(RunnerError, match=r"test_batch.bin: has 1 records, and .*test.txt names number 199"):
            CifarDataset("test", root, format="raw")[0]

    def test_raw_and_lmdb_give_the_same(self, datasets: Path) -> None:
        root = datasets / "cifar10"
        both = [CifarDataset("train", root, format=format) for format in ("raw", "arrays")]
        assert CifarDataset("train", root).format == "arrays"
        indices = torch.tensor([899, 3, 3, 450, 0])
        one, other = (dataset.get_batch(indices) for dataset in both)
        assert torch.equal(one["image"], other["image"]) and torch.equal(one["label"], other["label"])


class TestAugmentation:
    def test_each_image_is_a_moved_and_perhaps_mirrored_copy(self) -> None:
        torch.manual_seed(0)
        images = torch.randint(1, 256, (64, 3, 32, 32), dtype=torch.uint8)
        moved = random_shift_and_flip(images)
        assert (moved.shape, moved.dtype) == (images.shape, images.dtype)
        padded = torch.nn.functional.pad(images, (4, 4, 4, 4))
        seen = set()
        for before, after in zip(padded, moved, strict=True):
            found = [
                (down, across, flip)
                for down in range(9)
                for across in range(9)
                for flip in (False, True)
                if torch.equal(after, cut_of(before, down, across, flip))
            ]
            assert len(found) == 1
            seen.add(found[0])
        assert {flip for _, _, flip in seen} == {False, True}
        assert {down for down, _, _ in seen} == set(range(9)) == {across for _, across, _ in seen}

    def test_it_follows_torchs_generator_and_no_other(self, datasets: Path) -> None:
        dataset = CifarDataset("train", datasets / "cifar10", augment=True)
        plain = CifarDataset("train", datasets / "cifar10")
        assert (dataset.draws_random, plain.draws_random) == (True, False)
        batches = []
        for _ in range(2):
            torch.manual_seed(3)
            batches.append(dataset.get_batch(torch.arange(16))["image"])
        assert torch.equal(*batches)
        assert not torch.equal(batches[0], plain.get_batch(torch.arange(16))["image"])


def cut_of(padded: Any, down: int, across: int, flip: bool) -> Any:
    cut = padded[:, down : down + 32, across : across + 32]
    return cut.flip(2) if flip else cut


class TestModel:
    def test_bytes_and_floats_give_the_same_scores(self) -> None:
        model = CifarModel().eval()
        images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
        assert model(images).shape == (4, 10)
        assert torch.equal(model(images), model(images.float() / 255))

    def test_its_state_holds_what_is_learnt_alone(self) -> None:
        assert not {"mean", "std"} & set(CifarModel().state_dict())


class TestPictures:
    def test_confusion_and_accuracy_by_class(self, tmp_path: Path) -> None:
        matrix = confusion_matrix(np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0]), 3)
        assert matrix.tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]
        write_per_class(matrix, ["a", "b", "c"], tmp_path / "x.csv")
        assert (tmp_path / "x.csv").read_text() == "class,images,right,accuracy\na,2,1,0.5000\nb,3,2,0.6667\nc,0,0,\n"

    def test_the_surest_mistake_comes_first(self) -> None:
        output = np.array([[0.0, 1.0], [0.0, 5.0], [9.0, 0.0], [0.0, 2.0]])
        worst, probability = worst_mistakes(output, np.array([0, 0, 0, 1]), most=5)
        assert worst.tolist() == [1, 0]
        assert probability.sum(axis=1) == pytest.approx(1.0)


def resolved(experiment: str, *overrides: str) -> dict[str, Any]:
    """The config as the host resolves it, on the CPU."""
    project = load_project(REPOSITORY, "cifar")
    facts = gather.resolve(project, experiment, overrides, gpus="none")
    return dict(facts.values)


def test_the_notebook_runs_from_top_to_bottom(datasets: Path) -> None:
    notebook = json.loads((REPOSITORY / "datasets" / "cifar10" / "explore.ipynb").read_text())
    code = "display = print\n" + "".join(
        "".join(cell["source"]) + "\n" for cell in notebook["cells"] if cell["cell_type"] == "code"
    )
    variables = {"PATH": os.environ["PATH"], "DATASETS_DIR": str(datasets), "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False, cwd=datasets
    )
    assert result.returncode == 0, result.stderr
    assert re.search(r"all +200 +900 +100", result.stdout)
    assert all(not cell.get("outputs") for cell in notebook["cells"])


class TestConfigs:
    def test_every_experiment_resolves(self) -> None:
        project = load_project(REPOSITORY, "cifar")
        assert set(experiment_names(project)) == {"baseline", "debug", "default", "toy"}
        tags = {name: resolved(name)["tag"] for name in experiment_names(project)}
        assert tags == {"baseline": "baseline", "debug": "debug", "default": "default", "toy": "toy"}
        assert (resolved("toy")["data"], resolved("baseline")["data"]) == ("toy", "full")
        assert resolved("toy")["dataset"] == "cifar10"


class Session:
    """A run folder as a launch has it, and the Trainer's commands on it."""

    def __init__(self, folder: Path, datasets: Path, config: dict[str, Any]) -> None:
        self.folder = folder
        for name in ("checkpoints", "tensorboard", "debug", "home"):
            (folder / name).mkdir(parents=True)
        for name in ("logs.txt", "metrics.jsonl"):
            (folder / name).touch()
        (folder / "config.json").write_text(json.dumps(config))
        self.variables = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "RUN_DIR": str(folder),
            "DATASETS_DIR": str(datasets),
            "RUNNER_CONFIG": str(folder / "config.json"),
            "RUNNER_ATTEMPT": "1",
            "HOME": str(folder / "home"),
            "MPLCONFIGDIR": str(folder / "home"),
            "OMP_NUM_THREADS": "1",
            "PYTHONHASHSEED": "0",
        }

    def run(self, verb: str, *arguments: str, **variables: str) -> str:
        command = [sys.executable, "-m", "runner.training", verb, TRAINER, *arguments]
        result = subprocess.run(
            command, env={**self.variables, **variables}, capture_output=True, text=True, check=False, cwd=REPOSITORY
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout + result.stderr

    def metrics(self, split: str) -> list[dict[str, Any]]:
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        return [line for line in map(json.loads, lines) if line["split"] == split]


class TestSession:
    def test_debug_runs_a_whole_session_in_seconds(self, datasets: Path, tmp_path: Path) -> None:
        session = Session(tmp_path / "run", datasets, resolved("debug"))
        said = session.run("train")
        assert "Iteration" in said
        assert "Val score" in said
        assert len(list((session.folder / "checkpoints").glob("step_*.pt"))) >= 1
        assert [line["step"] for line in session.metrics("val")] == [8, 16]
        assert any((session.folder / "tensorboard").rglob("events*"))

    def test_workers_and_augmentation_change_nothing_that_they_should_not(self, datasets: Path, tmp_path: Path) -> None:
        losses = []
        for workers in (0, 2):
            config = resolved("debug", f"n_workers={workers}", "augment=true", "n_iterations=8", "print_iterations=1")
            session = Session(tmp_path / str(workers), datasets, config)
            session.run("train")
            losses.append([line["loss"] for line in session.metrics("train") if "loss" in line])
        assert losses[0] == losses[1]
        assert len(losses[0]) == 8

    @pytest.mark.slow
    def test_toy_learns_and_its_evaluation_shows_it(self, datasets: Path, tmp_path: Path) -> None:
        session = Session(tmp_path / "run", datasets, resolved("toy"))
        session.run("train")
        best = session.folder / "checkpoints" / (session.folder / "checkpoints" / "best").read_text().strip()
        outputs = tmp_path / "outputs"
        outputs.mkdir()
        session.run("evaluate", "--split", "test", "--checkpoint", str(best), OUTPUT_DIR=str(outputs))
        scores = json.loads((outputs / "metrics.json").read_text())
        assert scores["accuracy"] > 0.8
        rows = list(csv.DictReader((outputs / "predictions.csv").read_text().splitlines()))
        assert len(rows) == 200
        by_class = list(csv.DictReader((outputs / "per_class.csv").read_text().splitlines()))
        assert [row["class"] for row in by_class] == list(CifarDataset("val", datasets / "cifar10").schema.classes)
        assert sum(int(row["right"]) for row in by_class) == round(scores["accuracy"] * 200)
        for name in ("confusion.png", "worst_mistakes.png"):
            with Image.open(outputs / "images" / name) as picture:
                assert picture.width > 400
