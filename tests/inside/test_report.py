"""The helper that commands of any framework log with."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

from runner.contract.errors import RunnerError
from runner.inside import report


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A launch's folder, and the variables that name it."""
    config = tmp_path / "config.json"
    config.write_text('{"learning_rate": 0.1, "dataset": "cifar10", "model": {"n_hidden": 128}}')
    monkeypatch.setenv("RUNNER_CONFIG", str(config))
    monkeypatch.setenv("RUN_DIR", str(tmp_path))
    monkeypatch.setenv("DATASETS_DIR", "/datasets")
    monkeypatch.delenv("OUTPUT_DIR", raising=False)
    return tmp_path


def lines(run: Path) -> list[dict[str, object]]:
    """What was logged, less the clock."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(isinstance(line.pop("time"), float) for line in found)
    return found


def test_config(run: Path) -> None:
    config = report.config()
    assert (config.learning_rate, config["model"]["n_hidden"]) == (0.1, 128)


def test_log(run: Path) -> None:
    report.log(step=1, loss=0.5, epoch=0)
    report.log(2, split="val", accuracy=numpy.float32(0.25), seen=10, ready=True)
    assert lines(run) == [
        {"step": 1, "split": "train", "epoch": 0, "loss": 0.5},
        {"step": 2, "split": "val", "accuracy": 0.25, "seen": 10, "ready": True},
    ]


def test_what_json_has_no_word_for_is_null(run: Path) -> None:
    report.log(step=1, loss=math.nan, gradient=math.inf, other=1.0)
    assert lines(run) == [{"step": 1, "split": "train", "loss": None, "gradient": None, "other": 1.0}]


def test_what_is_no_number_is_refused_and_nothing_is_written(run: Path) -> None:
    with pytest.raises(RunnerError, match=r"metric 'loss': found \[1\], expected a number"):
        report.log(step=1, loss=[1])  # type: ignore[arg-type]
    with pytest.raises(RunnerError, match="metric 'time': the line has a field of this name"):
        report.log(step=1, time=1.0)
    assert not (run / "metrics.jsonl").exists()


def test_lines_of_several_processes_stay_whole(run: Path) -> None:
    code = (
        "from runner.inside import report\nfor i in range(300): report.log(i, **{f'metric_{k}': k for k in range(50)})"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code], cwd=Path(report.__file__).parents[2]) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert len(lines(run)) == 900


def test_scores_of_an_evaluation(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunnerError, match="OUTPUT_DIR is not set here"):
        report.scores(accuracy=1.0)
    monkeypatch.setenv("OUTPUT_DIR", str(run))
    report.scores(accuracy=0.75, score=0.75, step=10)
    assert json.loads((run / "metrics.json").read_text()) == {"accuracy": 0.75, "score": 0.75, "step": 10}


def test_folders(run: Path) -> None:
    assert report.run_dir() == run
    assert report.dataset_dir() == Path("/datasets/cifar10")
    assert report.dataset_dir("mnist") == Path("/datasets/mnist")
    (run / "config.json").write_text('{"dataset": ["a", "b"]}')
    with pytest.raises(RunnerError, match="say which"):
        report.dataset_dir()


def test_outside_of_a_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUNNER_CONFIG", "RUNNER_KIND"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RunnerError, match=r"RUNNER_CONFIG is not set here \(no launch at all\); start this with `make"):
        report.config()


def test_it_imports_no_framework() -> None:
    code = (
        "import sys; import runner.inside.report; print([m for m in ('torch', 'numpy', 'docker') if m in sys.modules])"
    )
    cwd = Path(report.__file__).parents[2]
    said = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"
