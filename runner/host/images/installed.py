"""What an environment really holds, read inside it: a lock says what was asked for, and what came of it is another thing.

An image is read once, and what was read is kept by its id; a virtual environment keeps its own list.
"""

import os
import subprocess
from pathlib import Path, PurePosixPath

from runner.contract.errors import RunnerError
from runner.contract.jsonio import write_atomic
from runner.host.engines.engine import ContainerSpec, Engine, Limits
from runner.host.launch.here import user_of_this_process

PACKAGES = "packages.tsv"
"""Its name in inputs/: `python` or `system`, name and version, a line each, sorted."""
PYTHON, SYSTEM = "python", "system"
_DISTRIBUTIONS = """
import re
from importlib.metadata import distributions
for found in distributions():
    print("python", re.sub("[-_.]+", "-", found.metadata["Name"]).lower(), found.version, sep="\\t")
"""
_SYSTEM = """
import platform, shutil, subprocess
print("system", "(python)", platform.python_version(), sep="\\t")
if shutil.which("dpkg-query"):
    listed = subprocess.run(["dpkg-query", "-W"], capture_output=True, text=True, check=True).stdout
    print("".join(f"system\\t{line}\\n" for line in listed.splitlines()), end="")
"""


def of_image(engine: Engine, image_id: str, cache: Path) -> Path:
    """The list of an image's packages, Python's and Debian's.

    Raises:
        RunnerError: its Python cannot list them.
        EngineError: the engine cannot run it.
    """
    path = cache / "packages" / f"{image_id.removeprefix('sha256:')}.tsv"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        code, output = _said_in(engine, image_id, _DISTRIBUTIONS + _SYSTEM)
        write_atomic(path, _sorted(code, output, f"image {image_id[:19]}"))
    return path


def of_venv(folder: Path) -> Path:
    """The list of a virtual environment's packages; the system below it is its machine's.

    Raises:
        RunnerError: its Python cannot list them.
    """
    path = folder / PACKAGES
    if not path.exists():
        done = subprocess.run(
            [folder / "bin/python", "-I", "-W", "ignore", "-c", _DISTRIBUTIONS], capture_output=True, check=False
        )
        write_atomic(path, _sorted(done.returncode, done.stdout + done.stderr, str(folder)))
    return path


def read_packages(path: Path, kind: str) -> dict[str, str] | None:
    """Name → version of the packages of one kind; None where no list was kept, {} where it has none of the kind."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return None
    return {name: version for found, name, version in (line.split("\t") for line in lines) if found == kind}


def _said_in(engine: Engine, image_id: str, program: str) -> tuple[int, bytes]:
    """The exit code and output of a Python program in a container that is gone afterwards."""
    spec = ContainerSpec(
        name=f"runner-packages-{image_id.removeprefix('sha256:')[:12]}-{os.getpid()}",
        image=image_id,
        argv=("python", "-I", "-W", "ignore", "-c", program),
        workdir=PurePosixPath("/"),
        mounts=(),
        environment={},
        labels={},
        user=user_of_this_process(),
        limits=Limits(),
    )
    container = engine.create(spec)
    try:
        output = engine.attach(container)
        engine.start(container)
        said = b"".join(output)
        return engine.wait(container).code, said
    finally:
        engine.kill(container)
        engine.remove(container)


def _sorted(code: int, output: bytes, what: str) -> bytes:
    lines = output.decode(errors="replace").splitlines()
    if code != 0 or any(line.count("\t") != 2 for line in lines):
        raise RunnerError(
            f"{what}: cannot list its packages (exit code {code}): {' '.join(lines[-1:])}; build it again"
        )
    return "".join(f"{line}\n" for line in sorted(lines)).encode()
