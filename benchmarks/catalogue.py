"""`ls` on many runs: listing 10,000 of them, and what `--help` and `ls` cost to start.

python -m benchmarks.catalogue [--runs 10000]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def make_runs(root: Path, count: int) -> None:
    """As many finished runs as a lab has after years, with the files that listing looks at."""
    for number in range(count):
        folder = (
            root / f"p{number % 5}" / "data" / f"session_box_2026_01_01_00_00_00_tag_{number:05}" / "attempts" / "1"
        )
        folder.mkdir(parents=True)
        record = {
            "state": "COMPLETED",
            "exit_code": 0,
            "reason": "exit code 0",
            "run": folder.parents[1].name,
            "project": f"p{number % 5}",
            "dataset": "data",
            "tag": "tag",
            "number": number,
            "created": f"2026-01-01T00:00:{number % 60:02}.000+00:00",
            "kind": "train",
            "score": number / count,
            "step": 1000,
            "duration_s": 60.0,
            "manifest_sha256": "0" * 64,
            "last_lines": [],
        }
        (folder / "outcome.json").write_text(json.dumps(record, indent=2))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    count = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        make_runs(Path(folder), count)
        environment = {**os.environ, "CHECKPOINTS_ROOT": folder}
        contestants = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "runner --help": [sys.executable, "-m", "runner", "--help"],
            f"runner ls, {count:,} runs": [sys.executable, "-m", "runner", "ls"],
            f"find -name outcome.json -exec cat, {count:,} runs": [
                "find",
                folder,
                "-name",
                "outcome.json",
                "-exec",
                "cat",
                "{}",
                "+",
            ],
        }
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(7):
            for name, command in contestants.items():
                start = time.perf_counter()
                subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
                times[name].append(time.perf_counter() - start)
        print("| contestant | median s | min s |\n| --- | --- | --- |")
        for name, values in times.items():
            print(f"| {name} | {statistics.median(values):.3f} | {min(values):.3f} |")


if __name__ == "__main__":
    main()
