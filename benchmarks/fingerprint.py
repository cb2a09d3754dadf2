"""The fingerprint of a data set beside what anybody would type: find | xargs sha256sum. Interleaved, medians, ratios.

    python -m benchmarks.fingerprint [--files 50000] [--size 2500] [--rounds 5] [--folder DIR]

The page cache is warm, so this measures the programs and not the disk.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from runner.contract.fingerprint import fingerprint

SHA256SUM = "find . -type f -print0 | xargs -0 -P $(nproc) -n 512 sha256sum > /dev/null"
STAT = "find . -type f -printf '%s %T@ %C@ %i %p\\n' > /dev/null"


def main() -> None:
    """Make the files, time each way in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--size", type=int, default=2_500, help="bytes of each file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where the files are made (and removed)")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="fingerprint-", dir=options.folder))
    try:
        compare(work, options.files, options.size, options.rounds)
    finally:
        shutil.rmtree(work)


def compare(work: Path, files: int, size: int, rounds: int) -> None:
    """Time every way `rounds` times, one after the other in each round."""
    root, cache = work / "raw", work / "cache"
    make_files(root, files, size)
    time.sleep(2.1)  # files that were just written are read again

    def cold() -> None:
        shutil.rmtree(cache, ignore_errors=True)
        assert fingerprint(root, cache=cache).cached == 0

    def warm() -> None:
        assert fingerprint(root, cache=cache).cached == files

    ways: dict[str, Callable[[], None]] = {
        "find | xargs -P sha256sum": lambda: shell(SHA256SUM, root),
        "fingerprint, first time": cold,
        "fingerprint, from its cache": warm,
        "find -printf (only asks for the times)": lambda: shell(STAT, root),
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            took[name].append(time.perf_counter() - started)
    print(f"{files:,} files of {size:,} bytes, {os.cpu_count()} cores, {rounds} rounds, medians")
    base = statistics.median(took["find | xargs -P sha256sum"])
    for name, seconds in took.items():
        median = statistics.median(seconds)
        print(f"{name:40} {median:8.3f} s  {median / base:6.2f} x   (best {min(seconds):.3f} s)")


def make_files(root: Path, files: int, size: int) -> None:
    """`files` files in folders of a thousand."""
    for number in range(files):
        folder = root / f"{number // 1000:04}"
        if number % 1000 == 0:
            folder.mkdir(parents=True)
        (folder / f"{number:07}.png").write_bytes(os.urandom(size))


def shell(command: str, folder: Path) -> None:
    """Run a pipeline in a folder."""
    subprocess.run(["sh", "-c", command], cwd=folder, check=True)


if __name__ == "__main__":
    main()
