"""projects/digits: its commands as a launch runs them, without torch."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from runner.contract.checkpoints import facts, pointed, verify
from runner.host.launch import gather
from runner.host.projects import experiment_names, load_project, render

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = load_project(REPOSITORY, "digits")


@pytest.fixture(scope="session", autouse=True)
def datasets(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The data set as a launch sees it."""
    folder = tmp_path_factory.mktemp("datasets")
    (folder / "digits").mkdir()
    script = REPOSITORY / "datasets" / "digits" / "prepare.py"
    for stage in ("raw", "lists"):
        variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "DATASET_DIR": str(folder / "digits")}
        subprocess.run([sys.executable, str(script), stage], env=variables, check=True, stdout=subprocess.DEVNULL)
    Run.datasets = folder


class Run:
    """A run folder as a launch has it, and the project's own commands on it."""

    datasets: Path

    def __init__(self, folder: Path, experiment: str, *overrides: str) -> None:
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self.checkpoints.mkdir(parents=True)
        (folder / "metrics.jsonl").touch()
        self.configure(experiment, *overrides)
        self.variables = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONUNBUFFERED": "1",
            "RUN_DIR": str(folder),
            "DATASETS_DIR": str(self.datasets),
            "RUNNER_CONFIG": str(folder / "config.json"),
            "RUNNER_ATTEMPT": "1",
            "HOME": str(folder),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }

    def configure(self, experiment: str, *overrides: str) -> None:
        values = gather.resolve(PROJECT, experiment, overrides, gpus="none").values
        (self.folder / "config.json").write_text(json.dumps(dict(values)))

    def command(self, kind: str, **values: Any) -> list[str]:
        words = render(PROJECT.commands[kind], values)
        return [sys.executable if word == "python" else word for word in words]

    def run(self, kind: str, expected: int = 0, variables: dict[str, str] | None = None, **values: Any) -> str:
        result = subprocess.run(
            self.command(kind, **values),
            env={**self.variables, **(variables or {})},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == expected, result.stdout + result.stderr
        return result.stdout + result.stderr

    def metrics(self) -> list[dict[str, Any]]:
        lines = map(json.loads, (self.folder / "metrics.jsonl").read_text().splitlines())
        return [{key: value for key, value in line.items() if key != "time"} for line in lines]


def test_every_experiment_resolves() -> None:
    assert set(experiment_names(PROJECT)) == {"debug", "default", "toy"}
    for name in experiment_names(PROJECT):
        assert gather.resolve(PROJECT, name, (), gpus="none").values["dataset"] == "digits"


def test_it_learns_and_its_evaluation_shows_it(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", "toy")
    said = run.run("train")
    assert "Best score: 0.9" in said
    lines = run.metrics()
    assert [(line["epoch"], line["split"]) for line in lines] == [
        (e, s) for e in range(1, 11) for s in ("train", "val")
    ]
    best = pointed(run.checkpoints, "best")
    assert best is not None
    assert facts(best)["score"] == max(line["accuracy"] for line in lines if line["split"] == "val")
    verify(best)
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    run.run("evaluate", variables={"OUTPUT_DIR": str(outputs)}, split="test", checkpoint=str(best))
    scores = json.loads((outputs / "metrics.json").read_text())
    assert scores["accuracy"] > 0.88
    rows = list(csv.DictReader((outputs / "predictions.csv").read_text().splitlines()))
    assert sum(row["label"] == row["prediction"] for row in rows) == round(scores["accuracy"] * 299)
    assert len(rows) == 299
    assert (outputs / "images" / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_only_latest_and_best_are_kept(tmp_path: Path) -> None:
    run = Run(tmp_path, "toy")
    run.run("train")
    named = {pointed(run.checkpoints, name) for name in ("latest", "best")}
    assert set(run.checkpoints.glob("*.joblib")) == named
    assert {path.stem for path in run.checkpoints.glob("*.json")} == {path.stem for path in named if path}


def test_the_same_seed_gives_the_same_run_and_another_does_not(tmp_path: Path) -> None:
    runs = [Run(tmp_path / str(n), "debug", f"seed={seed}") for n, seed in enumerate((0, 0, 1))]
    for run in runs:
        run.run("train")
    assert runs[0].metrics() == runs[1].metrics() != runs[2].metrics()


def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path) -> None:
    whole, broken = Run(tmp_path / "whole", "debug", "n_epochs=6"), Run(tmp_path / "broken", "debug", "n_epochs=3")
    whole.run("train")
    broken.run("train")
    broken.configure("debug", "n_epochs=6")
    broken.run("resume")
    assert broken.metrics() == whole.metrics()


def test_killed_in_an_epoch_it_goes_on_from_the_last_whole_one(tmp_path: Path) -> None:
    whole, broken = Run(tmp_path / "whole", "debug", "n_epochs=8"), Run(tmp_path / "broken", "debug", "n_epochs=8")
    whole.run("train")
    process = subprocess.Popen(
        broken.command("train"), env=broken.variables, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Epoch   4 | train"):
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    process.wait()
    assert pointed(broken.checkpoints, "latest") is not None
    broken.run("resume")
    assert broken.metrics() == whole.metrics()


def test_what_is_missing_is_said_in_one_line(tmp_path: Path) -> None:
    run = Run(tmp_path, "debug")
    said = run.run("resume", expected=2)
    assert "no checkpoint to go on from; start the run again" in said
    assert said.count("\n") == 1
    assert "no checkpoint; train the run first" in run.run("evaluate", expected=2, split="val", checkpoint="")
