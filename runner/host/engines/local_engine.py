"""The local engine: a launch is a process in a virtual environment, where there is no Docker.

A "container" is a folder below CACHE_ROOT/local, named as the container would be:

    spec.json   labels, command, environment; its folder's mkdir is what makes a second start impossible
    view/       symbolic links in place of mounts
    alive       locked (flock) by the keeper for as long as it lives: any process can tell, at any time, without a pid
    process, output, exit       see local_keeper

It keeps what it can of a container's promises; what it cannot is listed in `not_enforced` and so in every manifest.
"""

import fcntl
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

from runner import __version__
from runner.contract.errors import EngineError
from runner.contract.jsonio import pretty_json, sha256_of, write_atomic
from runner.host.engines import local_keeper
from runner.host.engines.engine import Container, ContainerSpec, EngineIdentity, Exit, ImageInfo, check_sources
from runner.host.engines.local_view import View

NOT_ENFORCED = (
    "read-only mounts",
    "no network",
    "hostname",
    "memory, CPU, process and /tmp limits",
    "a file system of its own",
    "dropped privileges",
)
LOOK_S = (0.005, 0.05)
"""Shortest and longest pause between two looks at the output."""
BEGIN_S = 10.0
"""How long a keeper may take to name its process."""
KEEPER = (sys.executable, "-I", "-S", local_keeper.__file__)
PLACEHOLDER = PurePosixPath("/\0")
"""Stands for the view in a command line; no other text can hold it."""


class LocalEngine:
    """Processes on this machine, each in the environment of its spec and nothing else."""

    kind = "local"

    def __init__(self, cache: Path) -> None:
        """Keep the folders of its containers below `cache`."""
        self._root = cache.absolute() / "local"
        self._keepers: dict[str, int] = {}
        """Pids of the keepers that this process has started and must reap."""

    def identity(self) -> EngineIdentity:
        """Who this engine is: this machine, and the folder of its containers. With another CACHE_ROOT it is another engine,
        which knows nothing of this one's and must not call them lost."""
        return EngineIdentity(
            kind=self.kind,
            id=sha256_of([_first_line("/etc/machine-id") or socket.gethostname(), os.path.realpath(self._root)])[:32],
            boot_id=_first_line("/proc/sys/kernel/random/boot_id"),
            host=socket.gethostname(),
            version=__version__,
            not_enforced=NOT_ENFORCED,
        )

    def image(self, reference: str) -> ImageInfo | None:
        """The virtual environment in this folder; None where there is none."""
        return ImageInfo(id=reference) if os.access(Path(reference, "bin", "python"), os.X_OK) else None

    def create(self, spec: ContainerSpec) -> str:
        """Make its folder. A name in use is an EngineError that names it."""
        if self.image(spec.image) is None:
            raise EngineError(f"{spec.image}: no virtual environment there (bin/python is missing)")
        if spec.user.uid != os.getuid():
            raise EngineError(
                f"the local engine runs everything as you (uid {os.getuid()}), not as uid {spec.user.uid}"
            )
        if "/" in spec.name or spec.name in ("", ".", ".."):
            raise EngineError(f"container {spec.name!r} cannot be created: not a name")
        check_sources(spec.mounts)
        folder = self._root / spec.name
        view = View(spec, folder / "view")
        view.check()
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700)  # its spec may hold credentials that were passed on by name
        except FileExistsError:
            raise EngineError(f"container {spec.name!r} cannot be created: the name is already in use") from None
        except OSError as error:
            raise EngineError(f"{folder}: cannot be made: {error.strerror}") from None
        try:
            view.make()
            (folder / "alive").touch()
            (folder / "output").touch()
            write_atomic(folder / "spec.json", pretty_json(_description(spec, view)))
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise EngineError(
                f"container {spec.name!r} cannot be created: {error.filename}: {error.strerror}"
            ) from None
        return spec.name

    def start(self, container: str) -> None:
        """Start its keeper, which starts the command and outlives this process."""
        folder, described = self._folder(container), self._described(container)
        argv, environment = described["argv"], described["environment"]
        if not os.path.isdir(described["workdir"]):
            problem = f"{described['workdir']}: the working folder does not exist"
            ending = {"code": 127, "started": None, "finished": None, "error": problem}
            write_atomic(folder / "exit", pretty_json(ending))
            raise EngineError(f"container {container!r} cannot be started: {problem}")
        keeper = [*KEEPER, str(folder), described["workdir"], f"{described['umask']:o}", *argv]
        with (folder / "alive").open() as alive, (folder / "output").open("ab") as output:
            if not _lock(alive) or (folder / "process").exists():
                raise EngineError(f"container {container!r} cannot be started: it was started before")
            actions = [
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                *((os.POSIX_SPAWN_DUP2, output.fileno(), number) for number in (1, 2)),
                (os.POSIX_SPAWN_DUP2, alive.fileno(), local_keeper.LOCK),
            ]
            try:
                self._keepers[container] = os.posix_spawn(
                    sys.executable, keeper, environment, file_actions=actions, setsid=True, setsigmask=[]
                )
            except (OSError, ValueError) as error:
                raise EngineError(f"container {container!r} cannot be started: {error}") from None
        self._await_process(container)

    def attach(self, container: str) -> Iterator[bytes]:
        """Its output, both streams as one, from now until it ends. Attach before `start` to miss nothing."""
        folder = self._folder(container)
        if (folder / "exit").exists():
            return iter(())
        output = os.open(folder / "output", os.O_RDONLY | os.O_CLOEXEC)
        os.lseek(output, 0, os.SEEK_END)
        return self._output(container, output)

    def wait(self, container: str) -> Exit:
        """Wait until it has ended.

        Raises:
            EngineError: nothing says how it ended: its keeper was killed, or the machine went down.
        """
        folder = self._folder(container)
        while not self._begun(container):
            time.sleep(LOOK_S[1])
        with (folder / "alive").open() as alive:
            fcntl.flock(alive, fcntl.LOCK_SH)  # given when the keeper has ended, however it did
        if (pid := self._keepers.pop(container, None)) is not None:
            os.waitpid(pid, 0)
        exit_ = self._exit(container)
        if exit_ is None:
            raise EngineError(f"container {container!r}: nothing says how it ended; its keeper was killed")
        return exit_

    def signal(self, container: str, number: int) -> None:
        """Send a signal to its first process. One that has ended already is no error."""
        folder = self._root / container
        if not self._running(container):
            return
        try:
            pid, started = (folder / "process").read_text().split()
            if local_keeper.start_time(int(pid)) == started:
                os.kill(int(pid), number)
        except (FileNotFoundError, ProcessLookupError):
            return
        except OSError as error:
            raise EngineError(f"container {container!r}: signal {number}: {error.strerror}") from None

    def kill(self, container: str) -> None:
        """End every process in it at once. One that has ended already is no error. The keeper ends the rest of them."""
        self.signal(container, signal.SIGKILL)

    def find(self, name: str) -> Container | None:
        """The container of this name; None where there is none."""
        if not name or "/" in name or not (self._root / name / "spec.json").exists():
            return None
        running = self._running(name)  # asked first: what ends meanwhile has written its exit by then
        return Container(
            id=name,
            name=name,
            labels=self._described(name)["labels"],
            running=running,
            exit=None if running else self._exit(name),
        )

    def containers(self, labels: Mapping[str, str]) -> Sequence[Container]:
        """All containers, running or ended, that carry these labels."""
        names = sorted(path.name for path in self._root.iterdir()) if self._root.is_dir() else []
        found = [container for name in names if (container := self.find(name)) is not None]
        return [container for container in found if labels.items() <= container.labels.items()]

    def remove(self, container: str) -> None:
        """Remove an ended container. One that is gone already is no error."""
        if self._running(container):
            raise EngineError(f"container {container!r} cannot be removed: it is running; kill it first")
        try:
            shutil.rmtree(self._root / container)
        except FileNotFoundError:
            return
        except OSError as error:
            raise EngineError(
                f"container {container!r} cannot be removed: {error.filename}: {error.strerror}"
            ) from None

    def command_line(self, spec: ContainerSpec) -> str:
        """The equal command for a shell, to read and to paste."""
        return View(spec, PLACEHOLDER).command_line()

    def _await_process(self, container: str) -> None:
        """Return when the keeper has started the command."""
        deadline = time.monotonic() + BEGIN_S
        folder = self._root / container
        while not (folder / "process").exists():
            if not self._running(container) or time.monotonic() > deadline:
                said = (folder / "output").read_bytes()[-300:].decode(errors="replace").strip()
                raise EngineError(f"container {container!r} cannot be started: {said or 'its keeper did not begin'}")
            time.sleep(0.002)

    def _output(self, container: str, output: int) -> Iterator[bytes]:
        """What is in the output file and what comes, until nobody writes to it any more."""
        pause = LOOK_S[0]
        try:
            while True:
                over = not self._running(container) and self._begun(container)
                data = _read_on(output)
                if data:
                    yield data
                    pause = LOOK_S[0]
                elif over:
                    return
                else:
                    time.sleep(pause)
                    pause = min(pause * 1.5, LOOK_S[1])
        finally:
            os.close(output)

    def _running(self, container: str) -> bool:
        """Whether its keeper lives: whether somebody holds the lock."""
        try:
            with (self._root / container / "alive").open() as alive:
                fcntl.flock(alive, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        except OSError as error:
            raise EngineError(
                f"{self._root}: cannot lock files ({error.strerror}); choose another CACHE_ROOT"
            ) from None
        return False

    def _begun(self, container: str) -> bool:
        """Whether it was started, or failed to be.

        Raises:
            EngineError: it is gone.
        """
        folder = self._folder(container)
        return (folder / "process").exists() or (folder / "exit").exists()

    def _exit(self, container: str) -> Exit | None:
        try:
            return Exit(**json.loads((self._root / container / "exit").read_bytes()))
        except FileNotFoundError:
            return None

    def _described(self, container: str) -> dict[str, Any]:
        try:
            return dict(json.loads((self._folder(container) / "spec.json").read_bytes()))
        except (OSError, ValueError) as error:
            raise EngineError(f"container {container!r}: its spec.json cannot be read: {error}") from None

    def _folder(self, container: str) -> Path:
        """Its folder.

        Raises:
            EngineError: there is none.
        """
        folder = self._root / container
        if not folder.is_dir():
            raise EngineError(f"container {container!r}: there is none of this name in {self._root}")
        return folder


def _description(spec: ContainerSpec, view: View) -> dict[str, Any]:
    """What start and find must know."""
    return {
        "schema_version": 1,
        "name": spec.name,
        "labels": dict(spec.labels),
        "argv": view.argv(),
        "environment": view.environment(),
        "workdir": view.path(str(spec.workdir)),
        "umask": spec.user.umask,
    }


def _lock(file: IO[str]) -> bool:
    """Lock it; False if somebody keeps it locked. Those who only look hold it for microseconds."""
    for _ in range(100):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.001)
        else:
            return True
    return False


def _read_on(output: int) -> bytes:
    """The next bytes; b"" if there are none yet. Starts over where the keeper has emptied the file."""
    data = os.read(output, 1 << 16)
    if not data and os.fstat(output).st_size < os.lseek(output, 0, os.SEEK_CUR):
        os.lseek(output, 0, os.SEEK_SET)
        data = os.read(output, 1 << 16)
    return data


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
