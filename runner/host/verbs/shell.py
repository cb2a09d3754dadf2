"""`shell` and `notebook`: the development container of a project, on the live code. To try things: not recorded."""

import os
import secrets
import shlex
import socket
import sys
from dataclasses import replace
from pathlib import Path, PurePosixPath

from runner.contract import layout
from runner.contract.errors import RunnerError
from runner.host.engines.engine import ContainerSpec, Engine, Mount
from runner.host.gpus import choose_gpus
from runner.host.house import House
from runner.host.images import environments
from runner.host.launch import gather
from runner.host.launch.gather import Say
from runner.host.launch.here import Caller
from runner.host.launch.plan import plan_limits
from runner.host.machine import this_machine
from runner.host.projects import load_project
from runner.host.source import code as sources

NOTEBOOK_PORT = 8888
RUNS = layout.RUN_DIR.parent / "checkpoints"
"""Where all runs are seen inside; `load_run` finds them there."""
NO_LIMITS = {"memory_gib": None, "cpus": None, "shm_gib": None, "tmp_gib": None, "grace_s": 10.0}
_PARTS = (*layout.DATASET_PARTS, layout.TOY)
_LINKS = ("*", *(f"*/{part}" for part in _PARTS), *(f"*/{layout.TOY}/{part}" for part in layout.DATASET_PARTS))
"""What may be a link to another disk, below the root of the data sets."""
PROMPT = "\\[\\e[1m\\]{project}\\[\\e[0m\\]:\\w\\$ "


def open_shell(
    house: House, engine: Engine, project_name: str, gpus: str, caller: Caller, say: Say, dry_run: bool
) -> int:
    """Replace this process by a shell in the development container.

    Raises:
        RunnerError: no such project, or no terminal to open a shell on.
    """
    project = load_project(house.root, project_name)
    if not dry_run and not sys.stdin.isatty():
        raise RunnerError(
            "make shell needs a terminal; to run one command use `make train` or DRY_RUN=1 and paste the line"
        )
    spec = replace(
        development_spec(house, engine, project.name, gpus, caller, say, dry_run),
        argv=("sh", "-c", 'mkdir -p "$HOME" && exec bash --norc -i'),
        terminal=True,
    )
    where = "live code in /workspace, data sets in /datasets, runs in /run/checkpoints (read-only)"
    return _become(engine, spec, f"shell of {project.name}: {where}", say, dry_run)


def open_notebook(
    house: House,
    engine: Engine,
    project_name: str,
    gpus: str,
    port: str | None,
    caller: Caller,
    say: Say,
    dry_run: bool,
) -> int:
    """Replace this process by JupyterLab in the development container, on the loopback of this machine alone.

    Raises:
        RunnerError: no such project, or a port that is none or is taken.
    """
    project = load_project(house.root, project_name)
    number = _free_port(port, dry_run)
    address = "0.0.0.0" if engine.kind == "docker" else "127.0.0.1"  # inside; published on the loopback outside
    command = ["python", "-m", "jupyterlab", f"--ip={address}", f"--port={number}", "--ServerApp.port_retries=0"]
    command += ["--no-browser", *(["--allow-root"] if caller.user.uid == 0 else [])]
    spec = replace(
        development_spec(house, engine, project.name, gpus, caller, say, dry_run),
        argv=("sh", "-c", f'mkdir -p "$HOME" && exec {shlex.join(command)}'),
        ports=(number,),
        terminal=sys.stdin.isatty() and sys.stdout.isatty(),
    )
    where = f"open the address with 127.0.0.1:{number} and its token below; Ctrl-C twice ends it"
    return _become(engine, spec, f"notebook of {project.name}: {where}", say, dry_run)


def development_spec(
    house: House, engine: Engine, project_name: str, gpus: str, caller: Caller, say: Say, dry_run: bool
) -> ContainerSpec:
    """The development container of a project, with nothing to do yet."""
    project = load_project(house.root, project_name)
    chosen = choose_gpus(gpus, this_machine().gpus)
    environment = environments.environment_of(
        house, engine, project, gather.base_of(project, chosen), "dev", say, dry_run=dry_run
    )
    # below the local engine's view a link leads where it leads on the host
    linked = linked_mounts(house.datasets, layout.DATASETS_DIR) if engine.kind == "docker" else ()
    return ContainerSpec(
        name=f"shell-{project.name}-{secrets.token_hex(3)}",
        image=environment.reference,
        argv=(),
        workdir=layout.WORKSPACE,
        mounts=(*shell_mounts(house), *linked),
        environment=shell_environment(project.name),
        labels={"runner.kind": "shell", "runner.project": project.name, "runner.root": str(house.checkpoints)},
        user=caller.user,
        limits=plan_limits(NO_LIMITS, this_machine(), chosen),
        network=True,
        hostname=this_machine().name,
        read_only_root=False,
    )


def _become(engine: Engine, spec: ContainerSpec, text: str, say: Say, dry_run: bool) -> int:
    line = engine.command_line(spec)
    if dry_run:
        print(line)
        return 0
    say(text)
    os.execvp("sh", ["sh", "-c", line])


def _free_port(text: str | None, dry_run: bool) -> int:
    """The port that PORT= names.

    Raises:
        RunnerError: it is no port number, or something listens there.
    """
    if text is not None and not (text.isdecimal() and 1024 <= int(text) < 65536):
        raise RunnerError(f"PORT={text!r}: expected a number from 1024 to 65535")
    number = int(text or NOTEBOOK_PORT)
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", number))
    except OSError:
        if not dry_run:
            raise RunnerError(f"PORT={number}: something listens there already; choose another with PORT=") from None
    return number


def shell_mounts(house: House) -> tuple[Mount, ...]:
    """The live code, writable; data sets, models and runs, read-only, also where they lie in the live tree."""
    mounts = [Mount(source=house.root, target=layout.WORKSPACE, read_only=False), *sources.shields(house)]
    for source, target in (
        (house.datasets, layout.DATASETS_DIR),
        (house.models, layout.MODELS_DIR),
        (house.checkpoints, RUNS),
    ):
        if source.is_dir():
            mounts.append(Mount(source=Path(os.path.realpath(source)), target=target))
    return tuple(mounts)


def linked_mounts(root: Path, target: PurePosixPath) -> tuple[Mount, ...]:
    """The folders outside `root` that a data set or a part of one is a link to. A container, which sees `root` as `target`,
    follows the text of a link; so each is mounted where that leads. (A launch mounts every part by itself.)"""

    def seen_as(path: Path) -> PurePosixPath:
        if path == root:
            return target
        parent = seen_as(path.parent)
        return PurePosixPath(os.path.normpath(parent / (os.readlink(path) if path.is_symlink() else path.name)))

    links = sorted(path for name in _LINKS for path in root.glob(name) if path.is_symlink())
    found = {seen_as(link): Path(os.path.realpath(link)) for link in links if os.path.isdir(link)}
    return tuple(
        Mount(source=source, target=leads_to)
        for leads_to, source in found.items()
        if not leads_to.is_relative_to(target) and leads_to not in target.parents
    )


def shell_environment(project: str) -> dict[str, str]:
    """The variables that code reads in a launch, and a prompt that says where one is."""
    return {
        "WORKSPACE": str(layout.WORKSPACE),
        "PYTHONPATH": str(layout.WORKSPACE),
        "DATASETS_DIR": str(layout.DATASETS_DIR),
        "MODELS_DIR": str(layout.MODELS_DIR),
        "CHECKPOINTS_ROOT": str(RUNS),
        "RUNNER_MODE": "dev",
        "HOME": str(layout.HOME),
        "TERM": os.environ.get("TERM", "xterm"),
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PS1": PROMPT.format(project=project),
    }
