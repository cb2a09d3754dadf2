"""The verbs that make what launches need: engine, images, locks, environments."""

import json
from argparse import Namespace

from runner.contract.errors import RunnerError
from runner.host.cli.console import engine_for, house_here, needed, say


def engine(arguments: Namespace) -> int:
    """Give this machine a Docker engine where it has none and may (Debian or Ubuntu, root)."""
    from runner.host.engines.setup import give_engine

    try:
        print(give_engine(house_here().cache, say))
    except RunnerError as error:
        if not arguments.if_possible:
            raise
        print(f"no Docker engine to use: {error}; what needs one is left out")
    return 0


def image(arguments: Namespace) -> int:
    """Build the image of a project, or again the one of a run; say that it is there if it is."""
    from runner.host.gpus import choose_gpus
    from runner.host.images import environments
    from runner.host.launch import gather
    from runner.host.machine import this_machine
    from runner.host.projects import load_project
    from runner.host.verbs import runs

    house = house_here()
    engine = engine_for(arguments, house)
    if arguments.run:
        built = environments.rebuild_of_run(house, engine, runs.find(house, arguments.run, arguments.project), say)
    else:
        project = load_project(house.root, needed(arguments, "project"))
        base = gather.base_of(project, choose_gpus(arguments.gpus or "auto", this_machine().gpus))
        built = environments.environment_of(house, engine, project, base, arguments.mode or "prod", say)
    facts = {"id": built.record.id, "tag": built.record.tag, "key": built.record.key, "base": built.record.base}
    print(
        json.dumps(facts, indent=2) if arguments.json else f"{built.record.tag or built.reference}  {built.record.id}"
    )
    return 0


def lock(arguments: Namespace) -> int:
    """Compile requirements/*.in to locks with hashes, or check that they agree."""
    from runner.host.images import locks

    root = house_here().root
    if arguments.check:
        problems = locks.check(root)
        if problems:
            raise RunnerError("; ".join(problems))
        return 0
    for path in locks.lock(root, house_here().cache, say, project=arguments.project):
        print(path)
    return 0


def venv(arguments: Namespace) -> int:
    """Make the virtual environment of one lock of requirements/, and the link that make starts it by."""
    from runner.host.images import venvs

    house = house_here()
    print(venvs.link_to_lock(house.root, needed(arguments, "lock"), house.cache, say))
    return 0
