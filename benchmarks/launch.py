"""What a launch costs: `train` of a command that does nothing against `docker run --rm` of the same image and command.

    python -m benchmarks.launch [--rounds 9]

Interleaved in one run: each round runs every contestant once; ratios of medians. The stages of a launch are timed inside
one more process, so that the table says where the rest goes.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STAGES = """
import time; t0 = time.perf_counter()
import os, sys, contextlib, io
from pathlib import Path
from runner.host.cli import entry
t1 = time.perf_counter()
from runner.host.launch import launcher
from runner.host.engines.choose import choose_engine
from runner.host.house import find_house
from runner.host.verbs.train import TrainRequest, plan_train
from runner.host.launch.here import this_caller
house = find_house(Path.cwd(), os.environ)
quiet = lambda text: None
engine = choose_engine("docker", house.cache, quiet); engine.identity()
t2 = time.perf_counter()
plan = plan_train(house, engine, TrainRequest(project="nothing"), this_caller(), quiet)
t3 = time.perf_counter()
container, output = launcher.start(plan, engine, attach=True)
t4 = time.perf_counter()
launcher.follow(plan, engine, container, output, quiet, sys.stdout.buffer)
t5 = time.perf_counter()
names = ("python and our imports", "engine: SDK and first answer", "facts and plan", "create, attach, start", "run, wait, record, remove")
for name, ms in zip(names, (t1 - t0, t2 - t1, t3 - t2, t4 - t3, t5 - t4)):
    print(f"{name}|{ms * 1000:.0f}", file=sys.stderr)
"""


def make_house(folder: Path) -> Path:
    """A house with a project that does nothing, on the bare base."""
    house = folder / "house"
    house.mkdir()
    subprocess.run(
        ["cp", "-r", *(str(ROOT / part) for part in ("runner", "docker", "requirements")), str(house)], check=True
    )
    project = house / "projects" / "nothing"
    (project / "configs").mkdir(parents=True)
    (project / "project.yml").write_text("base: bare\ntrain: ['true']\n")
    (project / "configs" / "default.yml").write_text("a: 1\n")
    subprocess.run(["git", "init", "-q"], cwd=house, check=True)
    return house


def seconds(action: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        house = make_house(Path(folder))
        cache = os.environ.get("CACHE_ROOT") or str(ROOT / ".cache")
        roots = {
            f"{name}_ROOT": f"{folder}/{name.lower()}" for name in ("CHECKPOINTS", "OUTPUTS", "MODELS", "DATASETS")
        }
        environment = {**os.environ, **roots, "CACHE_ROOT": cache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a user's second launch compiles nothing of ours

        def run(command: list[str]) -> subprocess.CompletedProcess[str]:
            return subprocess.run(command, cwd=house, env=environment, check=True, capture_output=True, text=True)

        python = [sys.executable, "-m", "runner"]
        train = [*python, "train", "--project", "nothing", "--engine", "docker"]
        run(train)  # the image is there from now on
        image = run([*python, "image", "--project", "nothing"]).stdout.split()[1]
        contestants = {
            "docker run --rm": ["docker", "run", "--rm", image, "true"],
            "docker run --rm --init": ["docker", "run", "--rm", "--init", "--network", "none", image, "true"],
            "runner train": train,
            "runner train, local engine": [*train[:-1], "local"],
        }
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(rounds):
            for name, command in contestants.items():
                times[name].append(seconds(lambda command=command: run(command)))
        base = times["docker run --rm"]
        print("| contestant | median s | min s | ratio |\n| --- | --- | --- | --- |")
        for name, values in times.items():
            ratio = statistics.median(value / least for value, least in zip(values, base, strict=True))
            print(f"| {name} | {statistics.median(values):.3f} | {min(values):.3f} | {ratio:.2f} |")
        print("\n| stage of one launch | ms |\n| --- | --- |")
        samples = [run([sys.executable, "-c", STAGES]).stderr.splitlines() for _ in range(5)]
        for lines in zip(*samples, strict=True):
            name = lines[0].split("|")[0]
            print(f"| {name} | {statistics.median(float(line.split('|')[1]) for line in lines):.0f} |")


if __name__ == "__main__":
    main()
