"""Who launches, on which engine and machine, and what the launch takes from there."""

import getpass
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runner.contract.errors import RunnerError
from runner.contract.jsonio import file_sha256
from runner.contract.records import MachineRecord
from runner.host.engines.engine import Engine, EngineIdentity, User
from runner.host.launch.plan import SUPERVISOR_FILE
from runner.host.machine import this_machine


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who launches, and from which terminal."""

    user: User
    name: str
    argv: tuple[str, ...]
    """What was typed."""
    terminal: tuple[int, int] | None = None
    """Columns and rows of the terminal that output goes to; None for a pipe."""


@dataclass(frozen=True, kw_only=True)
class Here:
    """What a launch takes from where it is launched."""

    engine: EngineIdentity
    machine: MachineRecord
    caller: Caller
    passed: Mapping[str, str]
    """Values of the variables that resources.env names."""
    supervisor_sha256: str
    """Of the supervisor that this installation mounts."""


def passed_environment(names: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that resources.env names.

    Raises:
        RunnerError: one of them is not set here.
    """
    missing = [name for name in names if name not in environment]
    if missing:
        raise RunnerError(
            f"resources.env names {', '.join(missing)}, which is not set here; export it or take it out of the config"
        )
    return {name: environment[name] for name in names}


def here(engine: Engine, caller: Caller, passed: Mapping[str, str]) -> Here:
    """This engine, machine and supervisor as they are now: to be asked last, after all that takes its time."""
    return Here(
        engine=engine.identity(),
        machine=this_machine(),
        caller=caller,
        passed=passed,
        supervisor_sha256=file_sha256(SUPERVISOR_FILE),
    )


def this_caller() -> Caller:
    """Who runs this process, and the terminal it writes to."""
    terminal = None
    if sys.stdout.isatty():
        size = shutil.get_terminal_size()
        terminal = (size.columns, size.lines)
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a uid without a passwd entry
        name = str(os.getuid())
    return Caller(user=user_of_this_process(), name=name, argv=tuple(sys.argv), terminal=terminal)


def user_of_this_process() -> User:
    """The caller's ids and umask."""
    umask = os.umask(0)
    os.umask(umask)
    groups = tuple(sorted(set(os.getgroups()) - {os.getgid()}))
    return User(uid=os.getuid(), gid=os.getgid(), groups=groups, umask=umask)
