"""The root image below all others: the official Python image by digest, or where no registry answers one made here from
Debian's packages. Asked once: after that the engine has it."""

import re
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from runner.contract.errors import EngineError, RunnerError
from runner.contract.jsonio import file_sha256
from runner.host.engines.engine import Engine
from runner.host.images.builders import Builder
from runner.host.images.commands import run_command
from runner.host.images.locked import Report
from runner.host.images.recipes import DEBIAN_SCRIPT, Recipe, image_tag

SILENCE_S = 15.0
"""A registry that sends nothing for so long does not answer."""
_UNREACHABLE = (
    "no such host",
    "i/o timeout",
    "connection refused",
    "network is unreachable",
    "no route to host",
    "Temporary failure in name resolution",
    "server misbehaving",
    "TLS handshake timeout",
    "Client.Timeout exceeded",
    "context deadline exceeded",
    "connection reset by peer",
    "proxyconnect",
    "EOF",
)


@dataclass(frozen=True, kw_only=True)
class Root:
    """A root image that the engine has."""

    tag: str
    """What FROM names."""
    reference: str
    """What it is, for the record: name@sha256:…, or debian:bookworm with the sha256 of its list of packages."""
    origin: str
    """registry or debian."""


def ensure_root(recipe: Recipe, engine: Engine, builder: Builder, report: Report, log: IO[str]) -> Root:
    """The root image: the one that is there, else pulled, else made from Debian's packages.

    Raises:
        EngineError: the registry answers, and refuses.
        RunnerError: neither way works here.
    """
    reference = recipe.root_reference
    pulled = Root(tag=reference, reference=reference, origin="registry")
    if engine.image(reference) is not None:
        return pulled
    tag = image_tag("root-debian", recipe.debian_key)
    found = engine.image(tag)
    if found is None:
        report(f"root image: asking the registry for {reference.split('@')[0]}")
        refusal = _pull(reference, recipe.platform, builder, report, log)
        if refusal is None:
            return pulled
        report(f"root image: no registry answers ({refusal}); making one from Debian's packages: a minute, once")
        _make_debian(recipe, tag, builder, report, log)
        found = engine.image(tag)
    if found is None:
        raise EngineError(f"root image {tag}: imported, and the engine lacks it; do DOCKER_HOST and `docker` agree?")
    return Root(tag=tag, reference=found.labels["runner.base"], origin="debian")


def _pull(reference: str, platform: str, builder: Builder, report: Report, log: IO[str]) -> str | None:
    """Pull the root image. None if it is here now; the reason where no registry can be reached.

    Raises:
        EngineError: a registry was reached and refused: falling back would then hide a mistake.
    """
    argv = [builder.docker, "pull", "--platform", platform, reference]
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    with subprocess.Popen(argv, stdin=null, stdout=pipe, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        silent = threading.Event()
        timer = _restart(None, process, silent)
        last = ""
        for line in process.stdout:
            timer = _restart(timer, process, silent)
            log.write(line)
            last = line.strip() or last
            if line.rstrip().endswith(("Pull complete", "Pulling fs layer")):
                report(f"  {line.strip()}")
        timer.cancel()
    if process.returncode == 0:
        return None
    if silent.is_set():
        return f"silent for {SILENCE_S:.0f} s"
    if any(sign in last for sign in _UNREACHABLE):
        return re.sub(r".*?((?:dial|lookup|proxyconnect|net/http).*)", r"\1", last)[:120]
    name = reference.split("@")[0]
    raise EngineError(f"root image {name}: the registry refused: {last}; `docker login` or wait, then again")


def _restart(
    timer: threading.Timer | None, process: "subprocess.Popen[str]", silent: threading.Event
) -> threading.Timer:
    """Give the process SILENCE_S more seconds to say something."""

    def give_up() -> None:
        silent.set()
        process.kill()

    if timer is not None:
        timer.cancel()
    timer = threading.Timer(SILENCE_S, give_up)
    timer.daemon = True
    timer.start()
    return timer


def _make_debian(recipe: Recipe, tag: str, builder: Builder, report: Report, log: IO[str]) -> None:
    """Run docker/base/debian.sh and import what it makes, labelled with the hash of its list of packages."""
    with tempfile.TemporaryDirectory(prefix="runner-root-") as temporary:
        folder = Path(temporary)
        script, archive, packages = folder / "debian.sh", folder / "root.tar", folder / "packages.txt"
        script.write_text(recipe.files[DEBIAN_SCRIPT])
        architecture = recipe.platform.split("/")[1]
        done = run_command(
            ["sh", str(script), str(archive), str(packages), architecture],
            log=log,
            on_line=lambda line: report(f"  {line[:100]}") if line.startswith(("I: ", "installing")) else None,
            environment={"SOURCE_DATE_EPOCH": "0"},
            cwd=folder,
        )
        if done.disk_full:
            raise RunnerError(f"{folder}: disk full while making the root image; set TMPDIR to a larger disk")
        if done.code != 0:
            raise RunnerError(
                f"root image: no registry answers, nor can it be made from Debian's packages: "
                f"{done.last('error:', 'E: ')[:300]}; `docker load` the image from elsewhere, or see {log.name}"
            )
        log.write(packages.read_text())
        labels = {"runner.base": f"debian:bookworm packages-sha256:{file_sha256(packages)}", "runner.origin": "debian"}
        changes = [f"--change=LABEL {name}={value!r}".replace("'", '"') for name, value in labels.items()]
        changes += ["--change=ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        argv = [builder.docker, "import", "--platform", recipe.platform, *changes, str(archive), tag]
        done = run_command(argv, log=log)
        if done.code != 0:
            raise EngineError(f"root image {tag}: the engine did not take it: {done.last('rror')}; log: {log.name}")
