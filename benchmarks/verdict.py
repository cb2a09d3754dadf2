"""The verdict on two long runs: equal, parted late, and different everywhere; beside the few lines one would write oneself.

python -m benchmarks.verdict [--steps 100000] [--values 5]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from runner.contract.layout import RunPaths
from runner.host.verdict.verdict import judge
from tests.host.made_runs import line, make_run


def by_hand(first: RunPaths, second: RunPaths) -> object:
    """The first line that differs but for its time, read line by line."""
    with first.metrics.open() as a, second.metrics.open() as b:
        for x, y in zip(a, b, strict=True):
            before, after = json.loads(x), json.loads(y)
            before.pop("time"), after.pop("time")
            if before != after:
                return before, after
    return None


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--values", type=int, choices=(2, 5), default=5, help="logged at each step")
    options = parser.parse_args()
    steps, values = options.steps, options.values
    with tempfile.TemporaryDirectory() as folder:
        root, states = Path(folder), {step: "x" for step in range(1000, steps + 1, 1000)}

        def run(name: str, apart_from: int, clock: float) -> RunPaths:
            lines = []
            for step in range(steps):
                off = 1e-9 if step >= apart_from else 0
                more = {} if values == 2 else {"accuracy": 0.5 + off, "grad_norm": 1.25 + off, "momentum": 0.9}
                lines.append(line(step, clock + step, loss=1.0 / (step + 1) + off, learning_rate=0.003, **more))
            return make_run(root, name, metrics=lines, states=states)

        first = run("session_first", steps, 0.0)
        others = {
            "equal": run("session_equal", steps, 1e6),
            "apart from 90% on": run("session_late", steps * 9 // 10, 1e6),
            "apart everywhere": run("session_apart", 0, 1e6),
        }
        contestants: dict[str, Callable[[RunPaths], object]] = {
            "verdict": lambda other: judge(first, other, root / "cache"),
            "line by line, by hand": lambda other: by_hand(first, other),
        }
        print(
            f"| {steps:,} steps of {values} values, {len(states)} checkpoints | contestant | median s | min s |\n| --- | --- | --- | --- |"
        )
        for what, other in others.items():
            for name, contestant in contestants.items():
                times = []
                for _ in range(5):
                    start = time.perf_counter()
                    contestant(other)
                    times.append(time.perf_counter() - start)
                print(f"| {what} | {name} | {statistics.median(times):.3f} | {min(times):.3f} |")


if __name__ == "__main__":
    main()
