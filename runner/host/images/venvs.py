"""Virtual environments of the very same locks as the images: the local engine's, and the tools' own."""

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from runner.contract.errors import RunnerError
from runner.contract.jsonio import sha256_of, write_atomic
from runner.contract.records import ImageRecord
from runner.host.images import wheels
from runner.host.images.commands import run_command
from runner.host.images.locked import Report, locked
from runner.host.images.pins import Pin, pins_sha256, read_pins, requirements_text

if TYPE_CHECKING:  # recipes knows the locks, whose tools live in an environment made here
    from runner.host.images.recipes import Recipe

KEY_VERSION = 1
COMPLETE = ".complete"
PLATFORM = "linux/amd64"


def ensure(recipe: "Recipe", cache: Path, report: Report) -> Path:
    """The environment of this recipe, for the local engine: there already, or made now."""
    folder = cache / "venvs" / key_of(recipe.all_pins)[:32]
    if is_complete(folder):
        return folder
    with _log(cache, folder.name) as log:
        return make(recipe.all_pins, recipe.installer_pins, cache, report, log)


def record(recipe: "Recipe") -> ImageRecord:
    """What a manifest says of this environment."""
    key = key_of(recipe.all_pins)
    return ImageRecord(
        id=key,
        key=key,
        lock_sha256=recipe.lock_sha256,
        python=sys.version.split()[0],
        platform=PLATFORM,
        base_origin="host",
    )


def log_of(recipe: "Recipe", cache: Path) -> Path | None:
    """The log of its making, where it is still there."""
    path = cache / "builds" / f"{key_of(recipe.all_pins)[:32]}.log"
    return path if path.is_file() else None


@contextmanager
def _log(cache: Path, name: str) -> Iterator[IO[str]]:
    path = cache / "builds" / f"{name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", buffering=1) as log:
        yield log


def of_locks(root: Path, names: Sequence[str], cache: Path, report: Report, log: IO[str]) -> Path:
    """The environment of these locks of requirements/."""
    pins = {pin.name: pin for name in names for pin in read_pins(root / "requirements" / f"{name}.txt")}
    installing = read_pins(root / "requirements" / "install.txt")
    return make(tuple(sorted(pins.values())), installing, cache, report, log)


def link_to_lock(root: Path, name: str, cache: Path, report: Report) -> Path:
    """`.venv-<name>` in the house, a link to the environment of the lock `name`; `ready` in it is what make looks at."""
    with _log(cache, f"venv-{name}") as log:
        folder = of_locks(root, (name,), cache, report, log)
    link, beside = root / f".venv-{name}", root / f".venv-{name}.new"
    beside.unlink(missing_ok=True)
    beside.symlink_to(folder.resolve())
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)
    beside.replace(link)
    (folder / "ready").touch()
    return link


def make(pins: Sequence[Pin], installing: Sequence[Pin], cache: Path, report: Report, log: IO[str]) -> Path:
    """The folder of an environment that holds exactly `pins`: complete, or made now.

    Raises:
        RunnerError: another Python than the locks', a wheel that cannot be had, or an installation that failed.
    """
    folder = cache / "venvs" / key_of(pins)[:32]
    if is_complete(folder):
        return folder
    with locked(folder.with_suffix(".lock"), f"environment {folder.name[:12]}", report):
        if not is_complete(folder):
            _build(folder, pins, installing, cache, report, log)
    return folder


def key_of(pins: Sequence[Pin]) -> str:
    """The identity of an environment on this host."""
    return sha256_of({"version": KEY_VERSION, "python": wheels.PYTHON, "platform": PLATFORM, "pins": pins_sha256(pins)})


def is_complete(folder: Path) -> bool:
    """Whether the environment is there, whole, and its interpreter still exists."""
    return (folder / COMPLETE).is_file() and (folder / "bin" / "python").exists()


def _build(
    folder: Path, pins: Sequence[Pin], installing: Sequence[Pin], cache: Path, report: Report, log: IO[str]
) -> None:
    """Make the environment at its final path (scripts name it in their first line); the marker comes last."""
    check_host()
    house = wheels.wheelhouse(pins, PLATFORM, cache, report, log)
    uv = wheels.installer(installing, PLATFORM, cache, report, log)
    report(f"environment {folder.name[:12]}: installing {len(pins)} packages")
    shutil.rmtree(folder, ignore_errors=True)
    made = run_command([sys.executable, "-I", "-m", "venv", "--without-pip", str(folder)], log=log)
    if made.code != 0:
        raise RunnerError(
            f"{folder}: cannot make a virtual environment: {made.last('Error')}; Debian has it in python3-venv"
        )
    requirements = folder / "requirements.txt"
    requirements.write_text(requirements_text(pins))
    done = run_command(
        [*install_command(uv, folder / "bin" / "python", requirements, house), "--link-mode=hardlink"],
        log=log,
        environment=uv_environment(folder / ".uv"),
    )
    shutil.rmtree(folder / ".uv", ignore_errors=True)
    if done.disk_full:
        raise RunnerError(f"{folder}: disk full while installing; make room, or set CACHE_ROOT to a larger disk")
    if done.code != 0:
        raise RunnerError(f"{folder}: installing failed: {done.last('error')}; remove the folder and try again")
    write_atomic(folder / COMPLETE, key_of(pins).encode())


def install_command(uv: Path, python: Path, requirements: Path, house: Path) -> list[str]:
    """Install locked wheels from a folder: hashes checked, no index, no network, byte code compiled."""
    argv = [str(uv), "pip", "install", "--python", str(python), "--no-index", "--offline", "--find-links", str(house)]
    return [*argv, "--require-hashes", "--no-deps", "--compile-bytecode", "--no-config", "-r", str(requirements)]


def uv_environment(cache: Path) -> Mapping[str, str]:
    """What keeps uv from anything of the user's: its cache lies beside the target, so that files are linked, not copied."""
    ours = {"UV_CACHE_DIR": str(cache), "UV_NO_CONFIG": "1"}
    return {**ours, **{name: "" for name in ("UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")}}


def check_host() -> None:
    """The local engine needs the locks' Python and platform.

    Raises:
        RunnerError: this host has another.
    """
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if here != wheels.PYTHON:
        raise RunnerError(
            f"the host's Python is {here} ({sys.executable}), the locks are for {wheels.PYTHON}; "
            f"install Python {wheels.PYTHON} and remove .venv"
        )
    if os.uname().sysname != "Linux" or os.uname().machine != "x86_64":
        found = f"{os.uname().sysname} {os.uname().machine}"
        raise RunnerError(f"this host is {found}, the locks are for Linux x86_64; use ENGINE=docker")
