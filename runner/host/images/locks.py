"""requirements/*.in, written by people, become *.txt with every version and hash. Each lock says what it was made from,
so that a check needs no network."""

import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from runner.contract.errors import RunnerError
from runner.contract.jsonio import file_sha256, write_atomic
from runner.host.images import venvs, wheels
from runner.host.images.commands import Done, run_command
from runner.host.images.locked import Report
from runner.host.images.pins import Pin, parse_pins, pins_sha256, read_pins

FOLDER = "requirements"
TOOLS = "lock"
CONSTRAINTS: Mapping[str, tuple[str, ...]] = {
    "install": (),
    "lock": (),
    "host": (),
    "bare": (),
    "cpu": ("bare",),
    "gpu": ("bare", "cpu"),
    "dev": ("bare", "cpu", "gpu"),
    "check": ("host", "cpu", "lock"),
}
"""The locks that are no project's, in the order they are made, and which others bind each of them."""
BASES: Mapping[str, tuple[str, ...]] = {"auto": ("cpu", "gpu"), "bare": ("bare",), "cpu": ("cpu",), "gpu": ("gpu",)}
RESERVED = (*CONSTRAINTS, "torch")
_TITLE = "# Made by `make lock`, for Python 3.11 on Linux x86-64: edit {name}.in, not this file."


@dataclass(frozen=True, kw_only=True)
class Origins:
    """What a lock is made from: file name → sha256. The header of a lock holds exactly this."""

    sources: Mapping[str, str]
    """Its .in and what that includes: sha256 of the bytes."""
    constraints: Mapping[str, str]
    """The locks that bind it: sha256 of their pins."""

    def header(self, name: str, body: str) -> str:
        """The first lines of the lock."""
        lines = [_TITLE.format(name=name)]
        lines += [f"# from {file} sha256:{digest}" for file, digest in self.sources.items()]
        lines += [f"# with {file} sha256:{digest}" for file, digest in self.constraints.items()]
        return "\n".join([*lines, f"# pins sha256:{pins_sha256(parse_pins(body, name))}"]) + "\n"


def lock_names(root: Path) -> tuple[str, ...]:
    """All locks of a house, in the order they are made."""
    return (*CONSTRAINTS, *project_bases(root))


def project_bases(root: Path) -> dict[str, str]:
    """Projects that have requirements of their own, and the base each stands on."""
    from runner.host.projects import load_project, project_names

    names = [name for name in project_names(root) if (root / FOLDER / f"{name}.in").is_file()]
    for name in names:
        check_project_name(name)
    return {name: load_project(root, name).base for name in names}


def check_project_name(name: str) -> None:
    """Refuse a project whose requirements would be a base's or a tool's."""
    if name in RESERVED:
        raise RunnerError(f"project {name!r}: {FOLDER}/{name}.in is a base's or a tool's; name the project differently")


def constraints_of(root: Path, name: str) -> tuple[str, ...]:
    """The locks that bind the lock `name`."""
    return CONSTRAINTS[name] if name in CONSTRAINTS else BASES[project_bases(root)[name]]


def origins(root: Path, name: str) -> Origins:
    """What the lock `name` is made from, as the files are now.

    Raises:
        RunnerError: an .in or a constraining lock is missing.
    """
    folder = root / FOLDER
    sources = {path.name: file_sha256(path) for path in _sources(folder / f"{name}.in")}
    bound = {f"{other}.txt": pins_sha256(read_pins(folder / f"{other}.txt")) for other in constraints_of(root, name)}
    return Origins(sources=sources, constraints=bound)


def _sources(path: Path) -> list[Path]:
    """An .in file and those it includes with -r, each once, in order."""
    if not path.is_file():
        raise RunnerError(f"{path}: no such requirements; write it, one requirement a line, and run `make lock`")
    found = [path]
    for included in re.findall(r"(?m)^-r\s+(\S+)", path.read_text()):
        found += [one for one in _sources(path.parent / included) if one not in found]
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Checking, offline


def check(root: Path) -> list[str]:
    """What disagrees, one line each; empty where every lock fits its .in and the locks that bind it."""
    problems = []
    for name in lock_names(root):
        problems += _check_one(root, name)
    known = {f"{name}.txt" for name in lock_names(root)}
    strays = sorted(path.name for path in (root / FOLDER).glob("*.txt") if path.name not in known)
    return problems + [f"{FOLDER}/{stray}: no .in or no project of this name; remove it" for stray in strays]


def stale_sources(root: Path, name: str) -> list[str]:
    """The .in files that the lock `name` no longer fits, by its header alone: cheap enough for every launch."""
    text = (root / FOLDER / f"{name}.txt").read_text()
    made_from = dict(re.findall(r"(?m)^# from (\S+) sha256:(\S+)", text))
    return [file for file, digest in made_from.items() if file_sha256(root / FOLDER / file) != digest]


def _check_one(root: Path, name: str) -> list[str]:
    lock = f"{FOLDER}/{name}.txt"
    path = root / lock
    if not path.is_file():
        return [f"{lock}: missing; run `{_command(name)}`"]
    try:
        text = path.read_text()
        wanted = origins(root, name).header(name, text).splitlines()
    except RunnerError as error:
        return [str(error)]
    found = [line for line in text.splitlines() if re.match(r"# (from|with|pins) ", line)]
    changed = [line for line in wanted[1:] if line not in found]
    gone = [line for line in found if line not in wanted]
    files = list(dict.fromkeys(line.split()[2] for line in changed + gone if not line.startswith("# pins")))
    if files:
        return [f"{lock}: {FOLDER}/{file} has changed since it was made; run `{_command(name)}`" for file in files]
    return [f"{lock}: edited by hand; edit {name}.in and run `{_command(name)}`"] if changed else []


def _command(name: str) -> str:
    return "make lock" if name in CONSTRAINTS else f"make lock PROJECT={name}"


# ---------------------------------------------------------------------------------------------------------------------
# Making


def lock(root: Path, cache: Path, report: Report, *, project: str | None = None, upgrade: bool = False) -> list[Path]:
    """Make all locks, or one project's, and return those that changed. What is locked and still fits stays, unless `upgrade`.

    Raises:
        RunnerError: requirements conflict (the package is named), the network fails, or this is not the locks' platform.
    """
    _check_platform()
    if project is not None and project not in project_bases(root):
        have = ", ".join(project_bases(root))
        raise RunnerError(f"PROJECT={project!r}: no such project with a {FOLDER}/{project}.in; there are: {have}")
    names = lock_names(root) if project is None else (project,)
    log_path = cache / "builds" / "lock.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    changed = []
    with log_path.open("w") as log:
        python = _tools(root, cache, report, log)
        for name in names:
            path = root / FOLDER / f"{name}.txt"
            before = path.read_bytes() if path.is_file() else None
            text = _compile(root, name, python, upgrade, report, log).encode()
            if text != before:
                write_atomic(path, text)
                changed.append(path)
            report(f"lock {name}: {'as it was' if text == before else 'changed'}")
    return changed


def _check_platform() -> None:
    """Locks hold for one platform; made elsewhere they would differ."""
    here = f"{platform.system()} {platform.machine()}, Python {sys.version_info.major}.{sys.version_info.minor}"
    if here != f"Linux x86_64, Python {wheels.PYTHON}":
        raise RunnerError(
            f"lock: this is {here}; locks are the same for all: made on Linux x86_64, Python {wheels.PYTHON}"
        )


def _tools(root: Path, cache: Path, report: Report, log: IO[str]) -> Path:
    """A Python that has the locked pip-tools; before there is a first lock of them, one that has any."""
    path = root / FOLDER / f"{TOOLS}.txt"
    if path.is_file() and (root / FOLDER / "install.txt").is_file():
        return venvs.of_locks(root, (TOOLS,), cache, report, log) / "bin" / "python"
    return Path(sys.executable)


def _compile(root: Path, name: str, python: Path, upgrade: bool, report: Report, log: IO[str]) -> str:
    """The text of the lock `name`, resolved in a folder of its own: it names files, never paths."""
    made_from = origins(root, name)
    report(f"lock {name}: resolving")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for source in made_from.sources:
            shutil.copyfile(root / FOLDER / source, folder / source)
        for constraint in made_from.constraints:
            pins = read_pins(root / FOLDER / constraint)
            (folder / constraint).write_text(_constraint_text(pins, for_lock=name))
        target = folder / f"{name}.txt"
        if (root / FOLDER / target.name).is_file() and not upgrade:
            shutil.copyfile(root / FOLDER / target.name, target)
        argv = [str(python), "-I", str(Path(__file__).with_name("pip_compile.py")), f"{name}.in"]
        argv += [f"--output-file={target.name}"]
        argv += ["--generate-hashes", "--allow-unsafe", "--strip-extras", "--no-header", "--no-emit-index-url"]
        argv += ["--no-emit-find-links", "--no-emit-trusted-host", "--no-emit-options", "--rebuild"]
        argv += [f"--constraint={constraint}" for constraint in made_from.constraints]
        argv += ["--upgrade"] * upgrade
        done = run_command(argv, log=log, cwd=folder)
        if done.code != 0 and wheels.lacks_local_build(done):
            done = run_command([*argv, f"--extra-index-url={wheels.TORCH_CPU_INDEX}"], log=log, cwd=folder)
        if done.code != 0:
            raise RunnerError(_failure(name, done))
        body = target.read_text().replace("===", "==")  # as pip-tools writes a pin that it took from an earlier lock
    return made_from.header(name, body) + "\n" + body.lstrip("\n")


def _constraint_text(pins: tuple[Pin, ...], *, for_lock: str) -> str:
    """Constraints without hashes: two builds of one torch version share no file.

    The gpu base is bound by all of cpu but its +cpu builds.
    """
    kept = [pin for pin in pins if for_lock != "gpu" or pin.version == pin.public]
    return "".join(f"{pin.name}=={pin.version}\n" for pin in kept)


def _failure(name: str, done: Done) -> str:
    """One line for a resolution that failed: the packages that conflict, or pip's last word."""
    text = "\n".join(done.lines)
    asked = re.findall(r"(?m)^\s+(The user requested .*|\S+ \S+ depends on .*)$", text)
    step = f"change {FOLDER}/{name}.in and run `{_command(name)}`"
    if asked:
        return f"{FOLDER}/{name}.in: conflict: {'; '.join(asked[:4])}; {step}"
    return f"{FOLDER}/{name}.in: cannot be locked: {done.last('ERROR', 'Could not', 'No matching', 'rror:')}; {step}"
