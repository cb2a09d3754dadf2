"""Every option of the command line, once: its flag, the name that make gives it, and its help."""

import argparse
import difflib
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass

from runner.contract.errors import RunnerError

MAKE_PREFIX = "RUNNER_MAKE_"


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option. `--dry-run` is DRY_RUN= for make."""

    help: str
    flag: bool = False
    default: str | None = None
    metavar: str | None = None


OPTIONS: Mapping[str, Option] = {
    "project": Option(help="folder in projects/"),
    "config": Option(help="experiment in the project's configs/ (default: default)"),
    "set": Option(help='overrides, e.g. "learning_rate=1e-3 model.depth=4"', metavar="KEY=VALUE…"),
    "tag": Option(help="names the run (default: the experiment's name)"),
    "data": Option(help="variant of the data set: full or toy", metavar="full|toy"),
    "gpus": Option(help="auto, none, all, a count (2), indices (0,1) or UUIDs"),
    "mode": Option(help="prod (snapshot, locked, no network) or dev (live code, network)", metavar="prod|dev"),
    "engine": Option(help="auto, docker or local", metavar="ENGINE"),
    "detach": Option(help="start it and return; its end is still recorded", flag=True),
    "dry_run": Option(help="print the plan and the equal docker run line; change nothing", flag=True),
    "json": Option(help="print one JSON value on stdout", flag=True),
    "run": Option(help="a path, a session name, an unambiguous part of one, latest, or <tag>/<n>"),
    "split": Option(help="val or test (default: val)", metavar="val|test"),
    "checkpoint": Option(help="best, latest or a step (default: best)"),
    "dataset": Option(help="folder in datasets/; for eval another of the same schema, in place of the run's own"),
    "source": Option(help="folder or archive with the raw data, or file or address of weights", metavar="PATH"),
    "file": Option(help="the file to write or to read", metavar="PATH"),
    "with": Option(help="image, wheels or none (default: what its engine needs)", metavar="image|wheels|none"),
    "name": Option(help="what the model is called: models/<name>"),
    "version": Option(help="of the model (default: the next of v1, v2 …)"),
    "checksum": Option(help="what the file must hash to", metavar="sha256:DIGITS"),
    "port": Option(help="of the notebook on this machine (default: 8888)"),
    "stage": Option(help="raw, lists, lmdb, toy or readme (default: every one that is not complete)"),
    "lock": Option(help="a lock of requirements/, without .txt"),
    "yes": Option(help="do not ask", flag=True),
    "now": Option(help="kill it at once", flag=True),
    "follow": Option(help="go on until it ends", flag=True),
    "force": Option(help="allow what is refused otherwise; recorded", flag=True),
    "check": Option(help="only check that each lock agrees with its .in", flag=True),
    "runs": Option(help="several runs, as RUN= names them, with spaces between", metavar="RUN RUN…"),
    "level": Option(
        help="what must hold: inputs, metrics, checkpoints, tolerance or tolerance:<relative> "
        "(default: bit-identical checkpoints where that can be expected, else tolerance)",
        metavar="LEVEL",
    ),
    "verify": Option(help="full: read every byte of the data again instead of asking the cache", metavar="full"),
    "if_possible": Option(help="say why and carry on where it cannot be done", flag=True),
}


def add_options(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Give a verb's parser the options of these names."""
    for name in names:
        option = OPTIONS[name]
        text = f"{option.help} [make: {name.upper()}=]"
        flag = "--" + name.replace("_", "-")
        if option.flag:
            parser.add_argument(flag, action="store_true", help=text)
        else:
            parser.add_argument(flag, default=option.default, metavar=option.metavar or name.upper(), help=text)


def from_make(environment: Mapping[str, str], names: Sequence[str]) -> list[str]:
    """What was set on make's command line, as flags. An empty value, and 0 for a switch, count as not given.

    Raises:
        RunnerError: a variable that this verb does not take; all of them are named, with the nearest known one.
    """
    flags, problems = [], []
    for variable, value in sorted(environment.items()):
        if not variable.startswith(MAKE_PREFIX):
            continue
        upper = variable.removeprefix(MAKE_PREFIX)
        name = upper.lower()
        if name not in names or upper != upper.upper():
            near = difflib.get_close_matches(upper.upper(), [n.upper() for n in names], n=1)
            problems.append(f"{upper}=: no such variable here" + (f", did you mean {near[0]}=?" if near else ""))
        elif OPTIONS[name].flag:
            flags += ["--" + name.replace("_", "-")] if value not in ("", "0", "no", "false") else []
        elif value:
            flags += [f"--{name.replace('_', '-')}={value}"]
    if problems:
        have = ", ".join(f"{name.upper()}=" for name in names)
        raise RunnerError(f"{'; '.join(problems)}; this target takes {have or 'none'}")
    return flags


def forget_make(environment: MutableMapping[str, str]) -> None:
    """Take make's variables out of the environment: what we start, such as the follower of a detached run, is another verb."""
    for variable in [name for name in environment if name.startswith(MAKE_PREFIX)]:
        del environment[variable]
