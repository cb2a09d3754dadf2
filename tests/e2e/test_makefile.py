"""The Makefile itself, in a house whose .venv is this interpreter: what is typed reaches the verb it is meant for, and no other."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import REPO, TestHouse, wait_for


@pytest.fixture
def made(plain_house: TestHouse) -> TestHouse:
    """A house as after a first `make`: the host's environment is there, the one for checks is not."""
    shutil.copy(REPO / "Makefile", plain_house.root)
    python = plain_house.root / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (plain_house.root / ".venv/ready").touch()
    return plain_house


def make(house: TestHouse, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["make", *words], cwd=house.root, env=house.env(), capture_output=True, text=True, timeout=300, check=False
    )


def test_lock_of_one_project_on_a_fresh_clone(made: TestHouse) -> None:
    """The environment for checks is made on the way; PROJECT= is for `lock`, which knows no such project."""
    done = make(made, "lock", "PROJECT=nowhere")
    assert (made.root / ".venv-check/ready").exists(), done.stderr
    assert "no such variable" not in done.stderr and "nowhere" in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "requirements/nowhere.in" in line


@pytest.mark.parametrize("target", ["check", "test", "test-docker", "fix", "clean", "help"])
def test_targets_that_take_no_variable_say_so(made: TestHouse, target: str) -> None:
    done = make(made, target, "FOO=1", "PROJECT=probe")
    assert done.returncode == 2 and done.stdout == ""
    assert "FOO=: no such variable here; this target takes none" in done.stderr.replace("PROJECT= ", "")
    assert (made.root / ".venv").exists() and not (made.root / ".venv-check").exists()


def test_a_variable_that_a_verb_does_not_take(made: TestHouse) -> None:
    done = make(made, "ls", "PROJCT=probe")
    assert done.returncode == 2
    assert "error: PROJCT=: no such variable here, did you mean PROJECT=?; this target takes PROJECT=" in done.stderr


def test_the_end_of_a_detached_run_is_recorded_by_itself(made: TestHouse) -> None:
    """Its follower is started by us, in make's environment; nobody looks at the run meanwhile."""
    done = make(made, "train", "PROJECT=probe", "ENGINE=local", "DETACH=1", "TAG=a b; touch owned")
    assert done.returncode == 0, done.stderr
    run = Path(done.stdout.strip())
    wait_for((run / "attempts/1/outcome.json").exists, "its end is recorded")
    assert made.outcome(run)["state"] == "COMPLETED" and made.manifest(run)["tag"] == "a b; touch owned"
    assert not (made.root / "owned").exists()


@pytest.mark.parametrize("target", ["check", "test", "clean", "help"])
def test_a_target_that_takes_none_is_made_without(made: TestHouse, target: str) -> None:
    done = make(made, "--dry-run", target)
    assert (done.returncode, done.stderr) == (0, "")
