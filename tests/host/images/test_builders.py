"""Finding a docker program that can build, and saying why a build failed."""

from pathlib import Path

import pytest

from runner.contract.errors import RunnerError
from runner.host.images.builders import Build, Builder, build_command, find_builder


def program(folder: Path, script: str) -> Path:
    """A `docker` of our own."""
    folder.mkdir()
    path = folder / "docker"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return folder


OLD = '[ "$1" = version ] && echo 20.10.24 && exit 1\nexit 1'  # 1: the client answers, its engine does not
NEW = '[ "$1" = version ] && echo 28.2.2 && exit 0\nexit 1'
BUILDX = 'case "$1" in version) echo 28.2.2;; buildx) echo v0.20;; context) echo desktop;; esac'


def test_the_first_that_can_is_taken(tmp_path: Path) -> None:
    new, old, buildx = program(tmp_path / "a", NEW), program(tmp_path / "b", OLD), program(tmp_path / "c", BUILDX)
    nowhere = str(tmp_path / "nowhere")
    found = find_builder({"PATH": f"{nowhere}:{new}:{old}:{buildx}"}, also=nowhere)
    assert found == Builder(argv=(f"{old}/docker", "build"), environment={"DOCKER_BUILDKIT": "1"})
    found = find_builder({"PATH": f"{new}"}, also=str(buildx))
    assert found.argv == (f"{buildx}/docker", "buildx", "build", "--load", "--builder", "desktop")


def test_none_that_can_is_one_clear_line(tmp_path: Path) -> None:
    new = program(tmp_path / "a", NEW)
    with pytest.raises(RunnerError) as caught:
        find_builder({"PATH": str(new)}, also="")
    assert str(caught.value) == (
        f"no docker program that can build with BuildKit: found {new}/docker 28.2.2, without the buildx plugin; "
        "install Debian's docker.io, Ubuntu's docker-buildx, or Docker's own docker-buildx-plugin"
    )
    with pytest.raises(RunnerError, match="found none on PATH"):
        find_builder({"PATH": str(tmp_path / "nowhere")}, also="")


def test_a_proxy_goes_by_name_and_only_into_a_build_with_network() -> None:
    builder = Builder(argv=("docker", "build"), environment={})
    secret = {"https_proxy": "http://user:secret@proxy:3128"}
    wanted = {
        "tag": "t",
        "dockerfile": "",
        "context": Path("/c"),
        "arguments": {},
        "labels": {},
        "platform": "linux/amd64",
    }
    online = build_command(builder, Build(**wanted, network=True), Path("/f"), secret)  # type: ignore[arg-type]
    offline = build_command(builder, Build(**wanted), Path("/f"), secret)  # type: ignore[arg-type]
    assert "--build-arg=https_proxy" in online
    assert "secret" not in " ".join(online)
    assert not [word for word in offline if "proxy" in word]
    assert offline[offline.index("--network") + 1] == "none"
