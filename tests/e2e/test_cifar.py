"""The project that people meet first: trained, interrupted, resumed and evaluated, in a container and in a local process."""

import csv
import json
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import TestHouse, read_or_empty, wait_for

SHORT = "n_iterations=40 val_iterations=20 print_iterations=5 checkpoint_iterations=5 n_workers=2"


def train(house: TestHouse, *arguments: str, check: int | None = 0) -> Path:
    house.run("train", "--project", "cifar", "--config", "toy", "--engine", house.engine, *arguments, check=check)
    return house.runs()[-1]


def state_of(run: Path) -> str:
    """What the last checkpoint holds, as one hash over every tensor and value."""
    name = (run / "checkpoints" / "latest").read_text().strip()
    value: str = json.loads((run / "checkpoints" / name).with_suffix(".json").read_text())["state_sha256"]
    return value


def metrics_of(run: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "time"} for line in lines]


def test_interrupted_and_resumed_equals_uninterrupted(cifar_house: TestHouse) -> None:
    """The toy set is made on the way; DataLoader workers share memory; SIGINT saves; the resumed run is the same run."""
    house = cifar_house
    whole = train(house, "--set", SHORT)
    assert house.outcome(whole)["state"] == "COMPLETED" and house.outcome(whole)["step"] == 40
    process = house.start(
        "train", "--project", "cifar", "--config", "toy", "--engine", house.engine, "--set", SHORT, "--tag", "broken"
    )
    broken = wait_for(lambda: next(iter(house.checkpoints.glob("cifar/*/*_broken")), None), "the run's folder")
    wait_for(lambda: " 5/40" in read_or_empty(broken / "logs.txt"), "its first steps", timeout_s=120)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert house.outcome(broken)["state"] == "INTERRUPTED" and house.outcome(broken)["step"] < 40
    assert f"make resume RUN={broken.name}" in err
    refused = house.run("resume", "--run", broken.name, "--set", "learning_rate=0.5", check=2)
    assert "learning_rate was" in refused.stderr and "another run" in refused.stderr
    assert not (broken / "attempts/2").exists()
    house.run("resume", "--run", broken.name, "--set", "print_iterations=5 n_workers=0")
    assert house.outcome(broken, 2)["state"] == "COMPLETED"
    assert house.manifest(broken, 2)["overrides"] == ["print_iterations=5", "n_workers=0"]
    assert state_of(broken) == state_of(whole)
    assert metrics_of(broken) == metrics_of(whole)
    assert "COMPLETED" in house.run("resume", "--run", broken.name, check=2).stderr


def test_evaluation_writes_predictions_scores_and_pictures(cifar_house: TestHouse) -> None:
    house = cifar_house
    run = train(house, "--set", SHORT)
    house.run("eval", "--split", "test", "--checkpoint", "40")
    (folder,) = house.outputs.glob(f"cifar/cifar10/{run.name}/test_40_*")
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {
        "metrics.json",
        "predictions.npz",
        "predictions.csv",
        "per_class.csv",
        "images/confusion.png",
        "images/worst_mistakes.png",
    } <= names
    scores = json.loads((folder / "metrics.json").read_text())
    with (folder / "predictions.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    right = sum(row["prediction"] == row["label"] for row in rows)
    assert scores["score"] == scores["accuracy"] == pytest.approx(right / len(rows))
    assert json.loads((folder / "launch/outcome.json").read_text())["score"] == pytest.approx(scores["score"])


HARD = """
import subprocess, sys, torch
if len(sys.argv) > 1:
    import torch.distributed as d
    d.init_process_group("gloo")
    x = torch.ones(1)
    d.all_reduce(x)
    open(f"/tmp/sum{d.get_rank()}", "w").write(str(int(x)))
    d.destroy_process_group()
    sys.exit()

@torch.compile
def f(x):
    return torch.relu(x).sum()

assert f(torch.ones(4)).item() == 4.0
print("compiled")
subprocess.run(["torchrun", "--standalone", "--nproc-per-node=2", __file__, "worker"], check=True)
print("sums", open("/tmp/sum0").read(), open("/tmp/sum1").read())
import matplotlib.pyplot, torch.utils.tensorboard, getpass
print("imported", getpass.getuser())
"""


@pytest.mark.docker
def test_compile_torchrun_and_the_usual_imports_work_in_the_hardened_container(docker_house: TestHouse) -> None:
    house = docker_house
    (house.root / "projects/probe/project.yml").write_text("base: cpu\ntrain: [python, -m, projects.probe.train]\n")
    lock = (house.root / "requirements/cifar.txt").read_text()
    (house.root / "requirements/probe.txt").write_text(lock)
    (house.root / "requirements/probe.in").write_text((house.root / "requirements/cifar.in").read_text())
    house.code(HARD)
    done = house.train()
    assert "compiled" in done.stdout and "sums 2 2" in done.stdout and "imported" in done.stdout
