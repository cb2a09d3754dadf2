"""The command line: one function a verb; each parses, calls and prints. Only this module prints errors and exits.

Progress and messages go to stderr, results to stdout. Exit code: 0, or the command's own where a launch failed, 2 for what
the user can mend, 125 where the engine failed, 130 after Ctrl-C.
"""

import argparse
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any

from runner.contract.errors import RunnerError
from runner.host.cli.console import one_line, say
from runner.host.cli.data import check_datasets, dataset, explore, lint_dataset, new_dataset
from runner.host.cli.launches import LAUNCH_OPTIONS, demo, evaluate, notebook, reproduce, resume, shell, train
from runner.host.cli.needs import engine, image, lock, venv
from runner.host.cli.options import add_options, forget_make, from_make
from runner.host.cli.records import compare, export, follow, import_, logs, ls, model, release, rm, show, stop


def main(argv: Sequence[str] | None = None) -> None:
    """Run one verb and exit."""
    try:
        arguments = parse(list(sys.argv[1:] if argv is None else argv), os.environ)
        forget_make(os.environ)
        verb: Callable[[Namespace], int] = arguments.verb
        code = verb(arguments)
        sys.stdout.flush()
    except RunnerError as error:
        say(one_line(error))
        code = error.exit_code
    except KeyboardInterrupt:
        say("interrupted")
        code = 130
    except BrokenPipeError:  # the reader of our output went away (| head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 141
    except OSError as error:  # disk full, no permission …: the file and the reason are the whole story
        if os.environ.get("RUNNER_DEBUG"):
            raise
        say(
            one_line(
                RunnerError(
                    f"{error.filename or 'the system'}: {os.strerror(error.errno or 0)} (RUNNER_DEBUG=1 shows where)"
                )
            )
        )
        code = RunnerError.exit_code
    sys.exit(code)


def parse(argv: list[str], environment: Any) -> Namespace:
    """The verb and its options: flags, and under make the variables set on its command line."""
    parser = argparse.ArgumentParser(
        prog="python -m runner", description="One command launches one experiment in a fresh container."
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name, (function, options) in VERBS.items():
        summary = (function.__doc__ or "").strip().splitlines()[0]
        verb = verbs.add_parser(name, help=summary, description=summary)
        add_options(verb, options)
        verb.set_defaults(verb=function)
    if argv and argv[0] in VERBS and argv[0] not in INNER:
        argv = [argv[0], *from_make(environment, VERBS[argv[0]][1]), *argv[1:]]
    return parser.parse_args(argv)


VERBS: dict[str, tuple[Callable[[Namespace], int], tuple[str, ...]]] = {
    "train": (train, ("project", "config", "set", "tag", "data", "mode", "detach", "verify", *LAUNCH_OPTIONS)),
    "eval": (evaluate, ("run", "project", "split", "checkpoint", "set", "data", "dataset", "verify", *LAUNCH_OPTIONS)),
    "resume": (resume, ("run", "project", "set", "force", "detach", *LAUNCH_OPTIONS)),
    "reproduce": (reproduce, ("run", "project", "level", "force", "verify", *LAUNCH_OPTIONS)),
    "compare": (compare, ("runs", "project", "json")),
    "dataset": (dataset, ("dataset", "source", "stage", "engine")),
    "new-dataset": (new_dataset, ("dataset",)),
    "lint-dataset": (lint_dataset, ("dataset", "engine")),
    "explore": (explore, ("dataset", "engine")),
    "check-datasets": (check_datasets, ("dataset",)),
    "ls": (ls, ("project", "json")),
    "show": (show, ("run", "project", "json")),
    "logs": (logs, ("run", "project", "follow")),
    "stop": (stop, ("run", "project", "now")),
    "rm": (rm, ("run", "project", "yes")),
    "image": (image, ("project", "run", "gpus", "mode", "engine", "json")),
    "lock": (lock, ("project", "check")),
    "venv": (venv, ("lock",)),
    "shell": (shell, ("project", "gpus", "engine", "dry_run")),
    "notebook": (notebook, ("project", "gpus", "port", "engine", "dry_run")),
    "export": (export, ("run", "project", "file", "with")),
    "import": (import_, ("file",)),
    "release": (release, ("run", "project", "name", "checkpoint", "version")),
    "model": (model, ("name", "source", "checksum", "version")),
    "engine": (engine, ("if_possible",)),
    "demo": (demo, ("engine",)),
    "follow": (follow, ("run",)),
}
INNER = ("venv", "follow")
"""Steps of other targets, and of ourselves: what was set on make's command line is not meant for them."""
