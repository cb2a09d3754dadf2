"""Contestants that are other people's software: their environment from a lock, and processes that wait to be asked in turn."""

import datetime
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.host.images.wheels import TORCH_CPU_INDEX

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "benchmarks"


def environment(lock: Path, folder: Path) -> Path:
    """The python of a virtual environment with what `lock` names; made in `folder` where there is none of this lock."""
    python, ready = folder / "bin" / "python", folder / "lock.txt"
    if not ready.is_file() or ready.read_bytes() != lock.read_bytes():
        print(f"making {folder.relative_to(ROOT)} from {lock.relative_to(ROOT)} ...", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        install += ["--only-binary", ":all:", "--require-hashes", "--requirement", str(lock)]
        if subprocess.run(install).returncode != 0:
            subprocess.run([*install, "--extra-index-url", TORCH_CPU_INDEX], check=True)
        shutil.copy(lock, ready)
    return python


def machine(lock: Path, names: Sequence[str], threads: int) -> str:
    """What was measured, and where."""
    pins = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock.read_text(), re.MULTILINE))
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"model name\s*: (.*)", cpuinfo)
    cpu = model[1] if model else platform.processor()
    versions = ", ".join(f"{name} {pins[name]}" for name in names)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{cpu}, {os.cpu_count()} cores, {threads} thread(s) each, load before {load}\nPython {platform.python_version()}, {versions}"


def in_turn(processes: list[Any], turn: int) -> list[Any]:
    """All of them, another one first in every turn."""
    start = turn % len(processes)
    return processes[start:] + processes[:start]


def keep(name: str, samples: Mapping[str, Any]) -> None:
    """Write every sample below results/."""
    results = ROOT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    path = results / f"{name}_{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}.json"
    path.write_text(json.dumps(samples))
    print(f"\nevery sample: {path.relative_to(ROOT)}")


class Process:
    """A contestant that waits to be asked: one JSON value a line in, one out."""

    def __init__(
        self, label: str, argv: Sequence[str], *, folder: Path, log: Path, threads: int, **variables: str
    ) -> None:
        self.label, self.folder = label, folder
        self._log = log.open("w+")
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=folder,
            env=os.environ | dict.fromkeys(names, str(threads)) | variables | {"PYTHONDONTWRITEBYTECODE": ""},
        )

    def ask(self, request: Any) -> Any:
        """Its answer.

        Raises:
            RuntimeError: it has died; the text has the end of what it said.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        reply = self._process.stdout.readline()
        if not reply:
            self._log.seek(0)
            raise RuntimeError(f"{self.label}: {' | '.join(self._log.read().splitlines()[-4:])}")
        return json.loads(reply)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()
        self._log.close()
