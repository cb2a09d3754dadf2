"""The verbs about data sets: make one, prepare it, look at it, see whether it is what it says."""

from argparse import Namespace

from runner.host.cli.console import caller_here, engine_for, house_here, needed, say


def new_dataset(arguments: Namespace) -> int:
    """Make the folder of a new data set: dataset.yml, prepare.py with three functions to fill, README, a notebook."""
    from runner.host.verbs.new_dataset import make_dataset

    name = needed(arguments, "dataset")
    for path in make_dataset(house_here().root, name):
        print(path)
    say(
        f"next: fill in dataset.yml and the three functions of prepare.py, then `make dataset DATASET={name} STAGE=toy`"
    )
    return 0


def dataset(arguments: Namespace) -> int:
    """Prepare a data set: raw from its authors or SOURCE, list files, LMDB, a toy set, the facts in its README."""
    from runner.host.verbs.prepare import PrepareRequest, prepare_dataset

    house = house_here()
    engine = engine_for(arguments, house)
    request = PrepareRequest(dataset=needed(arguments, "dataset"), source=arguments.source, stage=arguments.stage)
    built = prepare_dataset(house, engine, request, caller_here(), say)
    print("\n".join(str(path) for path in built))
    return 0


def lint_dataset(arguments: Namespace) -> int:
    """Hold a data set against its dataset.yml, and its toy set against the full one: trees, schemas, lists, LMDB."""
    from runner.contract.preparation import LINT
    from runner.host.verbs.prepare import look_at_dataset

    house = house_here()
    engine = engine_for(arguments, house)
    _, code = look_at_dataset(house, engine, needed(arguments, "dataset"), LINT, caller_here(), say)
    return code


def explore(arguments: Namespace) -> int:
    """Write a data set as one HTML page: samples, balance, shapes, brightness, duplicates, what cannot be read."""
    from runner.contract.preparation import EXPLORE
    from runner.host.verbs.prepare import look_at_dataset

    house = house_here()
    engine = engine_for(arguments, house)
    folder, code = look_at_dataset(house, engine, needed(arguments, "dataset"), EXPLORE, caller_here(), say)
    if code == 0:
        print(folder / "index.html")
    return code


def check_datasets(arguments: Namespace) -> int:
    """Say of every data set, or of one, whether its README.md still tells the truth."""
    from runner.contract.dataset_file import dataset_names, load_dataset
    from runner.host.pages.dataset_card import untruths

    house = house_here()
    wrong = []
    for name in [arguments.dataset] if arguments.dataset else dataset_names(house.root):
        problems, told = untruths(load_dataset(house.root, name), house.datasets / name, house.cache)
        wrong += problems
        print(f"{name}: " + "; ".join(told or ["README.md tells nothing of its data"]))
    for problem in wrong:
        say(f"error: {problem}")
    return 2 if wrong else 0
