"""What is the local engine's alone: its keeper, its view, and what it says it cannot do."""

import os
import signal
import sys
import time
import uuid
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from runner.contract.errors import EngineError
from runner.host.engines import local_keeper
from runner.host.engines.engine import ContainerSpec, Limits, Mount, User
from runner.host.engines.local_engine import LocalEngine
from runner.host.engines.local_view import View


@pytest.fixture
def engine(tmp_path: Path) -> LocalEngine:
    return LocalEngine(tmp_path / "cache")


def a_spec(venv: str, *argv: str, **changes: Any) -> ContainerSpec:
    values: dict[str, Any] = {
        "name": f"t-{uuid.uuid4().hex[:8]}",
        "image": venv,
        "argv": argv,
        "workdir": PurePosixPath("/tmp"),
        "mounts": (),
        "environment": {},
        "labels": {},
        "user": User(uid=os.getuid(), gid=os.getgid()),
        "limits": Limits(),
    }
    return ContainerSpec(**(values | changes))


def keeper_of(container: str, cache: Path) -> tuple[int, int]:
    """Pids of the command and of its keeper."""
    pid = int((cache / "local" / container / "process").read_text().split()[0])
    return pid, int(local_keeper.stat_fields(pid)[1])


def test_without_its_keeper_it_is_lost_and_its_command_ends(
    engine: LocalEngine, test_venv: str, tmp_path: Path
) -> None:
    container = engine.create(a_spec(test_venv, "sleep", "60"))
    engine.start(container)
    pid, keeper = keeper_of(container, tmp_path / "cache")
    os.kill(keeper, signal.SIGKILL)
    with pytest.raises(EngineError, match="nothing says how it ended; its keeper was killed"):
        engine.wait(container)
    found = engine.find(container)
    assert found is not None and (found.running, found.exit) == (False, None)
    deadline = time.monotonic() + 5
    while local_keeper.stat_fields(pid) and local_keeper.stat_fields(pid)[0] != "Z":
        assert time.monotonic() < deadline
    engine.signal(container, signal.SIGTERM)
    engine.remove(container)


def test_a_pid_that_is_somebody_elses_now_gets_no_signal(engine: LocalEngine, test_venv: str, tmp_path: Path) -> None:
    container = engine.create(a_spec(test_venv, "sleep", "60"))
    engine.start(container)
    process = tmp_path / "cache/local" / container / "process"
    true = process.read_text()
    process.write_text(f"{os.getpid()} 1")
    engine.signal(container, signal.SIGKILL)  # we live
    process.write_text(true)
    engine.kill(container)
    assert engine.wait(container).code == 137


def test_its_output_does_not_fill_the_disk(
    engine: LocalEngine, test_venv: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = tmp_path / "keeper.py"
    text = Path(local_keeper.__file__).read_text()
    small = text.replace("OUTPUT_LIMIT = 256 << 20", "OUTPUT_LIMIT = 1 << 16").replace("LOOK_S = 5.0", "LOOK_S = 0.05")
    assert small.count("1 << 16") == 1 and small.count("LOOK_S = 0.05") == 1
    keeper.write_text(small)
    monkeypatch.setattr("runner.host.engines.local_engine.KEEPER", (sys.executable, "-I", "-S", str(keeper)))
    code = "import time\nfor i in range(40): print('x' * 9999, flush=True); time.sleep(0.02)"
    container = engine.create(a_spec(test_venv, "python", "-c", code))
    output = engine.attach(container)
    engine.start(container)
    largest = 0
    while engine.find(container).running:  # type: ignore[union-attr]
        largest = max(largest, (tmp_path / "cache/local" / container / "output").stat().st_size)
        time.sleep(0.01)
    assert largest < 400_000
    assert b"".join(output).endswith(b"x\n")


def test_what_it_cannot_do_is_refused_or_listed(engine: LocalEngine, test_venv: str, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="runs everything as you"):
        engine.create(a_spec(test_venv, "true", user=User(uid=os.getuid() + 1, gid=0)))
    with pytest.raises(EngineError, match="no virtual environment there"):
        engine.create(a_spec(str(tmp_path), "true"))
    other = tmp_path / "other"
    other.mkdir()
    mounts = (
        Mount(source=tmp_path, target=PurePosixPath("/outputs"), read_only=False),
        Mount(source=other, target=PurePosixPath("/outputs/launch")),
    )
    with pytest.raises(EngineError, match="/outputs/launch: lies inside /outputs, where the local engine cannot show"):
        engine.create(a_spec(test_venv, "true", mounts=mounts))
    with pytest.raises(EngineError, match="the working folder does not exist"):
        engine.start(engine.create(a_spec(test_venv, "true", workdir=PurePosixPath("/no/such/folder"))))
    for name in ("../up", "a/b", "", ".", ".."):
        with pytest.raises(EngineError, match="not a name"):
            engine.create(a_spec(test_venv, "true", name=name))
        assert engine.find(name) is None
    assert "no network" in engine.identity().not_enforced


def test_gpus_are_hidden_unless_given(test_venv: str) -> None:
    assert View(a_spec(test_venv, "true"), Path("/v")).environment()["CUDA_VISIBLE_DEVICES"] == ""
    given = a_spec(test_venv, "true", limits=Limits(gpus=("GPU-a", "GPU-b")))
    assert View(given, Path("/v")).environment()["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ("/workspace", "/v/workspace"),
        ("/workspace/a/b", "/v/workspace/a/b"),
        ("/workspaces", "/workspaces"),
        ("/datasets", "/v/datasets"),
        ("/data/x/raw", "/v/data/x/raw"),
        ("/data/x", "/v/data/x"),
        ("/data/y", "/data/y"),
        ("/tmp", "/tmp"),
        ("/tmp/home/.cache", "/v/tmp/home/.cache"),
        ("/usr/bin/env", "/usr/bin/env"),
        ("/", "/"),
        ("workspace", "workspace"),
        ("", ""),
    ],
)
def test_which_paths_are_moved_into_the_view(test_venv: str, text: str, moved: str) -> None:
    mounts = (Mount(source=Path("/disk/raw"), target=PurePosixPath("/data/x/raw")),)
    view = View(a_spec(test_venv, text, mounts=mounts, environment={"A": f"{text}:rest"}), Path("/v"))
    assert view.path(text) == moved
    assert view.argv() == (moved,)
    assert view.environment()["A"] == f"{moved}:rest"
