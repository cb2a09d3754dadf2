"""The wheels of a lock, on the host. The host's own pip fetches them: its proxy, index, CA and find-links just work,
and none of them gets any further. One folder a lock, complete or absent."""

import os
import shutil
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from runner.contract.errors import RunnerError
from runner.contract.jsonio import file_sha256
from runner.host.images.commands import Done, run_command
from runner.host.images.locked import Report, locked
from runner.host.images.pins import Pin, normal_name, pins_sha256, requirements_text
from runner.host.images.pip_progress import PipProgress

PYTHON = "3.11"
OLDEST_PYTHON = "3.11.2"
"""The oldest one that the wheels are installed in: Debian bookworm's."""
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
_MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
_NEWEST_GLIBC_MINOR = 36  # Debian bookworm's


def platform_arguments(platform: str) -> list[str]:
    """pip's arguments for the wheels that run in our images, whatever the host is.

    Raises:
        RunnerError: a platform we make no images for.
    """
    if platform not in _MACHINES:
        raise RunnerError(f"platform {platform!r}: expected one of {', '.join(_MACHINES)}")
    machine = _MACHINES[platform]
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(_NEWEST_GLIBC_MINOR, 4, -1)]
    tags += [f"manylinux2014_{machine}", f"linux_{machine}", "any"]
    abis = ["--abi", "cp311", "--abi", "abi3", "--abi", "none"]
    return ["--python-version", OLDEST_PYTHON, "--implementation", "cp", *abis, *(f"--platform={tag}" for tag in tags)]


def wheelhouse(pins: Sequence[Pin], platform: str, cache: Path, report: Report, log: IO[str]) -> Path:
    """The folder with exactly one wheel for each of `pins`, hashes checked; downloaded where it is not there yet.

    Raises:
        RunnerError: a wheel cannot be had, its hash is wrong, or the disk is full.
    """
    folder = cache / "wheels" / f"{_prefix(platform)}-{pins_sha256(pins)[:32]}"
    if folder.is_dir():
        return folder
    with locked(folder.with_suffix(".lock"), "wheels", report):
        if not folder.is_dir():
            partial = folder.with_suffix(".partial")
            partial.mkdir(parents=True, exist_ok=True)
            others = [path for path in folder.parent.glob(f"{_prefix(platform)}-*/") if path.suffix != ".partial"]
            missing = _seed(pins, sorted(others), partial)
            if missing:
                _download(missing, platform, partial, report, log)
            for wheel in partial.glob("*.whl"):
                wheel.chmod(0o644)
            os.rename(partial, folder)
    return folder


def imported_folder(platform: str, cache: Path, name: str) -> Path:
    """Where wheels from elsewhere go, under a `name` of their own: every lock finds them there, by their hashes."""
    return cache / "wheels" / f"{_prefix(platform)}-import-{name}"


def installer(pins: Sequence[Pin], platform: str, cache: Path, report: Report, log: IO[str]) -> Path:
    """The uv program of the locked wheel `pins`, ready to run on `platform`."""
    folder = wheelhouse(pins, platform, cache, report, log)
    program = folder / "uv"
    if not program.exists():
        (wheel,) = folder.glob("uv-*.whl")
        temporary = folder / f".uv.{os.getpid()}"
        with zipfile.ZipFile(wheel) as archive:
            (member,) = [name for name in archive.namelist() if name.endswith(".data/scripts/uv")]
            temporary.write_bytes(archive.read(member))
        temporary.chmod(0o755)
        os.rename(temporary, program)
    return program


def _seed(pins: Sequence[Pin], wheelhouses: Sequence[Path], folder: Path) -> list[Pin]:
    """Link into `folder` what the other wheelhouses hold of `pins`; the pins that are still missing.

    A file counts by its sha256 alone, whatever its name says. What else lies in `folder` is removed.
    """
    versions = {(pin.name, pin.version): pin for pin in pins}
    held = set()
    for wheel in [path for house in (folder, *wheelhouses) for path in house.glob("*.whl")]:
        name, version, *_ = wheel.name.split("-")
        pin = versions.get((normal_name(name), version))
        fits = pin is not None and pin not in held and file_sha256(wheel) in pin.hashes
        if pin is not None and fits:
            held.add(pin)
            if wheel.parent != folder:
                os.link(wheel, folder / wheel.name)
        elif wheel.parent == folder:
            wheel.unlink()
    return [pin for pin in pins if pin not in held]


def _download(pins: Sequence[Pin], platform: str, folder: Path, report: Report, log: IO[str]) -> None:
    """Fetch `pins` with pip, from the user's own indexes; PyTorch's is asked only for a +cpu build they do not have."""
    requirements = folder / "requirements.txt"
    requirements.write_text(requirements_text(pins))
    argv = [sys.executable, "-I", "-m", "pip", "download", "--no-input", "--disable-pip-version-check"]
    argv += ["--progress-bar", "off", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    argv += ["--dest", str(folder), "-r", str(requirements), *platform_arguments(platform)]
    report(f"wheels: fetching {len(pins)} for Python {PYTHON} on {platform}")
    done, lacks_room = _pip(argv, len(pins), folder, report, log)
    if done.code != 0 and lacks_local_build(done):
        report(f"wheels: no +cpu build of PyTorch in your indexes; asking {TORCH_CPU_INDEX} as well")
        argv += ["--extra-index-url", TORCH_CPU_INDEX]
        done, lacks_room = _pip(argv, len(pins), folder, report, log)
    requirements.unlink()
    if done.disk_full or (done.code != 0 and lacks_room):
        raise RunnerError(f"{folder}: disk full while fetching wheels; make room, or set CACHE_ROOT to a larger disk")
    if done.code != 0:
        why = done.last("ERROR: No matching", "ERROR: Could not", "DO NOT MATCH", "Got ", "ERROR:")
        raise RunnerError(f"wheels: pip cannot fetch them: {why[:300]}; see `pip config list`, or the log {log.name}")


def _pip(argv: Sequence[str], wanted: int, folder: Path, report: Report, log: IO[str]) -> tuple[Done, bool]:
    """Run pip; also whether the disk lacks the room for the last large file, twice: pip keeps a copy while it comes, and
    calls a disk that fills up an interrupted connection. What is coming lies beside what has come, where it can be seen.
    """
    coming = folder / "coming"
    shutil.rmtree(coming, ignore_errors=True)  # of a try that was killed
    coming.mkdir()
    progress = PipProgress(wanted, report, coming)
    try:
        with progress.watching():
            done = run_command(argv, log=log, on_line=progress, environment={"TMPDIR": str(coming)})
        shutil.rmtree(coming, ignore_errors=True)
        return done, shutil.disk_usage(folder).free < 2 * progress.large_bytes
    finally:
        shutil.rmtree(coming, ignore_errors=True)


def lacks_local_build(done: Done) -> bool:
    """Whether pip failed because no index it was told of has a build such as 2.13.0+cpu."""
    signs = ("No matching distribution found for", "Could not find a version that")
    return any(any(sign in line for sign in signs) and "+cpu" in line.split("(from")[0] for line in done.lines)


def _prefix(platform: str) -> str:
    return platform.replace("/", "-")
