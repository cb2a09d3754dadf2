"""load_run after the real thing: the model scores what the run recorded, when the code it was written in is gone."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runner.contract import layout
from runner.host.engines.docker_engine import DockerEngine
from runner.host.engines.engine import ContainerSpec, Limits
from runner.host.house import find_house
from runner.host.launch.here import user_of_this_process
from runner.host.verbs.shell import RUNS, shell_environment, shell_mounts
from tests.e2e.conftest import REPO, TestHouse

SHORT = "n_iterations=10 val_iterations=5 print_iterations=5 n_workers=0 batch_size=64"
SCORE = """
import sys, torch
from runner.training import load_run
run = load_run("toy/1", "latest", overrides={"batch_size": 16})
right = n = 0
with torch.no_grad():
    for batch in run.data.val_dataloader:
        assert len(batch["label"]) <= 16
        right += (run.trainer.forward_model(run.trainer.preprocess_batch(batch)).argmax(1) == batch["label"]).sum().item()
        n += len(batch["label"])
print("score", run.step, right / n)
"""


def trained(house: TestHouse) -> Path:
    house.run("train", "--project", "cifar", "--config", "toy", "--engine", house.engine, "--set", SHORT)
    return house.only_run()


def recorded_score(run: Path) -> float:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return float(next(line["accuracy"] for line in lines if line["split"] == "val" and line["step"] == 10))


def said_score(output: str) -> float:
    (line,) = [line for line in output.splitlines() if line.startswith("score 10 ")]
    return float(line.split()[2])


def test_the_model_scores_what_the_run_recorded_after_its_clone_is_gone(cifar_house: TestHouse) -> None:
    house = cifar_house
    run = trained(house)
    shutil.rmtree(house.root)
    elsewhere = house.base / "notebooks"
    elsewhere.mkdir()
    environment = {**house.env(), "PYTHONPATH": str(REPO), "XDG_CACHE_HOME": str(house.base / "xdg")}
    done = subprocess.run(
        [sys.executable, "-c", SCORE], cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert said_score(done.stdout) == pytest.approx(recorded_score(run), abs=1e-6)


@pytest.mark.docker
def test_it_works_in_a_shell_with_the_runs_mounted_read_only(docker_house: TestHouse) -> None:
    """The very mounts and variables of `make shell`, on the run's own image; the live project was edited meanwhile."""
    house = docker_house
    for part in ("projects/cifar", "datasets/cifar10"):
        unwanted = shutil.ignore_patterns("__pycache__", "raw", "toy", "lists", ".stages")
        shutil.copytree(REPO / part, house.root / part, ignore=unwanted)
    run = trained(house)
    (house.root / "projects/cifar/model.py").write_text("raise SystemExit('the live code was imported')\n")
    found = find_house(house.root, house.environment)
    spec = ContainerSpec(
        name=f"shell-test-{os.getpid()}",
        image=house.manifest(run)["image"]["id"],
        argv=("python", "-W", "ignore", "-c", SCORE),
        workdir=layout.WORKSPACE,
        mounts=shell_mounts(found),
        environment=shell_environment("cifar"),
        labels={},
        user=user_of_this_process(),
        limits=Limits(),
    )
    assert any(mount.target == RUNS and mount.read_only for mount in spec.mounts)
    words = shlex.split(DockerEngine(found.cache).command_line(spec))
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert said_score(done.stdout) == pytest.approx(recorded_score(run), abs=1e-6)


def test_the_guides_example_runs(cifar_house: TestHouse) -> None:
    """Every Python block of docs/load_run.md, one after the other, as somebody would paste them."""
    house = cifar_house
    run = trained(house)
    text = (REPO / "docs/load_run.md").read_text()
    blocks = [part.split("```")[0] for part in text.split("```python\n")[1:]]
    assert len(blocks) >= 3
    environment = {**house.env(), "PYTHONPATH": str(REPO), "XDG_CACHE_HOME": str(house.base / "xdg")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join(blocks)],
        cwd=run.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
