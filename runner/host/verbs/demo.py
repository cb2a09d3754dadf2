"""`make demo`: the whole road on a fresh machine, and then the names of the files worth opening."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from runner.contract import checkpoints
from runner.contract.catalogue import list_outputs
from runner.contract.errors import EngineError, RunnerError
from runner.contract.layout import RunPaths
from runner.host.engines.choose import checked
from runner.host.engines.setup import give_engine
from runner.host.house import House
from runner.host.verbs import runs

PROJECT, CONFIG = "cifar", "toy"
EVALUATED = {
    "metrics.json": "the scores",
    "predictions.csv": "what was said of every image",
    "predictions.npz": "the same with all outputs, for numpy",
    "per_class.csv": "accuracy by class",
    "confusion.png": "which class is taken for which",
    "worst_mistakes.png": "the images it is most wrong about",
    "logs.txt": "all that was printed",
}


def run_demo(house: House, asked: str, say: Callable[[str], None]) -> int:
    """Engine, then train and evaluate by the very commands that a user types; image and toy data come on the way.

    Raises:
        EngineError: there is a Docker engine, and it does not answer or lets us not in.
        RunnerError: ENGINE= names none; ENGINE=docker, and this machine cannot be given one.
    """
    engine = engine_to_use(house.cache, checked(asked), say)
    train = ["train", "--project", PROJECT, "--config", CONFIG, "--engine", engine]
    for number, verb in enumerate((train, ["eval", "--run", "latest", "--project", PROJECT]), start=2):
        say(f"\n{number}. python -m runner {' '.join(verb)}")
        code = subprocess.run([sys.executable, "-m", "runner", *verb], cwd=house.root, check=False).returncode
        if code != 0:
            say(f"demo: stopped, `{verb[0]}` ended with exit code {code}")
            return code
    run = runs.find(house, "latest", PROJECT)
    print("\nWorth opening:")
    for folder, files in worth_opening(house, run):
        print(f"  {folder}/")
        width = max(len(name) for name, _ in files)
        print("\n".join(f"    {name:{width}}  {why}" for name, why in files))
    return 0


def engine_to_use(cache: Path, asked: str, say: Callable[[str], None]) -> str:
    """docker or local, said in one line. Only where there is no Docker at all, and it may not be installed, `auto` is local."""
    if asked == "local":
        say("1. engine: the local engine, as asked for")
        return asked
    try:
        say(f"1. engine: {give_engine(cache, say)}")
    except EngineError:  # one that refuses is an error, never a silent fall-back
        raise
    except RunnerError as error:
        if asked == "docker":
            raise
        say(f"1. engine: the local engine, as this machine has no Docker: {error}")
        return "local"
    return "docker"


def worth_opening(house: House, run: RunPaths) -> list[tuple[Path, list[tuple[str, str]]]]:
    """The run's folder and its last evaluation's, each with its files and what they show."""
    best = checkpoints.pointed(run.checkpoints, checkpoints.BEST)
    kept = [
        (run.logs, "all that was printed"),
        (run.attempt(1).manifest, "what went in: source, image, data, machine"),
        (run.attempt(1).outcome, "how it ended"),
        (run.config_yml, "every setting, resolved"),
        (run.metrics, "losses and scores, one JSON object a line"),
        (run.tensorboard, "the same as curves, for tensorboard --logdir"),
        (best or run.checkpoints, "the best weights, their checksum beside them"),
        (run.inputs, "source, locks, Dockerfiles: what the run can be rebuilt from"),
    ]
    found = [(run.folder, [(str(path.relative_to(run.folder)), why) for path, why in kept if path.exists()])]
    for entry in list_outputs(house.outputs, run.folder.name)[-1:]:
        names = sorted(path for path in entry.folder.rglob("*") if path.is_file() and entry.launch not in path.parents)
        found.append(
            (entry.folder, [(str(path.relative_to(entry.folder)), EVALUATED.get(path.name, "")) for path in names])
        )
    return found
