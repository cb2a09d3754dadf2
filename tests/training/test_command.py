"""python -m runner.training, as a launch starts it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny import base_config

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def command(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it as a launch would: in its workspace, with its variables."""
    return subprocess.run(
        [sys.executable, "-m", "runner.training", *arguments],
        cwd=cwd, env=_environment(**variables), capture_output=True, text=True, timeout=240,
    )  # fmt: skip


def _environment(**variables: str) -> dict[str, str]:
    path = {"PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT)]), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "TMPDIR")}
    return {**kept, **path, **variables}


class Launch:
    """A run folder as the host lays it out, with what may not be renamed made so."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.run = folder / "run"
        attempt = self.run / "attempts" / "1"
        for writable in ("checkpoints", "tensorboard", "debug"):
            (self.run / writable).mkdir(parents=True)
        attempt.mkdir(parents=True)
        (self.run / "metrics.jsonl").touch()
        self.config = attempt / "config.json"
        self.config.write_text(json.dumps(base_config(**changes)))
        self.variables = {"RUN_DIR": str(self.run), "RUNNER_CONFIG": str(self.config), "RUNNER_ATTEMPT": "1"}
        self.folder = folder

    def __call__(self, verb: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return command(verb, "tiny:TinyTrainer", *arguments, cwd=self.folder, **self.variables, **variables)

    def records(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (self.run / "metrics.jsonl").read_text().splitlines()]
        return [{key: value for key, value in line.items() if key != "time"} for line in lines]

    def sidecar(self, step: int) -> dict[str, Any]:
        return json.loads((self.run / "checkpoints" / f"step_{step:08d}.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """A launch that trained to its end."""
    launch = Launch(tmp_path_factory.mktemp("whole"))
    done = launch("train")
    assert done.returncode == 0, done.stderr
    launch.output = done.stdout  # type: ignore[attr-defined]
    return launch


def test_train_writes_into_the_run_folder_and_nothing_else(whole: Launch) -> None:
    assert sorted(path.name for path in whole.run.iterdir()) == [
        "attempts",
        "checkpoints",
        "debug",
        "metrics.jsonl",
        "tensorboard",
    ]
    assert sorted(path.name for path in whole.folder.iterdir()) == ["run"]
    assert "torch 2" in whole.output and "Summary" in whole.output  # type: ignore[attr-defined]


def test_a_sigterm_mid_run_and_resume_equal_the_whole(whole: Launch, tmp_path: Path) -> None:
    launch = Launch(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "runner.training", "train", "tiny:TinyTrainer"],
        cwd=tmp_path, env=_environment(**launch.variables), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Iteration    8/24"):
            process.send_signal(signal.SIGTERM)
            break
    process.stdout.read()
    process.stdout.close()
    if process.wait(60) == 0:
        pytest.skip("the machine was so slow to deliver the signal that the training had ended")
    assert process.returncode == 128 + signal.SIGTERM
    done = launch("resume")
    assert done.returncode == 0, done.stderr
    assert launch.records() == whole.records()
    assert launch.sidecar(24)["sha256"] == whole.sidecar(24)["sha256"]


def test_evaluate_writes_to_its_output_only(whole: Launch, tmp_path: Path) -> None:
    before = _listing(whole.run)
    checkpoint = whole.run / "checkpoints" / "step_00000024.pt"
    done = whole("evaluate", "--split", "val", "--checkpoint", str(checkpoint), OUTPUT_DIR=str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert _listing(whole.run) == before
    scores = json.loads((tmp_path / "out" / "metrics.json").read_text())
    last = whole.records()[-1]
    expected = {name: last[name] for name in ("loss", "accuracy")}
    assert scores == {
        "split": "val", "checkpoint": "step_00000024.pt", "step": 24, "score": last["accuracy"], **expected,
    }  # fmt: skip
    with np.load(tmp_path / "out" / "predictions.npz") as arrays:
        assert arrays["output"].shape == (19, 3) and arrays["label"].shape == (19,)
        right = float((arrays["output"].argmax(1) == arrays["label"]).mean())
    assert right == pytest.approx(scores["accuracy"])
    table = (tmp_path / "out" / "predictions.csv").read_text().splitlines()
    assert table[0] == "index,prediction,label" and len(table) == 20


def _listing(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))


def test_evaluate_without_a_checkpoint_and_of_a_split_there_is_not(whole: Launch, tmp_path: Path) -> None:
    done = whole("evaluate", "--checkpoint", "", OUTPUT_DIR=str(tmp_path / "out"))
    assert done.returncode == 0 and json.loads((tmp_path / "out" / "metrics.json").read_text())["checkpoint"] is None
    done = whole("evaluate", "--split", "test", OUTPUT_DIR=str(tmp_path / "out"))
    assert done.returncode == 2
    assert done.stderr == (
        "error: split 'test': TinyTrainer has none (have: train, val); set self.test_dataloader in create_data\n"
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("train", "tiny"), "'tiny': MODULE:CLASS expected"),
        (("train", "tiny:Nobody"), "tiny has no Nobody; check train: in project.yml"),
        (("train", "nothing.here:T"), "nothing.here: no such module below"),
    ],
)
def test_what_cannot_be_found(whole: Launch, arguments: tuple[str, ...], expected: str) -> None:
    done = command(*arguments, cwd=whole.folder, **whole.variables)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {expected}")


def test_a_yaml_config_and_a_session_of_its_own(tmp_path: Path) -> None:
    config = tmp_path / "tiny.yml"
    config.write_text(yaml.safe_dump(base_config(n_iterations=6, output_path="runs")))
    done = command("train", "tiny:TinyTrainer", "--config", str(config), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (session,) = (tmp_path / "runs").iterdir()
    done = command("resume", "tiny:TinyTrainer", "--session", str(session), cwd=tmp_path)
    assert done.returncode == 0 and "(step 6)" in done.stdout, done.stderr


def test_an_error_of_the_project_is_a_traceback(whole: Launch, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "import tiny\nclass T(tiny.TinyTrainer):\n    def create_loss(self):\n        1 / 0\n"
    )
    done = command("train", "broken:T", cwd=tmp_path, **whole.variables)
    assert done.returncode == 1 and done.stderr.rstrip().endswith("ZeroDivisionError: division by zero")


FAILING = "import tiny\nclass T(tiny.TinyTrainer):\n    def create_loss(self):\n        nothing = 1 / 0\n"


def test_the_debugger_opens_where_the_error_is_if_somebody_is_there(tmp_path: Path) -> None:
    launch = Launch(tmp_path, debug=True)
    done = launch("train")
    assert done.returncode == 2 and done.stderr.startswith(
        "error: debug: true opens pdb on an error, which needs a term"
    )
    assert "make shell PROJECT=" in done.stderr
    (tmp_path / "failing.py").write_text(FAILING)
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "runner.training", "train", "failing:T"],
        cwd=tmp_path, env=_environment(**launch.variables), stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, b"p type(self).__name__\nq\n")
    output, _ = process.communicate(timeout=120)
    os.close(ours)
    assert process.returncode == 1 and b"(Pdb) 'T'\n" in output


def test_two_processes_by_config(whole: Launch, tmp_path: Path) -> None:
    """Only the first of them writes, a signal is their exit code, and a resume continues exactly."""
    launch = Launch(tmp_path, resources={"processes": 2})
    done = launch("train")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Starting training session..") == 1 and "2 processes" in done.stdout
    halved = Launch(tmp_path / "halved", resources={"processes": 2})
    process = subprocess.Popen(
        [sys.executable, "-m", "runner.training", "train", "tiny:TinyTrainer"],
        cwd=halved.folder, env=_environment(**halved.variables), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _wait_for(halved.run / "metrics.jsonl", process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(90) == 128 + signal.SIGTERM
    done = halved("resume")
    assert done.returncode == 0, done.stderr
    assert halved.records() == launch.records()
    assert halved.sidecar(24)["sha256"] == launch.sidecar(24)["sha256"]


def test_one_of_two_processes_fails(tmp_path: Path) -> None:
    """The last line and the exit code are those of the one that knows why; only the first process writes."""
    (tmp_path / "spoilt.py").write_text(
        "import math, os, tiny\n"
        "class T(tiny.TinyTrainer):\n"
        "    def forward_loss(self, batch, output):\n"
        "        loss = super().forward_loss(batch, output)\n"
        "        return loss * math.nan if self.global_step == 11 and os.environ['RANK'] == '1' else loss\n"
    )
    launch = Launch(tmp_path, resources={"processes": 2}, profile=2)
    done = command("train", "spoilt:T", cwd=tmp_path, **launch.variables)
    assert done.returncode == 2
    last = done.stderr.rstrip().splitlines()[-1]
    assert last.startswith("error: step 11: the loss is nan; that is the loss of process 1, and only process 0 saves; ")
    assert [path.name for path in (launch.run / "debug").iterdir()] == ["trace.json"]
    assert json.loads((launch.run / "debug" / "trace.json").read_text())["distributedInfo"]["rank"] == 0


def test_a_traceback_in_one_of_two_processes(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "import os, tiny\n"
        "class T(tiny.TinyTrainer):\n"
        "    def create_loss(self):\n"
        "        1 / (1 - int(os.environ['RANK']))\n"
        "        super().create_loss()\n"
    )
    launch = Launch(tmp_path, resources={"processes": 2})
    done = command("train", "broken:T", cwd=tmp_path, **launch.variables)
    assert done.returncode == 1 and "ZeroDivisionError: division by zero" in done.stderr
    assert done.stderr.endswith("error: process 1 of 2 ended with exit code 1; see above\n")


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not path.stat().st_size and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
