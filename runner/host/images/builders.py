"""Building images: the SDK speaks no BuildKit (docker-py #2230), so the first `docker` program that does is used."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from runner.contract.errors import EngineError, RunnerError
from runner.host.images.commands import Done, run_command
from runner.host.images.locked import Report

_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")


@dataclass(frozen=True, kw_only=True)
class Builder:
    """A `docker` program that can build with BuildKit."""

    argv: tuple[str, ...]
    """The words up to the options of build."""
    environment: Mapping[str, str]

    @property
    def docker(self) -> str:
        """The program itself."""
        return self.argv[0]


@dataclass(frozen=True, kw_only=True)
class Build:
    """One image to be built, completely described."""

    tag: str
    dockerfile: str
    """Its text."""
    context: Path
    arguments: Mapping[str, str]
    labels: Mapping[str, str]
    platform: str
    network: bool = field(default=False)
    """Whether the build's commands may use the network (apt)."""


def find_builder(environment: Mapping[str, str], also: str = "/usr/bin") -> Builder:
    """The first `docker` on PATH, then in `also`, that can use BuildKit.

    Raises:
        RunnerError: none can.
    """
    found = []
    for folder in dict.fromkeys([*environment.get("PATH", os.defpath).split(os.pathsep), also]):
        program = shutil.which("docker", path=folder) if folder else None
        if program is None:
            continue
        builder, version = _builder_of(program)
        if builder is not None:
            return builder
        found.append(f"{program} {version}")
    have = f"found {', '.join(dict.fromkeys(found))}, without the buildx plugin" if found else "found none on PATH"
    raise RunnerError(
        f"no docker program that can build with BuildKit: {have}; install Debian's docker.io, Ubuntu's "
        "docker-buildx, or Docker's own docker-buildx-plugin"
    )


def _builder_of(program: str) -> tuple[Builder | None, str]:
    """The builder that `program` gives, if any, and its version."""
    version = _answer([program, "version", "--format", "{{.Client.Version}}"])
    if _answer([program, "buildx", "version"]):
        context = _answer([program, "context", "show"]) or "default"
        # The builder of the engine itself: one in a container of its own sees none of the engine's images.
        return Builder(argv=(program, "buildx", "build", "--load", "--builder", context), environment={}), version
    major = re.match(r"(\d+)\.", version)
    if major is not None and 18 <= int(major[1]) < 23:
        return Builder(argv=(program, "build"), environment={"DOCKER_BUILDKIT": "1"}), version
    return None, version


def _answer(argv: list[str]) -> str:
    """What a quick command prints, "" where it fails."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = done.stdout.strip().splitlines()
    return lines[0] if lines and (done.returncode == 0 or "version" in argv) else ""


def build(builder: Builder, wanted: Build, report: Report, log: IO[str]) -> None:
    """Build and tag an image. The user's proxy is passed for this build only: such arguments leave no trace in an image.

    Raises:
        RunnerError: the build failed; the text has its last useful line and where the log is.
    """
    dockerfile = wanted.context.with_suffix(".Dockerfile")
    dockerfile.write_text(wanted.dockerfile)
    argv = build_command(builder, wanted, dockerfile, os.environ)
    log.write(f"== {wanted.tag}\n")
    report(f"image {wanted.tag}: building")
    try:
        done = run_command(argv, log=log, on_line=_Progress(report), environment=builder.environment)
    finally:
        dockerfile.unlink(missing_ok=True)
    if done.disk_full:
        raise RunnerError(
            f"image {wanted.tag}: disk full while building; make room on the engine's disk (`docker system df`); "
            f"log: {log.name}"
        )
    if done.code != 0:
        raise _failure(wanted, done, log)


def build_command(builder: Builder, wanted: Build, dockerfile: Path, environment: Mapping[str, str]) -> list[str]:
    """The whole command of a build."""
    argv = [*builder.argv, "--progress", "plain", "--file", str(dockerfile), "--tag", wanted.tag]
    argv += ["--platform", wanted.platform, "--network", "default" if wanted.network else "none"]
    argv += [f"--build-arg={name}={value}" for name, value in wanted.arguments.items()]
    argv += [f"--label={name}={value}" for name, value in wanted.labels.items()]
    if wanted.network:
        names = [name for proxy in _PROXIES for name in (proxy, proxy.upper()) if name in environment]
        argv += [f"--build-arg={name}" for name in names]
    return [*argv, str(wanted.context)]


def _failure(wanted: Build, done: Done, log: IO[str]) -> RunnerError:
    """The error for a build that failed: the engine is gone, or the last line that says why."""
    last = re.sub(r"^#\d+ (\d+\.\d+ )?", "", _why(done))
    if "Cannot connect to the Docker daemon" in last or "error during connect" in last:
        return EngineError(f"image {wanted.tag}: the engine stopped answering: {last}; log: {log.name}")
    return RunnerError(f"image {wanted.tag}: build failed: {last[:300]}; log: {log.name}")


def _why(done: Done) -> str:
    """What the failed step said last; BuildKit's own closing words repeat the command, not the reason."""
    said = tuple(line for line in done.lines if re.match(r"#\d+ \d+\.\d+ ", line))
    return Done(code=done.code, lines=said or done.lines).last("rror:", " E: ", "ismatch")


class _Progress:
    """Turns BuildKit's plain lines into one line a step, and what takes long inside one."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def __call__(self, line: str) -> None:
        step = re.match(r"#\d+ \[(?:\S+ )?(\d+/\d+)\] (.*)", line)
        if step is not None:
            words = step[2].split()
            self.report(f"  step {step[1]}: {' '.join(words)[:90]}")
            return
        inside = re.match(r"#\d+ \d+\.\d+ (Fetched .*|Prepared .*|Installed .*|Bytecode .*|Need to get .*)", line)
        if inside is not None:
            self.report(f"    {inside[1][:100]}")
