"""python -m runner.training train|resume|evaluate MODULE:CLASS: what a launch runs for a Trainer project."""

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import Any

from runner.contract.errors import RunnerError
from runner.training.spread import begin_as_one_of_several, spread, tell


def main(argv: list[str] | None = None) -> int:
    """Run one verb; the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        begin_as_one_of_several()
        _refuse_debugging_in_vain(arguments)
        n_processes = _n_processes(arguments)
        if n_processes > 1:
            return spread(n_processes, sys.argv[1:] if argv is None else argv)
        {"train": _train, "resume": _resume, "evaluate": _evaluate}[arguments.verb](arguments)
    except RunnerError as error:
        tell(error)
        return error.exit_code
    except Exception:
        if _wants_debugger(arguments):
            _post_mortem()
            return 1
        raise
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m runner.training", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, meaning in (
        ("train", "train from the beginning"),
        ("resume", "continue from the newest valid checkpoint of this run folder"),
        ("evaluate", "evaluate a checkpoint; writes to OUTPUT_DIR only"),
    ):
        one = verbs.add_parser(verb, help=meaning, description=meaning)
        one.add_argument(
            "trainer", metavar="MODULE:CLASS", help="the project's Trainer, e.g. projects.cifar.trainer:CifarTrainer"
        )
        one.add_argument(
            "--config", type=Path, help="config.json or a .yml file; by default the launch's ($RUNNER_CONFIG)"
        )
        if verb == "resume":
            one.add_argument("--session", type=Path, help="the run folder; by default the launch's ($RUN_DIR)")
            one.add_argument(
                "--force", action="store_true", help="continue though it would be another run ($RUNNER_FORCE=1)"
            )
        if verb == "evaluate":
            one.add_argument("--split", default="val", help="train, val or test")
            one.add_argument("--checkpoint", default="", help="path of a .pt; without one the weights are untrained")
            one.add_argument("--output", type=Path, help="where to write; by default the launch's ($OUTPUT_DIR)")
    return parser


def _train(arguments: argparse.Namespace) -> None:
    _class_of(arguments.trainer)(_config_of(arguments)).train()


def _resume(arguments: argparse.Namespace) -> None:
    from runner.training.session import Session

    if arguments.session is None and not os.environ.get("RUN_DIR"):
        raise RunnerError(
            "resume: there is no run to resume; give --session FOLDER, or start it with `make resume RUN=`"
        )
    session = Session.existing(arguments.session) if arguments.session is not None else None
    config = _config_of(
        arguments, session.paths.config_yml if session is not None and session.paths is not None else None
    )
    trainer = _class_of(arguments.trainer)(config, session=session)
    trainer.resume(force=arguments.force or os.environ.get("RUNNER_FORCE") == "1")
    trainer.train()


def _evaluate(arguments: argparse.Namespace) -> None:
    from runner.training.evaluation import evaluate
    from runner.training.session import Session

    output = arguments.output or (Path(os.environ["OUTPUT_DIR"]) if os.environ.get("OUTPUT_DIR") else None)
    if output is None:
        raise RunnerError("evaluate: nowhere to write; give --output FOLDER, or start it with `make eval RUN=`")
    trainer = _class_of(arguments.trainer)(_config_of(arguments), session=Session.none())
    checkpoint = Path(arguments.checkpoint) if arguments.checkpoint else None
    evaluate(trainer, split=arguments.split, checkpoint=checkpoint, output_dir=output)


def _config_of(arguments: argparse.Namespace, default: Path | None = None) -> Any:
    from runner.training.session import read_config

    path = arguments.config or (Path(os.environ["RUNNER_CONFIG"]) if os.environ.get("RUNNER_CONFIG") else default)
    if path is None:
        raise RunnerError("no config: give --config FILE, or start it with `make train PROJECT=`")
    return read_config(path)


def _class_of(text: str) -> Any:
    """The class that MODULE:CLASS names. An error inside the module itself is raised as it is."""
    module_name, colon, class_name = text.partition(":")
    if not colon or not module_name or not class_name:
        raise RunnerError(f"{text!r}: MODULE:CLASS expected, for instance projects.cifar.trainer:CifarTrainer")
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise RunnerError(f"{module_name}: no such module below {os.getcwd()}; check train: in project.yml") from None
    found = getattr(module, class_name, None)
    if found is None:
        raise RunnerError(f"{module_name} has no {class_name}; check train: in project.yml")
    return found


def _n_processes(arguments: argparse.Namespace) -> int:
    """How many processes are still to be started; torchrun, or we ourselves, may have done so already."""
    path = arguments.config or os.environ.get("RUNNER_CONFIG")
    if "RANK" in os.environ or arguments.verb == "evaluate" or not path:
        return 1
    return int(_config_of(arguments).resources.processes)


def _refuse_debugging_in_vain(arguments: argparse.Namespace) -> None:
    """A launch passes nothing on from the terminal, so that pdb would wait for nobody."""
    if arguments.verb == "evaluate" or not _debugs(arguments):
        return
    if not sys.stdin.isatty():
        raise RunnerError(
            "debug: true opens pdb on an error, which needs a terminal, and a launch has none: set debug: false, or open "
            "one (make shell PROJECT=) and start `python -m runner.training train MODULE:CLASS --config FILE` there"
        )
    if "RANK" in os.environ or _n_processes(arguments) > 1:
        raise RunnerError(
            "debug: true opens pdb on the terminal, which several processes cannot share; set resources.processes: 1"
        )


def _wants_debugger(arguments: argparse.Namespace) -> bool:
    return _debugs(arguments) and sys.stdin.isatty()


def _debugs(arguments: argparse.Namespace) -> bool:
    try:
        return bool(_config_of(arguments).debug)
    except RunnerError:
        return False


def _post_mortem() -> None:
    import pdb
    import traceback

    traceback.print_exc()
    pdb.post_mortem()


if __name__ == "__main__":
    sys.exit(main())
