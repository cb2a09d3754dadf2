"""What only containers can promise, and how the Docker engine is found, asked and given up on."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from runner.contract.errors import EngineError
from runner.host.engines.docker_endpoint import Endpoint, find_endpoint
from runner.host.engines.docker_engine import DockerEngine, available
from runner.host.engines.docker_request import (
    Flavour,
    accounts_text,
    check_mount_points,
    command_line,
    create_body,
    read_only_submounts,
    submounts,
)
from runner.host.engines.engine import ContainerSpec, Exit, Limits, Mount, User

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "sha256:" + "0" * 64
ME = User(uid=os.getuid(), gid=os.getgid())


def a_spec(*argv: str, **changes: Any) -> ContainerSpec:
    """A spec with nothing in it but the command."""
    values: dict[str, Any] = {
        "name": f"runner-test-{uuid.uuid4().hex[:12]}",
        "image": IMAGE,
        "argv": argv or ("true",),
        "workdir": PurePosixPath("/tmp"),
        "mounts": (),
        "environment": {"HOME": "/tmp/home"},
        "labels": {},
        "user": ME,
        "limits": Limits(tmp_bytes=1 << 26, shm_bytes=1 << 26),
        "hostname": "somebox",
    }
    return ContainerSpec(**(values | changes))


@pytest.fixture
def engine(tmp_path: Path) -> DockerEngine:
    return DockerEngine(tmp_path / "cache")


@pytest.fixture
def run(engine: DockerEngine, test_image: str) -> Callable[..., tuple[str, Exit]]:
    """Run a command in a container to its end; output and exit."""

    def run_it(*argv: str, **changes: Any) -> tuple[str, Exit]:
        container = engine.create(a_spec(*argv, image=test_image, **changes))
        try:
            output = engine.attach(container)
            engine.start(container)
            return b"".join(output).decode(), engine.wait(container)
        finally:
            engine.remove(container)

    return run_it


Run = Callable[..., tuple[str, Exit]]


@pytest.mark.docker
class TestContainer:
    def test_out_of_memory(self, run: Run) -> None:
        limits = Limits(memory_bytes=64 << 20, tmp_bytes=1 << 26, shm_bytes=1 << 26)
        _, exit_ = run("python", "-c", "x = bytearray(1 << 30); print(len(x))", limits=limits)
        assert (exit_.code, exit_.out_of_memory) == (137, True)

    def test_out_of_memory_of_a_worker(self, run: Run) -> None:
        """The command notices that its worker died and fails by itself: still the kernel's doing."""
        limits = Limits(memory_bytes=64 << 20, tmp_bytes=1 << 26, shm_bytes=1 << 26)
        _, exit_ = run("sh", "-c", "python -c 'bytearray(1 << 30)' || exit 9", limits=limits)
        assert exit_.code == 9
        assert exit_.out_of_memory

    def test_exit_137_without_a_shortage_is_not_out_of_memory(self, run: Run) -> None:
        _, exit_ = run("sh", "-c", "kill -9 $$")
        assert (exit_.code, exit_.out_of_memory) == (137, False)

    def test_another_user_owns_what_it_writes(self, run: Run, tmp_path: Path) -> None:
        if os.getuid() != 0:
            pytest.skip("only root can give a folder to somebody else")
        folder = tmp_path / "theirs"
        folder.mkdir()
        os.chown(folder, 1234, 2345)
        shared = tmp_path / "shared.txt"
        shared.write_text("for the group")
        os.chown(shared, 0, 3456)
        shared.chmod(0o640)
        output, exit_ = run(
            *("sh", "-ec", "echo x > file; id -u; id -g; id -G; whoami; echo ~; cat /shared.txt"),
            user=User(uid=1234, gid=2345, groups=(3456,)),
            workdir=PurePosixPath("/theirs"),
            mounts=(
                Mount(source=folder, target=PurePosixPath("/theirs"), read_only=False),
                Mount(source=shared, target=PurePosixPath("/shared.txt")),
            ),
        )
        assert exit_.code == 0, output
        assert output == "1234\n2345\n2345 3456\nuser\n/tmp/home\nfor the group"
        assert ((folder / "file").stat().st_uid, (folder / "file").stat().st_gid) == (1234, 2345)

    def test_nothing_but_what_is_writable_can_be_written(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "data/part").mkdir(parents=True)
        mount = Mount(source=tmp_path / "data", target=PurePosixPath("/data"))
        for place in ("/", "/etc", "/data", "/data/part", "/opt/venv", "/run"):
            output, exit_ = run("sh", "-c", f"echo x > {place}/new", mounts=(mount,))
            assert exit_.code != 0 and "Read-only file system" in output, place
        assert run("sh", "-c", "echo x > /tmp/new && echo x > /dev/shm/new", mounts=(mount,))[1].code == 0
        assert list((tmp_path / "data").iterdir()) == [tmp_path / "data/part"]

    def test_hardening(self, run: Run) -> None:
        code = (
            "import json, os, pathlib, socket\n"
            "status = dict(line.split(':\\t') for line in open('/proc/self/status').read().splitlines() if ':\\t' in line)\n"
            "shm = os.statvfs('/dev/shm'); tmp = os.statvfs('/tmp')\n"
            "print(json.dumps({'caps': int(status['CapEff'], 16) | int(status['CapBnd'], 16), 'new': status['NoNewPrivs'],\n"
            " 'shm': shm.f_blocks * shm.f_frsize, 'tmp': tmp.f_blocks * tmp.f_frsize, 'nets': os.listdir('/sys/class/net'),\n"
            " 'host': socket.gethostname(), 'ip': socket.gethostbyname(socket.gethostname()), 'one': open('/proc/1/comm').read(),\n"
            " 'pids': [p.read_text().strip() for p in pathlib.Path('/sys/fs/cgroup').glob('**/pids.max')]}))\n"
        )
        seen = json.loads(run("python", "-c", code)[0])
        assert (seen["caps"], seen["new"]) == (0, "1")
        assert (seen["shm"], seen["tmp"]) == (1 << 26, 1 << 26)
        assert (seen["host"], seen["ip"]) == ("somebox", "127.0.0.1")
        assert "lo" in seen["nets"] and "eth0" not in seen["nets"]
        assert seen["pids"] == ["4096"]
        assert "init" in seen["one"]

    def test_tmp_is_executable(self, run: Run) -> None:
        """torch.compile loads what it has compiled from there."""
        assert run("sh", "-ec", "printf '#!/bin/sh\\necho ran' > /tmp/x; chmod +x /tmp/x; /tmp/x")[0] == "ran\n"

    def test_network_only_where_it_is_asked_for(self, run: Run) -> None:
        code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=2)"
        assert "Network is unreachable" in run("python", "-c", code)[0]
        output, _ = run("python", "-c", "import os; print(os.listdir('/sys/class/net'))", network=True)
        assert "eth0" in output
        assert run("python", "-c", "import socket; print(socket.gethostbyname('somebox'))", network=True)[1].code == 0

    def test_two_ranks_meet_under_the_machines_name(self, run: Run) -> None:
        """What torchrun does first: resolve its own name, listen there, connect to itself."""
        code = (
            "import socket; name = socket.gethostname(); server = socket.create_server((name, 0))\n"
            "client = socket.create_connection((name, server.getsockname()[1]), timeout=5); print('met', socket.getfqdn())\n"
        )
        assert run("python", "-c", code)[0].startswith("met")

    def test_a_mount_below_a_read_only_one_is_read_only(self, run: Run, tmp_path: Path) -> None:
        below = tmp_path / "data/a disk"
        below.mkdir(parents=True)
        if os.getuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "none", below], check=False).returncode != 0:
            pytest.skip("only root can mount")
        try:
            (below / "old").write_text("old")
            mounts = (Mount(source=tmp_path / "data", target=PurePosixPath("/data")),)
            output, exit_ = run("sh", "-c", "cat '/data/a disk/old'; echo x > '/data/a disk/new'", mounts=mounts)
            assert "old" in output and "Read-only file system" in output and exit_.code != 0
        finally:
            subprocess.run(["umount", below], check=True)

    def test_a_mount_point_is_never_made_on_the_host(
        self, engine: DockerEngine, test_image: str, tmp_path: Path
    ) -> None:
        (tmp_path / "outputs").mkdir()
        mounts = (
            Mount(source=tmp_path / "outputs", target=PurePosixPath("/outputs"), read_only=False),
            Mount(source=tmp_path, target=PurePosixPath("/outputs/launch")),
        )
        with pytest.raises(EngineError, match=r"outputs/launch: must be a folder before .* can be mounted over it"):
            engine.create(a_spec(image=test_image, mounts=mounts))
        assert list((tmp_path / "outputs").iterdir()) == []

    def test_an_image_without_an_id_is_refused(self, engine: DockerEngine) -> None:
        with pytest.raises(EngineError, match="containers are created by image id"):
            engine.create(a_spec(image="python:3.11"))
        with pytest.raises(EngineError, match="cannot be created: No such image: sha256:0000"):
            engine.create(a_spec(image=IMAGE))

    def test_a_gpu_that_is_not_there_is_an_error_in_words(self, engine: DockerEngine, test_image: str) -> None:
        if shutil.which("nvidia-smi"):
            pytest.skip("this machine has GPUs")
        limits = Limits(gpus=("GPU-00000000-0000-0000-0000-000000000000",), tmp_bytes=1 << 26)
        container = engine.create(a_spec(image=test_image, limits=limits))
        try:
            with pytest.raises(EngineError, match="cannot be started: could not select device driver"):
                engine.start(container)
            exit_ = engine.wait(container)
            assert exit_.code != 0 and exit_.error is not None and "device driver" in exit_.error
        finally:
            engine.remove(container)

    def test_an_image_by_tag_and_by_id(self, engine: DockerEngine, test_image: str) -> None:
        image = engine.image(test_image)
        assert image is not None and image.id == test_image
        assert image.size_bytes > 1 << 20 and image.layers

    def test_the_api_is_one_that_both_sides_speak(self, engine: DockerEngine) -> None:
        asked = subprocess.run(
            ["docker", "version", "-f", "{{.Server.APIVersion}}"], capture_output=True, text=True, check=True
        )
        offered = tuple(int(part) for part in asked.stdout.split("."))
        assert tuple(int(part) for part in engine._connection.client.api_version.split(".")) == min(offered, (1, 45))


@pytest.fixture
def relay(tmp_path: Path) -> Iterator["Relay"]:
    relay = Relay(tmp_path / "relay.sock")
    yield relay
    relay.die()


class Relay:
    """A socket in front of the real engine's, which can die in the middle of everything."""

    def __init__(self, path: Path) -> None:
        self.endpoint = Endpoint(address=f"unix://{path}", named_by="a test")
        self._engine = str(find_endpoint().socket)  # type: ignore[union-attr]
        self._open: list[socket.socket] = []
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self._path = path
        threading.Thread(target=self._serve, daemon=True).start()

    def die(self) -> None:
        """Close everything at once, as a killed daemon does; its socket stays behind."""
        for one in (self._server, *self._open):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
            finally:
                one.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            engine = socket.socket(socket.AF_UNIX)
            engine.connect(self._engine)
            self._open += [client, engine]
            for pair in ((client, engine), (engine, client)):
                threading.Thread(target=self._copy, args=pair, daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return


@pytest.mark.docker
class TestSilence:
    """An engine that dies midway is said to have, and never passes for a container that ended."""

    def test_while_output_is_read(self, relay: Relay, engine: DockerEngine, test_image: str, tmp_path: Path) -> None:
        through = DockerEngine(tmp_path / "cache", relay.endpoint)
        container = through.create(a_spec("sh", "-c", "echo begun; sleep 60", image=test_image))
        try:
            output = through.attach(container)
            through.start(container)
            assert next(output) == b"begun\n"
            relay.die()
            with pytest.raises(EngineError, match=r"relay\.sock: the engine stopped answering"):
                list(output)
            with pytest.raises(EngineError, match="the engine stopped answering"):
                through.wait(container)
            with pytest.raises(EngineError, match="the engine stopped answering"):
                through.kill(container)
            assert engine.find(container).running  # type: ignore[union-attr]
        finally:
            engine.kill(container)
            engine.wait(container)
            engine.remove(container)

    def test_while_the_end_is_waited_for(
        self, relay: Relay, engine: DockerEngine, test_image: str, tmp_path: Path
    ) -> None:
        through = DockerEngine(tmp_path / "cache", relay.endpoint)
        container = through.create(a_spec("sleep", "60", image=test_image))
        try:
            through.start(container)
            threading.Timer(0.3, relay.die).start()
            with pytest.raises(EngineError, match="the engine stopped answering"):
                through.wait(container)
        finally:
            engine.kill(container)
            engine.wait(container)
            engine.remove(container)


class TestNoAnswer:
    def test_a_socket_nobody_listens_on(self, tmp_path: Path) -> None:
        path = tmp_path / "docker.sock"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
        with pytest.raises(
            EngineError, match=r"docker\.sock: no Docker engine answers there \(named by me\); start it"
        ):
            DockerEngine(tmp_path, Endpoint(address=f"unix://{path}", named_by="me")).identity()

    def test_a_socket_that_does_not_exist(self, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match="no Docker engine answers there"):
            DockerEngine(tmp_path, Endpoint(address=f"unix://{tmp_path}/none", named_by="DOCKER_HOST")).find("x")

    def test_a_host_that_is_not_docker(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer() -> None:
                with server.accept()[0] as client:
                    client.recv(4096)
                    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

            threading.Thread(target=answer, daemon=True).start()
            address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
            with pytest.raises(EngineError, match="what answers there is no Docker engine"):
                DockerEngine(tmp_path, Endpoint(address=address, named_by="DOCKER_HOST")).identity()

    def test_a_malformed_address(self, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match="nonsense"):
            DockerEngine(tmp_path, Endpoint(address="nonsense://x", named_by="DOCKER_HOST")).identity()

    def test_no_permission(self, tmp_path: Path) -> None:
        """As somebody whom the socket refuses; the next step names the group."""
        path = tmp_path / "docker.sock"
        code = (
            f"import os, sys; sys.path.insert(0, {str(ROOT)!r})\n"
            "from runner.host.engines.docker_engine import DockerEngine\n"
            "from runner.host.engines.docker_endpoint import Endpoint\n"
            "from pathlib import Path\n"
            "import getpass, grp, pwd\n"
            "if os.getuid() == 0: os.setuid(65534)\n"
            f"try: DockerEngine(Path('x'), Endpoint(address='unix://{path}', named_by='x')).identity()\n"
            "except Exception as error: print(type(error).__name__, error)\n"
        )
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen()
            path.chmod(0o000)
            for folder in (tmp_path, *tmp_path.parents[:2]):
                if folder.stat().st_uid == os.getuid():
                    folder.chmod(0o755)
            said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert said.startswith(f"EngineError unix://{path}: permission denied; join its group (`sudo usermod -aG "), (
            said
        )


class TestEndpoint:
    def test_docker_host_comes_first(self, tmp_path: Path) -> None:
        found = find_endpoint({"DOCKER_HOST": "tcp://box:2376", "HOME": str(tmp_path)})
        assert found == Endpoint(address="tcp://box:2376", named_by="DOCKER_HOST")
        assert found is not None and found.socket is None
        tls = {"DOCKER_HOST": "tcp://box:2376", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/certs"}
        assert find_endpoint(tls) == Endpoint(address="tcp://box:2376", named_by="DOCKER_HOST", tls=Path("/certs"))

    def test_then_the_current_context(self, tmp_path: Path) -> None:
        """Made by the docker command itself where there is one, so that its format is the real one."""
        environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
        if shutil.which("docker") is None:
            pytest.skip("no docker command to make a context with")
        for words in (["create", "far", "--docker", "host=ssh://far.example"], ["use", "far"]):
            done = subprocess.run(["docker", "context", *words], env=environment, check=False, capture_output=True)
            assert done.returncode == 0, done.stderr
        assert find_endpoint(environment) == Endpoint(address="ssh://far.example", named_by="docker context 'far'")
        assert find_endpoint({**environment, "DOCKER_HOST": "unix:///x"}).address == "unix:///x"  # type: ignore[union-attr]
        elsewhere = {"DOCKER_CONFIG": str(tmp_path / ".docker"), "HOME": "/nonexistent"}
        assert find_endpoint(elsewhere).address == "ssh://far.example"  # type: ignore[union-attr]

    def test_a_context_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match=r"docker context 'gone': .* does not say where its engine is"):
            find_endpoint({"HOME": str(tmp_path), "DOCKER_CONTEXT": "gone"})

    @pytest.mark.parametrize("name", ["docker.sock", "podman/podman.sock"])
    def test_then_a_socket_of_ones_own(self, tmp_path: Path, name: str) -> None:
        if os.access("/var/run/docker.sock", os.W_OK):
            pytest.skip("the system's socket comes first here")
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            found = find_endpoint({"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)})
        assert found is not None and found.socket == path

    def test_asking_imports_no_sdk(self) -> None:
        code = "import sys; from runner.host.engines.docker_engine import available; available(); print('docker' in sys.modules)"
        said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        assert said.stdout == "False\n"

    def test_available(self) -> None:
        found = find_endpoint()
        assert available() == (None if found is None else found.address)


class TestSdk:
    def test_our_folder_of_the_same_name_does_not_hide_it(self) -> None:
        import docker
        import docker.errors

        assert docker.__file__ is not None
        assert not Path(docker.__file__).is_relative_to(ROOT / "docker")
        assert not (ROOT / "docker/__init__.py").exists()
        assert not (ROOT / "datasets/__init__.py").exists()

    def test_its_absence_is_said(self, tmp_path: Path) -> None:
        """`import docker` succeeds even then: it finds our folder."""
        code = (
            "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
            "from pathlib import Path; from runner.host.engines.docker_engine import DockerEngine\n"
            "from runner.host.engines.docker_endpoint import Endpoint\n"
            "try: DockerEngine(Path('x'), Endpoint(address='tcp://127.0.0.1:1', named_by='x')).identity()\n"
            "except Exception as error: print(type(error).__name__, error)\n"
        )
        said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert said.startswith("EngineError the Docker SDK is not installed in this Python"), said


class TestRequest:
    """Plain values: what an engine of each kind is asked for."""

    def test_gpus_by_uuid_or_by_cdi_name(self) -> None:
        spec = a_spec(limits=Limits(gpus=("GPU-a", "GPU-b")))
        requests = create_body(spec, Flavour(), ())["HostConfig"]["DeviceRequests"]
        assert requests[0]["DeviceIDs"] == ["GPU-a", "GPU-b"] and requests[0]["Capabilities"] == [["gpu"]]
        names = ["nvidia.com/gpu=GPU-a", "nvidia.com/gpu=GPU-b"]
        for flavour in (Flavour(podman=True), Flavour(cdi_devices=(*names, "nvidia.com/gpu=all"))):
            body = create_body(spec, flavour, ())
            assert body["HostConfig"]["DeviceRequests"] == [{"Driver": "cdi", "DeviceIDs": names}]
            assert f"--device {names[0]} --device {names[1]}" in command_line(body, "n", ["docker"])
        assert "DeviceRequests" not in create_body(a_spec(), Flavour(), ())["HostConfig"]
        assert """--gpus '"device=GPU-a,GPU-b"'""" in command_line(create_body(spec, Flavour(), ()), "n", ["docker"])

    def test_users(self) -> None:
        spec = a_spec(user=User(uid=1000, gid=100, groups=(100, 44)))
        expected = [
            (Flavour(), "1000:100", ["44"], ""),
            (Flavour(rootless=True), "0:0", [], ""),
            (Flavour(remapped=True), "1000:100", ["44"], "host"),
            (Flavour(podman=True), "1000:100", ["44"], ""),
            (Flavour(podman=True, rootless=True), "1000:100", ["keep-groups"], "keep-id"),
        ]
        for flavour, user, groups, userns in expected:
            body = create_body(spec, flavour, ())
            assert (body["User"], body["HostConfig"]["GroupAdd"], body["HostConfig"]["UsernsMode"]) == (
                user,
                groups,
                userns,
            )

    def test_selinux(self) -> None:
        assert "label=disable" in create_body(a_spec(), Flavour(selinux=True), ())["HostConfig"]["SecurityOpt"]
        assert create_body(a_spec(), Flavour(), ())["HostConfig"]["SecurityOpt"] == ["no-new-privileges"]

    def test_ports_are_the_loopbacks_only(self) -> None:
        body = create_body(a_spec(ports=(8888,), network=True), Flavour(), ())
        assert body["HostConfig"]["PortBindings"] == {"8888/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8888"}]}
        assert "--publish 127.0.0.1:8888:8888/tcp" in command_line(body, "n", ["docker"])

    def test_a_mount_flag_is_csv(self) -> None:
        mount = Mount(source=Path('/a,b/"c"'), target=PurePosixPath("/x"))
        words = shlex.split(command_line(create_body(a_spec(mounts=(mount,)), Flavour(), ()), "n", ["docker"]))
        flag = words[words.index("--mount") + 1]
        assert flag == 'type=bind,"source=/a,b/""c""",target=/x,bind-propagation=rprivate,readonly'

    def test_accounts(self) -> None:
        passwd, group = accounts_text("1000:100", ["44", "keep-groups"])
        assert passwd == "root:x:0:0:root:/tmp/home:/bin/sh\nuser:x:1000:100:user:/tmp/home:/bin/sh\n"
        assert group == "root:x:0:\nuser:x:100:\ngroup44:x:44:\n"
        assert accounts_text("0:0", []) == ("root:x:0:0:root:/tmp/home:/bin/sh\n", "root:x:0:\n")

    def test_submounts(self, tmp_path: Path) -> None:
        table = tmp_path / "mountinfo"
        table.write_text(
            "1 0 0:1 / / rw - ext4 x rw\n"
            "2 1 0:2 / /data rw - ext4 x rw\n"
            r"3 2 0:3 / /data/with\040blank rw - ext4 x rw" + "\n"
            "4 2 0:4 / /data/a/b rw - ext4 x rw\n"
            "5 2 0:5 / /database rw - ext4 x rw\n"
        )
        assert submounts(Path("/data"), table) == [Path("/data/with blank"), Path("/data/a/b")]
        assert submounts(Path("/nowhere"), table) == []

    def test_read_only_submounts_of_this_machine(self) -> None:
        target = PurePosixPath("/x")
        found = read_only_submounts([Mount(source=Path("/proc").parent, target=target)])
        assert target / "proc" in [mount.target for mount in found]
        assert all(mount.read_only for mount in found)
        assert read_only_submounts([Mount(source=Path("/"), target=target, read_only=False)]) == ()
        assert target / "proc" not in [
            mount.target
            for mount in read_only_submounts(
                [
                    Mount(source=Path("/"), target=target),
                    Mount(source=Path("/proc"), target=target / "proc", read_only=False),
                ]
            )
        ]

    def test_mount_points(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "folder").mkdir()
        (tmp_path / "link").symlink_to("folder")
        outer = Mount(source=tmp_path, target=PurePosixPath("/x"))

        def inner(source: str, target: str) -> None:
            check_mount_points([outer, Mount(source=tmp_path / source, target=PurePosixPath(target))])

        inner("file", "/x/file")
        inner("folder", "/x/folder")
        inner("folder", "/elsewhere/new")
        for source, target in (
            ("file", "/x/folder"),
            ("folder", "/x/file"),
            ("folder", "/x/link"),
            ("file", "/x/none"),
        ):
            with pytest.raises(EngineError, match=r"must be a (file|folder) before"):
                inner(source, target)


@pytest.mark.docker
def test_ctrl_c_while_reading_output_reaches_python(engine: DockerEngine, test_image: str, tmp_path: Path) -> None:
    """Reading and waiting have no timeout, and still a signal to the launcher is handled at once."""
    code = (
        f"import signal, sys, time; sys.path.insert(0, {str(ROOT)!r})\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background shell has it ignored
        "from pathlib import Path, PosixPath, PurePosixPath\n"
        "from runner.host.engines.engine import *\n"
        "from runner.host.engines.docker_engine import DockerEngine\n"
        f"engine = DockerEngine(Path({str(tmp_path)!r}))\n"
        f"container = engine.create({a_spec('sleep', '60', image=test_image)!r})\n"
        "output = engine.attach(container); engine.start(container); print(container, flush=True)\n"
        "try:\n    list(output)\n"
        "except KeyboardInterrupt:\n    engine.kill(container); print(engine.wait(container).code)\n"
        "engine.remove(container)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        container = process.stdout.readline().strip()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "137\n"
    assert process.returncode == 0
    assert engine.find(container) is None
