"""Killed at random moments and resumed, a training is bit for bit the one that was never killed."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tiny import base_config

KILLS_EACH = 8
MOMENTS = random.Random(20)
"""Which moments are tried is fixed; where in the training they fall depends on the machine's load."""


class Server:
    """The process that trains and kills (crash_server.py)."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("crash_server.py"))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, folder: Path, config: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Train on in `folder` until the end or the kill."""
        request = {
            "folder": str(folder),
            "config": config,
            "trainer": "TinyTrainer",
            "processes": 1,
            "kill_after_s": None,
            **options,
        }
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=30)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@dataclass
class Tally:
    """What the kills of all scenarios met."""

    kills: int = 0
    in_a_write: int = 0
    scenarios: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def tally() -> Iterator[Tally]:
    tally = Tally()
    yield tally


def records(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "time"} for line in lines]


def outcome(folder: Path) -> dict[str, Any]:
    """Everything a training leaves that must not depend on kills: the kept checkpoints, the pointers, the records."""
    checkpoints = folder / "checkpoints"
    sidecars = [json.loads(path.read_text()) for path in sorted(checkpoints.glob("step_*.json"))]
    facts = ("file", "sha256", "state_sha256", "step", "score", "epoch")
    return {
        "records": records(folder),
        "checkpoints": [{name: sidecar[name] for name in facts} for sidecar in sidecars][-1:],
        "best": (checkpoints / "best").read_text(),
        "latest": (checkpoints / "latest").read_text(),
        "scores": [line for line in (folder / "logs.txt").read_text().splitlines() if line.startswith("Best ")][-1:],
    }


SCENARIOS: dict[str, dict[str, Any]] = {
    "augmentation and dropout": {},
    "two workers": {"n_workers": 2},
    "cosine": {"schedule": "cosine"},
    "accumulation, moving average, clipping": {"accumulate": 2, "ema": 0.9, "clip_norm": 0.5, "schedule": "step"},
    "early stopping, plateau": {"patience": 2, "schedule": "plateau", "val_iterations": 3, "n_iterations": 40},
    "whole epochs, few logs": {
        "n_iterations": None,
        "n_epochs": 3.5,
        "val_iterations": None,
        "print_iterations": 7,
        "precision": "bf16",
    },
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_and_resumed_equals_uninterrupted(server: Server, tally: Tally, tmp_path: Path, name: str) -> None:
    _compare(server, tally, tmp_path, base_config(**SCENARIOS[name]), kills=KILLS_EACH)


def test_killed_while_a_checkpoint_is_written(server: Server, tally: Tally, tmp_path: Path) -> None:
    before = tally.in_a_write
    config = base_config(n_iterations=12, checkpoint_iterations=1, keep_last=1)
    _compare(server, tally, tmp_path, config, kills=16, trainer="HeavyTrainer")
    assert tally.in_a_write > before, "no kill met a write: make HeavyTrainer heavier"


def test_two_processes(server: Server, tally: Tally, tmp_path: Path) -> None:
    _compare(server, tally, tmp_path, base_config(), kills=6, processes=2)


def test_two_processes_leave_a_validation_together(server: Server, tmp_path: Path) -> None:
    options: dict[str, Any] = {"processes": 2, "trainer": "StoppedInValidation"}
    config, whole, broken = base_config(), tmp_path / "whole", tmp_path / "broken"
    assert server.run(whole, config, **options)["exit"] == 0, (whole / "output_0.txt").read_text()
    broken.mkdir()
    (broken / "stop").touch()
    assert server.run(broken, config, **options)["exit"] == 143, (broken / "output_1.txt").read_text()
    assert json.loads((broken / "checkpoints" / "step_00000012.json").read_text())["score"] is None, "cut short"
    assert server.run(broken, config, **options)["exit"] == 0, (broken / "output_0.txt").read_text()
    assert outcome(broken) == outcome(whole)


def test_at_least_thirty_kills(tally: Tally) -> None:
    if len(tally.scenarios) < len(SCENARIOS) + 2:
        pytest.skip("counts the kills of the whole file; only a part of it ran")
    assert tally.kills >= 30


def _compare(
    server: Server, tally: Tally, tmp_path: Path, config: dict[str, Any], *, kills: int, **options: Any
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    reference = server.run(whole, config, **options)
    assert reference["exit"] == 0, (whole / "output_0.txt").read_text()
    done, attempts = 0, 0
    while done < kills:
        moment = MOMENTS.uniform(0, reference["seconds"])
        answer = server.run(broken, config, kill_after_s=moment, **options)
        attempts += 1
        assert answer["exit"] in (0, -9), (broken / "output_0.txt").read_text()
        if answer["exit"] == -9:
            done += 1
            tally.in_a_write += any((broken / "checkpoints").glob(".step_*.tmp"))
        elif attempts > 3 * kills:
            break
        else:
            broken = tmp_path / f"broken{attempts}"
    tally.kills += done
    tally.scenarios.append(str(tmp_path))
    answer = server.run(broken, config, **options)
    assert answer["exit"] == 0, (broken / "output_0.txt").read_text()
    assert outcome(broken) == outcome(whole)
