"""`make demo` and the engine it says it uses, also on a machine that has none and by somebody who may not install one."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from runner.host.engines.choose import NO_DOCKER
from tests.e2e.conftest import REPO, TestHouse, lines_of

PARTS = ("projects/cifar", "datasets/cifar10")
WITHOUT_DOCKER = (
    *("unshare", "--map-root-user", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /run && exec "$@"', "sh"),
    *("unshare", "--map-user=1234", "--map-group=1234"),
)
"""No socket under /run, and an ordinary user who owns what we own."""


@pytest.fixture
def without_docker(plain_house: TestHouse) -> TestHouse:
    tried = subprocess.run([*WITHOUT_DOCKER, "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"may not make a namespace here: {tried.stderr.strip()}")
    plain_house.environment |= {"DOCKER_HOST": "", "DOCKER_CONTEXT": "", "XDG_RUNTIME_DIR": "", "HOME": "/nowhere"}
    return plain_house


def run(house: TestHouse, *verb: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*WITHOUT_DOCKER, *house.command(*verb)],
        cwd=house.root,
        env=house.env(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_without_docker_the_local_engine_says_so_in_one_line(without_docker: TestHouse) -> None:
    done = run(without_docker, "train", "--project", "probe")
    assert done.returncode == 0, done.stderr
    assert lines_of(done.stderr)[0] == NO_DOCKER and done.stderr.count("no Docker") == 1
    assert without_docker.manifest(without_docker.only_run())["engine"]["kind"] == "local"
    refused = run(without_docker, "train", "--project", "probe", "--engine", "docker")
    assert refused.returncode == 125 and "no Docker socket and no DOCKER_HOST" in refused.stderr


def test_the_demo_goes_the_whole_road(without_docker: TestHouse) -> None:
    for part in PARTS:
        kept_out = shutil.ignore_patterns("__pycache__", "raw", "toy", "lists", ".stages")
        shutil.copytree(REPO / part, without_docker.root / part, ignore=kept_out)
    toy = without_docker.root / "projects/cifar/configs/toy.yml"
    toy.write_text(re.sub(r"(\w+_iterations): \d+", r"\1: 10", toy.read_text()))
    done = run(without_docker, "demo")
    assert done.returncode == 0, done.stderr
    first = lines_of(done.stderr)[0]
    assert first.startswith("1. engine: the local engine, as this machine has no Docker: installing Docker needs root")
    assert "no Docker" not in done.stderr.replace(first, "")
    named = done.stdout[done.stdout.index("Worth opening:") :]
    found = []
    for line in named.splitlines()[1:]:
        if re.fullmatch(r"  /.*/", line):
            folder = Path(line.strip())
        else:
            found.append(folder / line.split()[0])
    assert all(path.exists() for path in found), found
    assert {"outcome.json", "metrics.jsonl", "metrics.json", "confusion.png"} <= {path.name for path in found}
    outcomes = [json.loads(path.read_text()) for path in without_docker.base.rglob("outcome.json")]
    assert [outcome["state"] for outcome in outcomes] == ["COMPLETED"] * 3  # the toy set, the training, the evaluation


def test_an_engine_behind_ssh_is_refused_with_the_way_out(plain_house: TestHouse) -> None:
    plain_house.environment["DOCKER_HOST"] = "ssh://far.example"
    for verb in (["train", "--project", "probe"], ["demo"], ["engine"]):
        (line,) = lines_of(plain_house.run(*verb, check=125).stderr)
        assert line.startswith("error: ssh://far.example (named by DOCKER_HOST): ") and "log in there" in line
    assert not plain_house.runs()


def test_an_engine_that_refuses_is_nothing_to_go_around(plain_house: TestHouse) -> None:
    """Nobody said that anything else may be used; ENGINE=local is how to say it."""
    plain_house.environment["DOCKER_HOST"] = f"unix://{plain_house.base}/no.sock"
    for verb in (["demo"], ["demo", "--engine", "docker"], ["engine"]):
        done = plain_house.run(*verb, check=125)
        (line,) = lines_of(done.stderr)
        assert "no.sock: no Docker engine answers there" in line and "or use ENGINE=local" in line
    said = plain_house.run("engine", "--if-possible").stdout
    assert "no.sock: no Docker engine answers there" in said and "what needs one is left out" in said
    assert "ENGINE='lcoal': not an engine" in plain_house.run("demo", "--engine", "lcoal", check=2).stderr
    asked = plain_house.run("demo", "--engine", "local", check=2)  # this house has no project cifar
    assert lines_of(asked.stderr)[0] == "1. engine: the local engine, as asked for"
    assert not plain_house.runs()
