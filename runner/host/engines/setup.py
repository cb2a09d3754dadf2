"""`make engine`: give a machine a Docker engine where it has none and where we may. Says each thing it does.

An engine that is there is used as it is: nothing of it is ever reconfigured or restarted.
"""

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from runner.contract.errors import EngineError, RunnerError
from runner.host.engines.choose import docker_engine, docker_is_here

Say = Callable[[str], None]
PACKAGES = ("docker.io", "mmdebstrap")
"""The engine, and what builds the root file system of the images where no registry answers."""
START_S = 60.0
STALE = (Path("/var/run/docker.pid"), Path("/var/run/docker/containerd/containerd.pid"))


def give_engine(cache: Path, say: Say, *, only_if_possible: bool = False) -> str:
    """Make sure that a Docker engine answers and return one line about it.

    With `only_if_possible` a machine where that cannot be is no error: the line says why, and that the local engine is used.

    Raises:
        RunnerError: it cannot be installed here, or does not start.
        EngineError: there is one that does not answer (it may belong to others, so it is left alone).
    """
    try:
        if not _answers(cache):
            _install(say)
            _start(cache, say)
    except (RunnerError, EngineError) as error:
        if not only_if_possible:
            raise
        return f"no Docker engine: {error}; going on with the local engine"
    identity = docker_engine(cache).identity()
    return f"Docker engine {identity.version} on {identity.host}"


def _answers(cache: Path) -> bool:
    """Whether an engine answers. A socket that nobody listens on counts as none if we could start its engine."""
    if not docker_is_here():
        return False
    try:
        docker_engine(cache).identity()
    except EngineError:
        if os.environ.get("DOCKER_HOST") or _running("dockerd") or _why_not() is not None:
            raise
        return False
    return True


def _install(say: Say) -> None:
    """Install the packages that are missing, with apt."""
    why = _why_not()
    if why is not None:
        raise RunnerError(why)
    programs = {"docker.io": "dockerd", "mmdebstrap": "mmdebstrap"}
    missing = [package for package in PACKAGES if shutil.which(programs[package]) is None]
    if missing:
        say(f"installing {' and '.join(missing)} with apt-get ...")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        _run(["apt-get", "update", "-qq"], environment)
        _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], environment)


def _start(cache: Path, say: Say) -> None:
    """Start the daemon: by systemd where that runs the machine, else as a process of its own session."""
    log = cache / "dockerd.log"
    if Path("/run/systemd/system").is_dir():
        say("starting Docker (systemctl start docker) ...")
        _run(["systemctl", "start", "docker"], dict(os.environ))
    else:
        say(f"starting Docker (dockerd; its log: {log}) ...")
        for left in STALE:  # by a daemon that was killed; the number in it may be another process's by now
            if not _running(left.stem.replace("docker", "dockerd")):
                left.unlink(missing_ok=True)
        cache.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as handle:
            subprocess.Popen(
                ["dockerd"], stdin=subprocess.DEVNULL, stdout=handle, stderr=handle, start_new_session=True, cwd="/"
            )
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if docker_is_here():
            try:
                docker_engine(cache).identity()
            except EngineError:
                pass
            else:
                return
        time.sleep(0.3)
    raise RunnerError(f"dockerd did not answer within {START_S:g} s; its log is {log}")


def _why_not() -> str | None:
    """Why we may not install or start an engine here; None where we may."""
    ids = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    family = {ids.get("ID", ""), *ids.get("ID_LIKE", "").split()}
    if not family & {"debian", "ubuntu"}:
        return f"found {ids.get('PRETTY_NAME', 'an unknown system')}, expected Debian or Ubuntu; install Docker as its documentation says"
    if os.getuid() != 0:
        return "installing Docker needs root: run `sudo make engine` once, then add yourself to the docker group (usermod -aG docker $USER)"
    return None


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
