"""A house of its own for each test: a real clone-like folder with this checkout's runner and a probe project, driven through
`python -m runner` as make drives it. Images, wheels and environments are shared by all tests through one cache."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[2]
ENGINES = [pytest.param("docker", marks=pytest.mark.docker), "local"]
PROBE = """\
description: does what a test asks for
base: bare
train: [python, -m, projects.probe.train]
evaluate: [python, -m, projects.probe.evaluate, --split, "{split}", --checkpoint, "{checkpoint}"]
"""
DEFAULTS = """\
learning_rate: 0.1 # a float
steps: 3 # an int
names: [a] # a list
model: {file: null, depth: 2} # a mapping
"""
EVALUATE = """\
import json, os, sys
from pathlib import Path
from runner.inside import report
out = Path(os.environ["OUTPUT_DIR"])
checkpoint = Path(sys.argv[sys.argv.index("--checkpoint") + 1])
(out / "seen.json").write_text(json.dumps({"argv": sys.argv[1:], "weights": checkpoint.read_text(), "lr": report.config().learning_rate}))
report.scores(score=0.5)
"""
CHECKPOINT = """\
import json, os
from pathlib import Path
folder = Path(os.environ["RUN_DIR"]) / "checkpoints"
(folder / "step_00000003.pt").write_text("weights")
(folder / "step_00000003.json").write_text(json.dumps({"step": 3, "score": 0.25}))
(folder / "best").write_text("step_00000003.pt\\n")
(folder / "latest").write_text("step_00000003.pt\\n")
"""


@dataclass
class TestHouse:
    """A folder with a runner and a probe project, and the roots that it writes to."""

    __test__ = False

    root: Path
    base: Path
    engine: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def checkpoints(self) -> Path:
        return self.base / "checkpoints"

    @property
    def outputs(self) -> Path:
        return self.base / "outputs"

    def code(self, text: str, name: str = "train.py") -> None:
        """What the probe's command does."""
        (self.root / "projects" / "probe" / name).write_text(text)

    def env(self) -> dict[str, str]:
        return {**os.environ, **self.environment}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "runner", *arguments]

    def run(
        self, *arguments: str, check: int | None = 0, cwd: Path | None = None, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """One verb, to its end. `check`: the exit code that it must have; None for any."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=cwd or self.root,
            env=self.env(),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=300,
            check=False,
            **more,
        )
        if check is not None:
            assert done.returncode == check, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """One verb that goes on while the test does something to it."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.root,
            env=self.env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def train(self, *arguments: str, check: int | None = 0) -> subprocess.CompletedProcess[str]:
        return self.run("train", "--project", "probe", "--engine", self.engine, *arguments, check=check)

    def runs(self) -> list[Path]:
        """The run folders, oldest first."""
        return sorted(self.checkpoints.glob("*/*/session_*"), key=lambda path: path.stat().st_ctime_ns)

    def only_run(self) -> Path:
        (run,) = self.runs()
        return run

    def outcome(self, run: Path, attempt: int = 1) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((run / "attempts" / str(attempt) / "outcome.json").read_text())
        return value

    def manifest(self, run: Path, attempt: int = 1) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((run / "attempts" / str(attempt) / "manifest.json").read_text())
        return value

    def git(self, *arguments: str) -> str:
        return subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments],
            cwd=self.root,
            check=True,
            capture_output=True,
            text=True,
        ).stdout


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    """The first true value of `condition`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {timeout_s:g} s")


def read_or_empty(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels, environments and exports for the whole session; the checkout's own cache, so that nothing is fetched twice."""
    return Path(os.environ.get("CACHE_ROOT") or REPO / ".cache")


def make_house(base: Path, cache: Path, engine: str, name: str = "house") -> TestHouse:
    root = base / name
    root.mkdir(parents=True)
    for part in ("runner", "docker", "requirements"):
        shutil.copytree(REPO / part, root / part, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
    (root / "runner.yml").write_text("")
    (root / ".gitignore").write_text("__pycache__/\n")
    probe = root / "projects" / "probe"
    (probe / "configs").mkdir(parents=True)
    (probe / "project.yml").write_text(PROBE)
    (probe / "configs" / "default.yml").write_text(DEFAULTS)
    (probe / "configs" / "fast.yml").write_text("steps: 1\n")
    (probe / "train.py").write_text("print('trained')\n")
    (probe / "evaluate.py").write_text(EVALUATE)
    roots = {key: str(base / key.lower()) for key in ("CHECKPOINTS", "DATASETS", "OUTPUTS", "MODELS")}
    environment = {f"{key}_ROOT": value for key, value in roots.items()} | {"CACHE_ROOT": str(cache)}
    house = TestHouse(root=root, base=base, engine=engine, environment=environment)
    house.git("init", "-q", "-b", "main")
    house.git("add", "-A")
    house.git("commit", "-q", "-m", "start")
    return house


@pytest.fixture(params=ENGINES)
def cifar_house(request: pytest.FixtureRequest, tmp_path: Path, shared_cache: Path) -> Iterator[TestHouse]:
    """A house with the cifar project and its data set, on each engine."""
    made = make_house(tmp_path, shared_cache, request.param)
    for part in ("projects/cifar", "datasets/cifar10"):
        shutil.copytree(
            REPO / part,
            made.root / part,
            ignore=shutil.ignore_patterns("__pycache__", "raw", "toy", "lists", ".stages"),
        )
    yield made
    _end_what_runs(made)


@pytest.fixture(params=ENGINES)
def house(request: pytest.FixtureRequest, tmp_path: Path, shared_cache: Path) -> Iterator[TestHouse]:
    """A house on each engine."""
    made = make_house(tmp_path, shared_cache, request.param)
    yield made
    _end_what_runs(made)


@pytest.fixture
def docker_house(tmp_path: Path, shared_cache: Path) -> Iterator[TestHouse]:
    """A house on Docker, for what the local engine cannot enforce."""
    made = make_house(tmp_path, shared_cache, "docker")
    yield made
    _end_what_runs(made)


@pytest.fixture
def plain_house(tmp_path: Path, shared_cache: Path) -> TestHouse:
    """A house for what never launches."""
    return make_house(tmp_path, shared_cache, "local")


def _end_what_runs(house: TestHouse) -> None:
    for run in house.runs():
        if not list(run.glob("attempts/*/outcome.json")):
            house.run("stop", "--run", run.name, "--now", check=None)


def interrupt(process: subprocess.Popen[str], number: int = signal.SIGINT) -> None:
    process.send_signal(number)


def lines_of(text: str) -> Sequence[str]:
    return [line for line in text.splitlines() if line.strip()]
