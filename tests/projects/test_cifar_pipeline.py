"""jobs/cifar_pipeline.sh with the real shell and the real make, on a Makefile that notes what it was asked for."""

import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MAKEFILE = """\
dataset train:
\t@echo "$@ DATASET=$(DATASET) SOURCE=$(SOURCE) CONFIG=$(CONFIG) SET=$(SET) DATA=$(DATA)" >> asked
\t@test ! -e fail-$@ || exit 3
eval:
\t@echo "$@ SPLIT=$(SPLIT)" >> asked; test "$(RUN)"
\t@test ! -e fail-$@-$(SPLIT) || exit 3
\t@test ! "$(JSON)" || echo "val loss: 1"
\t@test ! "$(JSON)" || printf '{\\n  "folder": "%s",\\n  "outcome": null\\n}\\n' "$(CURDIR)/out put"
"""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def house(tmp_path: Path) -> Path:
    house = tmp_path / "a house"
    (house / "jobs").mkdir(parents=True)
    shutil.copy(REPOSITORY / "jobs" / "cifar_pipeline.sh", house / "jobs")
    shutil.copytree(REPOSITORY / "projects" / "cifar" / "configs", house / "projects" / "cifar" / "configs")
    (house / "Makefile").write_text(MAKEFILE)
    (house / "out put" / "images").mkdir(parents=True)
    (house / "out put" / "images" / "confusion.png").write_bytes(b"")
    return house


def run(house: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """As cron does it: from another folder, with a bare environment and no terminal."""
    return subprocess.run(
        [str(house / "jobs" / "cifar_pipeline.sh"), *words],
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def asked(house: Path) -> list[str]:
    path = house / "asked"
    return path.read_text().splitlines() if path.exists() else []


def test_five_steps_in_order(house: Path) -> None:
    result = run(house, "baseline", "SOURCE=/some where/else", "SET=n_iterations=5 batch_size=4")
    assert result.returncode == 0, result.stderr
    assert asked(house) == [
        "dataset DATASET=cifar10 SOURCE=/some where/else CONFIG= SET= DATA=",
        "train DATASET= SOURCE= CONFIG=baseline SET=n_iterations=5 batch_size=4 DATA=",
        "eval SPLIT=val",
        "eval SPLIT=test",
    ]
    assert "out put/images/confusion.png" in result.stdout


@pytest.mark.parametrize("words", [("toy",), ("debug",), ("baseline", "DATA=toy")])
def test_toy_needs_no_preprocessing(house: Path, words: tuple[str, ...]) -> None:
    assert run(house, *words).returncode == 0
    assert [line.split()[0] for line in asked(house)] == ["train", "eval", "eval"]


@pytest.mark.parametrize(("target", "steps"), [("dataset", 1), ("train", 2), ("eval-val", 3), ("eval-test", 4)])
def test_stops_at_the_first_failure(house: Path, target: str, steps: int) -> None:
    (house / f"fail-{target}").touch()
    assert run(house).returncode == 2
    assert len(asked(house)) == steps


def test_no_picture_is_a_failure(house: Path) -> None:
    (house / "out put" / "images" / "confusion.png").unlink()
    result = run(house, "toy")
    assert result.returncode == 1
    assert "holds no picture" in result.stderr


@pytest.mark.parametrize("words", [("--what",), ("toy", "word"), ("toy", "TAG=mine")])
def test_what_it_does_not_understand_is_refused(house: Path, words: tuple[str, ...]) -> None:
    result = run(house, *words)
    assert result.returncode == 2
    assert result.stderr.startswith("cifar_pipeline: ")
    assert not asked(house)


def test_help(house: Path) -> None:
    assert "usage: jobs/cifar_pipeline.sh" in run(house, "--help").stdout
    assert not asked(house)
