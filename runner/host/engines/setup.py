"""`make engine`: give a machine a Docker engine where it has none and where we may. Says each thing it does.

An engine that is there is used as it is: nothing of it is ever reconfigured or restarted.
"""

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from runner.contract.errors import EngineError, RunnerError
from runner.host.engines.choose import docker_address, docker_engine, docker_is_here

Say = Callable[[str], None]
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
ENGINE_PACKAGES = ("docker.io", "docker-cli", "docker-buildx")
"""One package up to Debian 12; Debian 13 has parted the client from it, and Ubuntu the builder."""
ROOT_PACKAGES = {"mmdebstrap": "mmdebstrap", KEYRING: "debian-archive-keyring"}
"""What builds the root file system of the images where no registry answers, and what checks its signatures."""
SOCKET = "/var/run/docker.sock"
START_S = 60.0
STALE = (Path("/var/run/docker.pid"), Path("/var/run/docker/containerd/containerd.pid"))


def give_engine(cache: Path, say: Say) -> str:
    """Make sure that a Docker engine answers and return one line about it.

    Raises:
        EngineError: there is one that does not answer (it may belong to others, so it is left alone).
        RunnerError: there is none, and it cannot be installed here, or does not start.
    """
    if not _answers(cache):
        why = why_not(_os_release(), os.getuid())
        if why is not None:
            raise RunnerError(why)
        _install(say)
        _start(cache, say)
    identity = docker_engine(cache).identity()
    return f"Docker engine {identity.version} on {identity.host}"


def why_not(os_release: Mapping[str, str], uid: int) -> str | None:
    """Why an engine may not be installed or started on such a system by this user; None where it may."""
    family = {os_release.get("ID", ""), *os_release.get("ID_LIKE", "").split()}
    if not family & {"debian", "ubuntu"}:
        found = os_release.get("PRETTY_NAME", "an unknown system")
        return f"found {found}, expected Debian or Ubuntu; install Docker as its documentation says"
    if uid != 0:
        return "installing Docker needs root: run `sudo make engine` once, then add yourself to the docker group (usermod -aG docker $USER)"
    return None


def missing_packages(present: Collection[str], known: Collection[str]) -> list[str]:
    """What to install where the programs and files `present` are there and apt knows the packages `known`.

    An engine that is there is left alone, whoever it came from: no package of ours may take its place.
    """
    parts = ENGINE_PACKAGES[1:] if "docker" not in present else ENGINE_PACKAGES[2:]
    engine = [] if "dockerd" in present else [ENGINE_PACKAGES[0], *(part for part in parts if part in known)]
    return engine + [package for what, package in ROOT_PACKAGES.items() if what not in present]


def _answers(cache: Path) -> bool:
    """Whether an engine answers. A socket that nobody listens on counts as none if we could start its engine."""
    if not docker_is_here():
        return False
    try:
        docker_engine(cache).identity()
    except EngineError:
        ours = docker_address() == f"unix://{SOCKET}"  # any other was named by somebody, or is a person's own
        if not ours or _running("dockerd") or why_not(_os_release(), os.getuid()) is not None:
            raise
        return False
    return True


def _install(say: Say) -> None:
    """Install the packages that are missing, with apt."""
    present = [program for program in ("dockerd", "docker", "mmdebstrap") if shutil.which(program)]
    present += [KEYRING] if Path(KEYRING).exists() else []
    if not missing_packages(present, ENGINE_PACKAGES):
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    say("asking apt-get for its list of packages ...")
    _run(["apt-get", "update", "-qq"], environment)
    missing = missing_packages(present, [name for name in ENGINE_PACKAGES if _apt_knows(name)])
    say(f"installing {', '.join(missing)} with apt-get ...")
    _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], environment)


def _apt_knows(package: str) -> bool:
    return subprocess.run(["apt-cache", "show", package], capture_output=True, check=False).returncode == 0


def _start(cache: Path, say: Say) -> None:
    """Start the daemon: by systemd where that runs the machine, else as a process of its own session."""
    if Path("/run/systemd/system").is_dir():
        say("starting Docker (systemctl start docker) ...")
        _run(["systemctl", "start", "docker"], dict(os.environ))
        wait_for_engine(cache, lambda: "see `journalctl -u docker`", lambda: True)
        return
    for left in STALE:  # by a daemon that was killed; the number in it may be another process's by now
        if not _running(left.stem.replace("docker", "dockerd")):
            left.unlink(missing_ok=True)
    log = cache / "dockerd.log"
    say(f"starting Docker (dockerd; its log: {log}) ...")
    cache.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as handle:
        daemon = subprocess.Popen(
            ["dockerd"], stdin=subprocess.DEVNULL, stdout=handle, stderr=handle, start_new_session=True, cwd="/"
        )
    wait_for_engine(cache, lambda: f"{last_line(log)} (its log: {log})", lambda: daemon.poll() is None)


def wait_for_engine(cache: Path, last_words: Callable[[], str], lives: Callable[[], bool]) -> None:
    """Wait until the engine answers.

    Raises:
        RunnerError: its daemon lives no more, or has not answered in time; with its last words.
    """
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if docker_is_here():
            try:
                docker_engine(cache).identity()
            except EngineError:
                pass
            else:
                return
        if not lives():
            raise RunnerError(f"dockerd ended at once: {last_words()}")
        time.sleep(0.3)
    raise RunnerError(f"dockerd did not answer within {START_S:g} s: {last_words()}")


def last_line(log: Path) -> str:
    """The last line of a log that says something."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it says nothing"


def _os_release() -> Mapping[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _running(name: str) -> bool:
    """Whether a process of this name runs. One that has ended and is not yet waited for (a zombie) does not."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            comm, _, rest = path.read_text().partition("(")[2].rpartition(")")
            if comm == name and not rest.strip().startswith("Z"):
                return True
        except OSError:
            continue
    return False


def _run(command: Sequence[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise RunnerError(
            f"{' '.join(command)} failed ({done.returncode}): {lines[-1] if lines else 'it says nothing'}"
        )
