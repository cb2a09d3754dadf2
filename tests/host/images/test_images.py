"""Real images on a real engine, from wheels made here: found by key, thin, shared, hermetic, built once."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.contract.errors import RunnerError
from runner.host.engines.engine import Engine
from runner.host.images import images
from runner.host.images.builders import find_builder
from runner.host.images.recipes import Recipe, recipe

pytestmark = pytest.mark.docker


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    from runner.host.engines.docker_engine import DockerEngine

    return DockerEngine(tmp_path)


@pytest.fixture(autouse=True, scope="module")
def leave_no_image() -> Iterator[None]:
    """Remove what was built here for a base with the package `below`."""
    before = set(tags())
    yield
    for tag in set(tags()) - before:
        command = ["docker", "run", "--rm", "--network=none", tag, "python", "-c", "import below"]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            subprocess.run(["docker", "rmi", tag], capture_output=True, check=False)


def tags() -> list[str]:
    """The images of ours on the engine."""
    return [
        tag for tag in docker("images", "--format", "{{.Repository}}:{{.Tag}}").split() if tag.startswith("runner/")
    ]


def docker(*words: str) -> str:
    """What the docker program says."""
    return subprocess.check_output([find_builder(os.environ).docker, *words], text=True)


def test_built_once_then_found_at_once(house: Any, make_wheel: Any, engine: Engine, cache: Path) -> None:
    marker = f"built-{time.time_ns()}"
    house.project("toy", make_wheel("above", "1.5", text=f"MARKER = {marker!r}\n"))
    made = recipe(house.root, "toy", base="bare")
    assert images.find(made, engine) is None
    said: list[str] = []
    built = images.ensure(made, engine, cache, said.append)
    assert built.log is not None
    assert "above==1.5" in built.log.read_text()
    assert [line for line in said if line.startswith("  step ")]
    said.clear()
    again = images.ensure(made, engine, cache, said.append)
    assert said == []
    assert (again.id, again.log) == (built.id, None)
    assert again.record.key == docker("inspect", "-f", '{{index .Config.Labels "runner.key"}}', again.id).strip()
    assert again.record.base_origin in ("registry", "debian")
    assert "sha256:" in (again.record.base or "")
    output = docker(
        "run",
        "--rm",
        "--network=none",
        "--read-only",
        "--user=4321:4321",
        again.id,
        "python",
        "-c",
        "import above, below; print(above.MARKER)",
    )
    assert output.strip() == marker


def test_projects_share_the_layers_of_their_base(house: Any, make_wheel: Any, engine: Engine, cache: Path) -> None:
    house.project("one", make_wheel("first", "1"))
    house.project("two", make_wheel("second", "1"))
    one, two = (images.ensure(recipe(house.root, name, base="bare"), engine, cache, print) for name in ("one", "two"))
    base = images.ensure(recipe(house.root, None, base="bare"), engine, cache, print)
    assert one.layers[:-1] == two.layers[:-1]
    assert one.layers[-1] != two.layers[-1]
    shared = len(base.layers) - 1  # the base alone ends in an empty project layer
    assert base.layers[:shared] == one.layers[:shared]
    sizes = docker("history", "--human=false", "--format", "{{.Size}}", one.id).split()
    assert int(sizes[0]) < 100_000


def test_nothing_of_the_users_pip_enters_the_image(
    house: Any, make_wheel: Any, engine: Engine, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "hunter2-in-an-index-url"
    house.project("toy", make_wheel("apart", "1.0"))
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", f"file:///nowhere/user:{secret}")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("UV_INDEX_URL", f"https://user:{secret}@127.0.0.1:1/simple")
    monkeypatch.setenv("https_proxy", f"http://user:{secret}@127.0.0.1:1")
    made = images.ensure(recipe(house.root, "toy", base="bare"), engine, cache, print)
    told = docker("history", "--no-trunc", made.id) + docker("inspect", made.id)
    assert secret not in told
    found = docker("run", "--rm", made.id, "sh", "-c", f"grep -rls {secret} /opt /etc /root /tmp /var /home || true")
    assert found.strip() == ""
    assert json.loads(docker("inspect", made.id))[0]["Config"]["Env"] == [
        "PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        *(line for line in json.loads(docker("inspect", made.id))[0]["Config"]["Env"] if not line.startswith("PATH=")),
    ]


def test_two_processes_build_once(house: Any, make_wheel: Any, engine: Engine, cache: Path) -> None:
    house.project("toy", make_wheel("twice", "1.0", text=f"MARKER = {time.time_ns()}\n"))
    script = (
        "import sys\nfrom pathlib import Path\nfrom runner.host.images import images\nfrom runner.host.images.recipes import recipe\n"
        "from runner.host.engines.docker_engine import DockerEngine\ncache = Path(sys.argv[2])\n"
        "made = images.ensure(recipe(Path(sys.argv[1]), 'toy', base='bare'), DockerEngine(cache), cache, print)\n"
        "print(made.id, made.log)\n"
    )
    argv = [sys.executable, "-c", script, str(house.root), str(cache)]
    both = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert "".join(outputs).count("image runner/prod") == 2  # building, and ready after: said by one of them
    assert outputs[0].splitlines()[-1] == outputs[1].splitlines()[-1]


def test_a_failed_build_says_its_last_line_and_where_the_log_is(
    house: Any, make_wheel: Any, engine: Engine, cache: Path
) -> None:
    house.project("toy", make_wheel("broken", "1.0"))
    house.write("docker/Dockerfile.prod", "ARG BASE\nFROM ${BASE}\nRUN echo the oven is cold >&2; exit 3\n")
    made = recipe(house.root, "toy", base="bare")
    with pytest.raises(
        RunnerError, match=r"^image runner/prod:[0-9a-f]{32}: build failed: the oven is cold; log: (/\S+\.log)$"
    ) as caught:
        images.ensure(made, engine, cache, print)
    assert "the oven is cold" in Path(str(caught.value).split("log: ")[1]).read_text()
    assert images.find(made, engine) is None
    assert not list((cache / "contexts").iterdir())


def test_the_project_layer_is_built_without_network(house: Any, make_wheel: Any, engine: Engine, cache: Path) -> None:
    house.project("toy", make_wheel("alone", "1.0"))
    look = "RUN python -c \"import socket; print('interfaces', [name for _, name in socket.if_nameindex()])\"; exit 1\n"
    house.write("docker/Dockerfile.prod", f"ARG BASE\nFROM ${{BASE}}\n{look}")
    with pytest.raises(RunnerError, match=r"build failed: interfaces \['lo'\]; log"):
        images.ensure(recipe(house.root, "toy", base="bare"), engine, cache, print)


def test_a_wheel_that_changed_under_its_lock_is_refused_by_the_build(
    house: Any, make_wheel: Any, engine: Engine, cache: Path
) -> None:
    wheel = make_wheel("swapped", "1.0")
    house.project("toy", wheel)
    made: Recipe = recipe(house.root, "toy", base="bare")
    images.ensure(made, engine, cache, print)
    (kept,) = [path for path in (cache / "wheels").glob("*/swapped-1.0-*.whl")][:1]
    kept.write_bytes(make_wheel("swapped", "1.0", text="EVIL = True\n").read_bytes())
    house.write("docker/install.sh", (house.root / "docker/install.sh").read_text() + "# another key\n")
    with pytest.raises(RunnerError, match=r"build failed: .*(ismatch|hash|Hash)"):
        images.ensure(recipe(house.root, "toy", base="bare"), engine, cache, print)
    kept.unlink()
