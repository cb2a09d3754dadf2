"""What every verb needs: the house, the engine, who asks, and how it is answered."""

import contextlib
import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from runner.contract.errors import RunnerError
from runner.host.house import House, find_house


def say(text: str) -> None:
    """One message on stderr. A terminal that is gone keeps nobody from going on: not a launch, not its deadline."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def one_line(error: BaseException) -> str:
    """An error as the one line that is promised, whatever it quotes."""
    return "error: " + " ".join(str(error).split())


def house_here() -> House:
    """The house that this process stands in."""
    return find_house(Path.cwd(), os.environ)


def needed(arguments: Namespace, name: str) -> str:
    """An option that the verb cannot do without.

    Raises:
        RunnerError: it was not given.
    """
    value = getattr(arguments, name)
    if not value:
        raise RunnerError(
            f"{name.upper()}= is missing; give it as {name.upper()}=… to make, or --{name} … to python -m runner"
        )
    return str(value)


def overrides_of(arguments: Namespace) -> tuple[str, ...]:
    """SET= as single overrides."""
    from runner.contract.config import split_overrides

    return tuple(split_overrides(arguments.set)) if arguments.set else ()


def caller_here() -> Any:
    """Who runs this process."""
    from runner.host.launch.here import this_caller

    return this_caller()


def engine_for(arguments: Namespace, house: House) -> Any:
    """The engine that ENGINE= or runner.yml asks for."""
    from runner.host.engines.choose import choose_engine

    return choose_engine(arguments.engine or house.engine, house.cache, say)


def agreed(question: str) -> bool:
    """Ask on the terminal. Without one the answer is an error: nobody could have said yes.

    Raises:
        RunnerError: there is no terminal to ask on.
    """
    if not sys.stdin.isatty():
        raise RunnerError(f"{question} No terminal to ask on; give YES=1 to agree")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def verify_full(arguments: Namespace) -> bool:
    """Whether VERIFY=full was given.

    Raises:
        RunnerError: VERIFY= is something else.
    """
    if arguments.verify not in (None, "full"):
        raise RunnerError(
            f"VERIFY={arguments.verify!r}: the only value is full; without it unchanged files are not read"
        )
    return bool(arguments.verify)
