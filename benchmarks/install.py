"""Installing one lock from a folder of wheels, hashes checked: pip beside uv as the image builds use it. Interleaved.

    python -m benchmarks.install [--lock cpu] [--rounds 3] [--cache .cache]

Every way ends with byte code compiled, as a container with a read-only file system needs it. Nothing is downloaded in
the timed part.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from runner.host.images import venvs, wheels
from runner.host.images.pins import read_pins, requirements_text

HOUSE = Path(__file__).resolve().parents[1]


def main() -> None:
    """Fetch the wheels, time each way in turn in fresh environments, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lock", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=HOUSE / ".cache")
    options = parser.parse_args()
    cache = options.cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="install-", dir=cache))
    try:
        compare(work, options.lock, options.rounds, cache)
    finally:
        shutil.rmtree(work)


def compare(work: Path, lock: str, rounds: int, cache: Path) -> None:
    """Time every way `rounds` times, one after the other in each round."""
    pins = read_pins(HOUSE / f"requirements/{lock}.txt")
    installing = read_pins(HOUSE / "requirements/install.txt")
    with (work / "log").open("w") as log:
        house = wheels.wheelhouse(pins, venvs.PLATFORM, cache, print, log)
        uv = wheels.installer(installing, venvs.PLATFORM, cache, print, log)
    requirements = work / "requirements.txt"
    requirements.write_text(requirements_text(pins))
    pip = [
        "-I",
        "-m",
        "pip",
        "install",
        "-q",
        "--no-index",
        "--find-links",
        str(house),
        "--require-hashes",
        "--no-deps",
    ]
    times: dict[str, list[float]] = {"pip": [], "uv, copying": [], "uv, linking (ours)": []}
    for number in range(rounds):
        for way, taken in times.items():
            folder = work / f"venv-{number}"
            without = [] if way == "pip" else ["--without-pip"]
            subprocess.run([sys.executable, "-m", "venv", *without, str(folder)], check=True)
            python = folder / "bin/python"
            linking = ["--link-mode", "hardlink" if "linking" in way else "copy"]
            ours = [*venvs.install_command(uv, python, requirements, house), "--quiet", *linking]
            argv = [str(python), *pip, "-r", str(requirements)] if way == "pip" else ours
            started = time.perf_counter()
            subprocess.run(argv, check=True, env={**os.environ, **venvs.uv_environment(folder / ".uv")})
            taken.append(time.perf_counter() - started)
            shutil.rmtree(folder)
    print(f"{len(pins)} packages of requirements/{lock}.txt, median of {rounds}, {os.cpu_count()} cores")
    for way, taken in times.items():
        ratio = statistics.median(taken) / statistics.median(times["pip"])
        print(f"{way:20} {statistics.median(taken):7.2f} s   {ratio:5.2f} x pip   {[round(one, 1) for one in taken]}")


if __name__ == "__main__":
    main()
