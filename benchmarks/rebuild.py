"""Changing one package of a project: our thin layer beside one Dockerfile that installs everything, and beside nothing
changed. Interleaved, on the engine that is here.

    python -m benchmarks.rebuild [--project cifar] [--base cpu] [--rounds 3] [--cache .cache]

No build finds an earlier one's layers: a line that differs each time stands before what is measured.
"""

import argparse
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from runner.host.engines.docker_engine import DockerEngine
from runner.host.images import images
from runner.host.images.recipes import DOCKERFILE_BASE, DOCKERFILE_PROD, Recipe, recipe

HOUSE = Path(__file__).resolve().parents[1]


def main() -> None:
    """Build once, then time each way in turn, print the table, remove what was built for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", default="cifar")
    parser.add_argument("--base", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=HOUSE / ".cache")
    options = parser.parse_args()
    cache = options.cache.resolve()
    engine = DockerEngine(cache)
    as_is = recipe(HOUSE, options.project, base=options.base)
    images.ensure(as_is, engine, cache, print)
    ways: dict[str, Callable[[str], Recipe]] = {
        "one package changed": lambda salt: after(as_is, DOCKERFILE_PROD, salt),
        "everything again": lambda salt: after(as_is, DOCKERFILE_BASE, salt),
        "nothing changed": lambda salt: as_is,
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(options.rounds):
        for way, changed in ways.items():
            wanted = changed(f"{time.time_ns()}-{number}")
            started = time.perf_counter()
            made = images.ensure(wanted, engine, cache, lambda line: None)
            times[way].append(time.perf_counter() - started)
            if wanted != as_is and made.record.base_origin is not None:
                tags = [made.record.tag or "", wanted.base_tag(made.record.base_origin)][
                    : 1 + (way == "everything again")
                ]
                subprocess.run(["docker", "rmi", *tags], capture_output=True, check=True)
    print(f"project {options.project} on base {options.base}, median of {options.rounds}, wheels already here")
    whole = statistics.median(times["everything again"])
    for way, taken in times.items():
        middle = statistics.median(taken)
        print(f"{way:20} {middle:8.3f} s   {middle / whole:6.3f} x everything   {[round(one, 3) for one in taken]}")


def after(made: Recipe, dockerfile: str, salt: str) -> Recipe:
    """The recipe with a new first step in a Dockerfile, so that all its later steps run again."""
    text = made.files[dockerfile]
    first = next(line for line in text.splitlines() if line.startswith("FROM "))
    return replace(made, files={**made.files, dockerfile: text.replace(first, f"{first}\nRUN : {salt}", 1)})


if __name__ == "__main__":
    main()
