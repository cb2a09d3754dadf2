"""One class, both engines: whatever is said here of a launch holds in a container and in a local process alike."""

import getpass
import json
import os
import signal
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from runner.contract.errors import EngineError
from runner.host.engines.docker_engine import DockerEngine
from runner.host.engines.engine import Container, ContainerSpec, Engine, Exit, Limits, Mount, User
from runner.host.engines.local_engine import LocalEngine

SUPERVISOR = Path(__file__).resolve().parents[2] / "runner/inside/supervisor.py"
Spec = Callable[..., ContainerSpec]

# Touches /run/session/beat ten times a second until it is killed.
BEAT = """
import os, pathlib, time
while True:
    pathlib.Path(os.environ["RUN_DIR"], "beat").touch()
    time.sleep(0.1)
"""


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.docker), "local"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(kind: str, tmp_path: Path) -> Engine:
    return DockerEngine(tmp_path / "cache") if kind == "docker" else LocalEngine(tmp_path / "cache")


@pytest.fixture
def spec(kind: str, engine: Engine, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Spec]:
    """Make a spec of a command; afterwards nothing of it is left on the engine."""
    image = request.getfixturevalue("test_image" if kind == "docker" else "test_venv")
    workspace, run = tmp_path / "work space", tmp_path / "run"
    workspace.mkdir()
    run.mkdir()
    mark = uuid.uuid4().hex

    def make(*argv: str, **changes: Any) -> ContainerSpec:
        values: dict[str, Any] = {
            "name": f"runner-test-{uuid.uuid4().hex[:12]}",
            "image": image,
            "argv": argv,
            "workdir": PurePosixPath("/workspace"),
            "mounts": (
                Mount(source=workspace, target=PurePosixPath("/workspace")),
                Mount(source=run, target=PurePosixPath("/run/session"), read_only=False),
                Mount(source=SUPERVISOR, target=PurePosixPath("/run/supervisor.py")),
            ),
            "environment": {"RUN_DIR": "/run/session", "HOME": "/tmp/home", "LANG": "C.UTF-8"},
            "labels": {"runner.test": mark},
            "user": User(uid=os.getuid(), gid=os.getgid()),
            "limits": Limits(tmp_bytes=1 << 26, shm_bytes=1 << 26),
            "hostname": "somebox",
        }
        return ContainerSpec(**(values | changes))

    make.mark = mark  # type: ignore[attr-defined]
    yield make
    for container in engine.containers({"runner.test": mark}):
        engine.kill(container.id)
        if container.running:
            engine.wait(container.id)
        engine.remove(container.id)


def run(engine: Engine, spec: ContainerSpec) -> tuple[bytes, Exit]:
    """Run to the end; output and exit."""
    container = engine.create(spec)
    output = engine.attach(container)
    engine.start(container)
    return b"".join(output), engine.wait(container)


def found(engine: Engine, name: str) -> Container:
    """The container of this name, which is there."""
    container = engine.find(name)
    assert container is not None
    return container


def supervised(*argv: str, umask: str = "022") -> tuple[str, ...]:
    """The command behind the supervisor, as a launch has it."""
    places = ("--log", "/run/session/logs.txt", "--exit", "/run/session/exit.json", "--umask", umask)
    return ("python", "-I", "-S", "/run/supervisor.py", *places, "--", *argv)


def until(condition: Callable[[], bool], what: str, patience_s: float = 10) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.02)


def beats(run_folder: Path) -> bool:
    """Whether something still touches `beat`."""
    beat = run_folder / "beat"
    before = beat.stat().st_mtime_ns
    time.sleep(0.4)
    return beat.stat().st_mtime_ns != before


class TestEngine:
    def test_exit_code_output_and_record(self, engine: Engine, spec: Spec) -> None:
        wanted = spec("sh", "-c", "echo out; echo err >&2; exit 3")
        output, exit_ = run(engine, wanted)
        assert sorted(output.split()) == [b"err", b"out"]
        assert (exit_.code, exit_.out_of_memory, exit_.error) == (3, False, None)
        assert exit_.started is not None and exit_.finished is not None and exit_.started <= exit_.finished
        container = found(engine, wanted.name)
        assert (container.name, container.running, container.exit) == (wanted.name, False, exit_)
        assert container.labels["runner.test"] == spec.mark  # type: ignore[attr-defined]
        assert engine.find(container.id) == container

    def test_nothing_of_much_output_is_missed(self, engine: Engine, spec: Spec) -> None:
        output, exit_ = run(engine, spec("python", "-c", "for i in range(200_000): print(i)"))
        assert output == b"".join(b"%d\n" % i for i in range(200_000))
        assert exit_.code == 0

    def test_output_comes_as_it_is_written(self, engine: Engine, spec: Spec) -> None:
        container = engine.create(spec("sh", "-c", "printf '10%%\\r'; sleep 30"))
        output = engine.attach(container)
        engine.start(container)
        assert next(output) == b"10%\r"
        engine.kill(container)
        assert b"".join(output) == b""
        assert engine.wait(container).code == 137

    def test_a_slow_reader_gets_everything(self, engine: Engine, spec: Spec) -> None:
        container = engine.create(spec("python", "-c", "print('x' * 5_000_000)"))
        output = engine.attach(container)
        engine.start(container)
        size = 0
        for number, chunk in enumerate(output):
            size += len(chunk)
            time.sleep(0.01 if number < 20 else 0)
        assert size == 5_000_001

    def test_bytes_pass_as_they_are(self, engine: Engine, spec: Spec) -> None:
        code = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 300)"
        output, _ = run(engine, spec("python", "-c", code))
        assert output == bytes(range(256)) * 300

    def test_a_signal_goes_to_the_command(self, engine: Engine, spec: Spec) -> None:
        code = 'trap "echo asked; exit 7" TERM; echo ready; while :; do sleep 0.05; done'
        container = engine.create(spec("sh", "-c", code))
        output = engine.attach(container)
        engine.start(container)
        assert next(output) == b"ready\n"
        engine.signal(container, signal.SIGTERM)
        assert b"".join(output) == b"asked\n"
        assert engine.wait(container).code == 7
        engine.signal(container, signal.SIGTERM)
        engine.kill(container)

    def test_a_signal_passes_the_supervisor(self, engine: Engine, spec: Spec, tmp_path: Path) -> None:
        code = "import signal, sys, time; signal.signal(2, lambda *a: sys.exit(130)); print('ready', flush=True); time.sleep(60)"
        container = engine.create(spec(*supervised("python", "-c", code)))
        output = engine.attach(container)
        engine.start(container)
        assert next(output) == b"ready\n"
        engine.signal(container, signal.SIGINT)
        assert engine.wait(container).code == 130
        record = json.loads((tmp_path / "run/exit.json").read_text())
        assert (record["exit_code"], record["signal"], record["received"]) == (130, None, ["SIGINT"])

    def test_kill_ends_what_the_command_started(self, engine: Engine, spec: Spec, tmp_path: Path) -> None:
        code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {BEAT!r}]); time.sleep(60)"
        container = engine.create(spec(*supervised("python", "-c", code)))
        engine.start(container)
        until((tmp_path / "run/beat").exists, "it beats")
        engine.kill(container)
        assert engine.wait(container).code == 137
        assert not beats(tmp_path / "run")

    def test_what_outlives_the_command_is_ended_with_it(self, engine: Engine, spec: Spec, tmp_path: Path) -> None:
        """A daemon, as a stray worker becomes one: a session of its own, its parent gone."""
        code = (
            "import os, subprocess, sys, time\n"
            f"if os.fork() == 0:\n    os.setsid()\n    subprocess.Popen([sys.executable, '-c', {BEAT!r}])\n    os._exit(0)\n"
            "while not os.path.exists(os.environ['RUN_DIR'] + '/beat'): time.sleep(0.02)\n"
        )
        _, exit_ = run(engine, spec("python", "-c", code))
        assert exit_.code == 0
        assert not beats(tmp_path / "run")

    def test_a_name_is_used_once(self, engine: Engine, spec: Spec) -> None:
        wanted = spec("true")
        engine.create(wanted)
        with pytest.raises(EngineError, match=f"{wanted.name}.*already in use"):
            engine.create(wanted)

    def test_a_missing_mount_source_is_an_error_and_stays_missing(
        self, engine: Engine, spec: Spec, tmp_path: Path
    ) -> None:
        missing = tmp_path / "no such folder"
        wanted = spec("true", mounts=(Mount(source=missing, target=PurePosixPath("/workspace")),))
        with pytest.raises(EngineError, match="no such folder: not there, so it cannot be mounted at /workspace"):
            engine.create(wanted)
        assert not missing.exists()
        assert engine.find(wanted.name) is None

    def test_a_command_that_is_not_there(self, engine: Engine, spec: Spec) -> None:
        output, exit_ = run(engine, spec("nonesuch", "-x"))
        assert b"nonesuch" in output
        assert exit_.code == 127
        output, exit_ = run(engine, spec("/etc/passwd"))
        assert b"/etc/passwd" in output
        assert exit_.code == 126

    def test_created_is_neither_running_nor_ended(self, engine: Engine, spec: Spec) -> None:
        wanted = spec("true")
        engine.create(wanted)
        container = found(engine, wanted.name)
        assert (container.running, container.exit) == (False, None)

    def test_containers_by_label(self, engine: Engine, spec: Spec) -> None:
        ended, running = spec("true"), spec("sleep", "60", labels={**spec("x").labels, "more": "a=b,c"})
        run(engine, ended)
        engine.start(engine.create(running))
        both = {container.name: container for container in engine.containers(ended.labels)}
        assert both.keys() == {ended.name, running.name}
        assert (both[ended.name].running, both[running.name].running) == (False, True)
        assert both[ended.name].exit is not None and both[running.name].exit is None
        assert [container.name for container in engine.containers(running.labels)] == [running.name]
        assert list(engine.containers({"runner.test": "somebody else's"})) == []

    def test_attaching_to_an_ended_one_gives_nothing(self, engine: Engine, spec: Spec) -> None:
        wanted = spec("echo", "x")
        run(engine, wanted)
        assert list(engine.attach(found(engine, wanted.name).id)) == []

    def test_remove(self, engine: Engine, spec: Spec) -> None:
        wanted = spec("sleep", "60")
        container = engine.create(wanted)
        engine.start(container)
        with pytest.raises(EngineError, match="cannot be removed"):
            engine.remove(container)
        engine.kill(container)
        engine.wait(container)
        engine.remove(container)
        engine.remove(container)
        assert engine.find(wanted.name) is None
        engine.signal(container, signal.SIGTERM)
        engine.kill(container)

    def test_odd_characters_in_arguments_and_variables(self, engine: Engine, spec: Spec) -> None:
        odd = ["", " ", "a b", "'", '"', "$(id)", "`id`", "x\ny", "é𝛼", "--", "a=b", "*", "\\", "#", "%s"]
        code = "import json, os, sys; print(json.dumps([sys.argv[1:], {k: v for k, v in os.environ.items() if 'ODD' in k}]))"
        environment = {f"ODD{number}": value for number, value in enumerate(odd)}
        output, _ = run(engine, spec("python", "-c", code, *odd, environment={**environment, "LANG": "C.UTF-8"}))
        assert json.loads(output) == [odd, environment]

    def test_only_the_specs_environment_gets_in(
        self, engine: Engine, spec: Spec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
        monkeypatch.setenv("LD_PRELOAD_NOT", "x")
        output, _ = run(engine, spec("env"))
        assert b"RUN_DIR=" in output
        assert b"hush" not in output and b"LD_PRELOAD_NOT" not in output
        assert os.environ["HOME"].encode() + b"\n" not in output

    def test_the_view(self, engine: Engine, spec: Spec, tmp_path: Path) -> None:
        """Code that reads the variables finds the same things, wherever they lie."""
        parts = tmp_path / "disk/raw", tmp_path / "ssd/lists"
        for part in parts:
            part.mkdir(parents=True)
            (part / "one.txt").write_text(part.name)
        mounts = (
            *spec("x").mounts,
            *(Mount(source=part, target=PurePosixPath("/datasets/x", part.name)) for part in parts),
        )
        code = 'cat "$DATASETS_DIR"/x/*/one.txt; ls "$DATASETS_DIR/x"; cat here.txt; cat "$1"'
        (tmp_path / "work space/here.txt").write_text("here\n")
        (tmp_path / "run/config.json").write_text("{}")
        output, exit_ = run(
            engine,
            spec(
                *("sh", "-ec", code, "-", "/run/session/config.json"),
                mounts=mounts,
                environment={"DATASETS_DIR": "/datasets"},
            ),
        )
        assert output == b"listsrawlists\nraw\nhere\n{}"
        assert exit_.code == 0

    def test_home_user_name_and_tmp(self, engine: Engine, spec: Spec) -> None:
        code = (
            "import getpass, os, pathlib, tempfile\n"
            "home = pathlib.Path('~').expanduser(); (home / 'x').write_text('x'); print(getpass.getuser(), str(home))\n"
            "tempfile.NamedTemporaryFile().close()\n"
        )
        output, exit_ = run(engine, spec(*supervised("python", "-c", code)))
        assert exit_.code == 0
        name, home = output.decode().split()
        assert name == (getpass.getuser() if os.getuid() == 0 or engine.kind == "local" else "user")
        assert home.endswith("/tmp/home")

    def test_files_belong_to_the_caller_and_the_umask_holds(self, engine: Engine, spec: Spec, tmp_path: Path) -> None:
        code = 'mkdir "$RUN_DIR/folder"; echo x > "$RUN_DIR/folder/file"'
        _, exit_ = run(engine, spec(*supervised("sh", "-ec", code, umask="027")))
        assert exit_.code == 0
        for name, mode in (("folder", 0o750), ("folder/file", 0o640), ("exit.json", 0o640), ("logs.txt", 0o640)):
            status = (tmp_path / "run" / name).stat()
            assert (status.st_uid, status.st_gid) == (os.getuid(), os.getgid()), name
            assert stat.S_IMODE(status.st_mode) == mode, name

    def test_it_outlives_its_launcher_and_anybody_can_wait(
        self, engine: Engine, spec: Spec, tmp_path: Path, kind: str
    ) -> None:
        wanted = spec(*supervised("sh", "-c", "sleep 1; echo late; sleep 0.2; exit 5"))
        launcher = (
            f"import sys; sys.path.insert(0, {str(SUPERVISOR.parents[2])!r})\n"
            "from pathlib import Path, PosixPath, PurePosixPath\n"
            "from runner.host.engines.engine import *\n"
            "from runner.host.engines.docker_engine import DockerEngine\n"
            "from runner.host.engines.local_engine import LocalEngine\n"
            f"engine = {type(engine).__name__}(Path({str(tmp_path / 'cache')!r}))\n"
            f"engine.start(engine.create({wanted!r}))\n"
        )
        subprocess.run([sys.executable, "-c", launcher], check=True)
        container = found(engine, wanted.name)
        assert (container.running, container.exit) == (True, None)
        assert b"".join(engine.attach(container.id)) == b"late\n"
        assert engine.wait(container.id).code == 5
        assert (tmp_path / "run/logs.txt").read_text() == "late\n"

    def test_the_command_line_does_the_same(self, engine: Engine, spec: Spec, tmp_path: Path) -> None:
        wanted = spec(
            *(
                "python",
                "-c",
                "import os, sys; print(os.environ['ODD'], sys.argv[1:]); sys.exit(4)",
                "a b",
                "$(id)",
                "",
            ),
            environment={"ODD": "'\"$x\n,"},
        )
        line = engine.command_line(wanted)
        pasted = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
        assert pasted.stdout == "'\"$x\n, ['a b', '$(id)', '']\n"
        assert pasted.returncode == 4
        assert engine.find(wanted.name) is None

    def test_the_command_line_of_what_is_not_there_yet(self, engine: Engine, spec: Spec, tmp_path: Path) -> None:
        """A dry run prints it before any folder is made."""
        nested = tmp_path / "later"
        mounts = (
            Mount(source=nested, target=PurePosixPath("/outputs"), read_only=False),
            Mount(source=nested / "launch", target=PurePosixPath("/outputs/launch")),
        )
        assert str(nested) in engine.command_line(spec("true", mounts=mounts))
        assert not nested.exists()

    def test_identity_and_images(self, engine: Engine, kind: str) -> None:
        identity = engine.identity()
        assert identity.kind == engine.kind == kind
        assert identity == engine.identity()
        assert identity.id and identity.host and identity.version
        assert engine.image("runner/nonesuch:none") is None
        assert bool(identity.not_enforced) == (kind == "local")
