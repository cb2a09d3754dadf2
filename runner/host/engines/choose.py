"""Which engine a command uses. Docker where there is one; else the local engine, which says so."""

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from runner.contract.errors import EngineError, RunnerError
from runner.contract.records import EngineRecord
from runner.host.engines.engine import Engine

CHOICES = ("auto", "docker", "local")
NO_DOCKER = (
    "no Docker engine here: using the local engine (a process in a virtual environment of the same lock); "
    "`make engine` installs Docker on Debian or Ubuntu, see docs/engines.md for the rest"
)


def choose_engine(asked: str, cache: Path, say: Callable[[str], None]) -> Engine:
    """The engine for ENGINE=auto|docker|local. A Docker socket that refuses is an error, never a silent fall-back.

    Raises:
        RunnerError: not one of the three, or docker asked for and absent.
        EngineError: there is a socket or DOCKER_HOST, and it does not answer.
    """
    if checked(asked) == "local":
        return local_engine(cache)
    if docker_is_here():
        return _warmed(docker_engine(cache))
    if asked == "docker":
        raise EngineError(
            "ENGINE=docker: no Docker socket and no DOCKER_HOST on this machine; `make engine` installs one, or use ENGINE=local"
        )
    say(NO_DOCKER)
    return local_engine(cache)


def checked(asked: str) -> str:
    """ENGINE= itself.

    Raises:
        RunnerError: it names no engine.
    """
    if asked not in CHOICES:
        raise RunnerError(f"ENGINE={asked!r}: not an engine; use one of {', '.join(CHOICES)}")
    return asked


def _warmed(engine: Engine) -> Engine:
    """Begin to import the SDK and ask the engine who it is while the caller reads configs and waits for git: together
    they are the largest part of what a launch costs us. An engine that does not answer is met again by the caller."""

    def ask() -> None:
        with suppress(EngineError):
            engine.identity()

    threading.Thread(target=ask, daemon=True).start()
    return engine


def engine_of_record(record: EngineRecord, cache: Path) -> Engine | None:
    """The engine that a record names, as far as this machine has one of that kind; None where it cannot be asked."""
    if record.kind == "local":
        engine: Engine = local_engine(cache)
        return engine if engine.identity().id == record.id else None
    if not docker_is_here():
        return None
    engine = docker_engine(cache)
    return engine if engine.identity().id == record.id else None


def docker_is_here() -> bool:
    """Whether there is a Docker socket or a DOCKER_HOST, without talking to it."""
    return docker_address() is not None


def docker_address() -> str | None:
    """Where this user's Docker engine would be, without talking to it."""
    from runner.host.engines.docker_engine import available

    return available()


def docker_engine(cache: Path) -> Engine:
    """The Docker engine of this machine or of DOCKER_HOST."""
    from runner.host.engines.docker_engine import DockerEngine

    return DockerEngine(cache)


def local_engine(cache: Path) -> Engine:
    """Processes on this machine."""
    from runner.host.engines.local_engine import LocalEngine

    return LocalEngine(cache)
