"""What a launch asks of a container engine, in our words. Docker and the local engine both answer to this page."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from runner.contract.errors import EngineError


@dataclass(frozen=True, kw_only=True)
class Mount:
    """One host path seen inside. A source that does not exist is an error, never a new folder."""

    source: Path
    """Absolute, symlinks resolved."""
    target: PurePosixPath
    """Absolute path inside."""
    read_only: bool = True


def check_sources(mounts: Iterable[Mount]) -> None:
    """Refuse a source that is not there.

    Raises:
        EngineError: naming it.
    """
    for mount in mounts:
        if not mount.source.exists():
            raise EngineError(f"{mount.source}: not there, so it cannot be mounted at {mount.target}")


@dataclass(frozen=True, kw_only=True)
class User:
    """Who the command runs as, so that what it writes belongs to the caller."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    """Supplementary groups, so that files of a group the caller belongs to are readable."""
    umask: int = 0o022


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one container may use."""

    gpus: tuple[str, ...] = ()
    """GPU UUIDs; () runs on the CPU."""
    memory_bytes: int | None = None
    """Hard memory limit; None for none. The kernel kills the container above it."""
    cpus: float | None = None
    """CPU time limit, in cores; None for none."""
    shm_bytes: int = 1 << 30
    """Size of /dev/shm, which DataLoader workers share tensors through."""
    tmp_bytes: int = 8 << 30
    """Most that /tmp may hold; it lives in memory."""
    pids: int = 4096
    grace_s: float = 30.0
    """Seconds between the request to stop and the kill."""


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    """One container, completely described. Equal specs start equal containers."""

    name: str
    """Unique on the engine, so that a double start is impossible."""
    image: str
    """What to run in: an image id (docker), or the folder of a virtual environment (local)."""
    argv: tuple[str, ...]
    """The whole command, the supervisor included; argv[0] is looked up on the PATH inside."""
    workdir: PurePosixPath
    mounts: tuple[Mount, ...]
    environment: Mapping[str, str]
    labels: Mapping[str, str]
    user: User
    limits: Limits
    network: bool = False
    hostname: str = "localhost"
    read_only_root: bool = True
    terminal: bool = False
    """Whether the container's own stdin is an interactive terminal (make shell). Launches never have one: the
    supervisor gives its child a pty instead."""
    ports: tuple[int, ...] = ()
    """TCP ports published on the host's loopback (make notebook)."""


@dataclass(frozen=True, kw_only=True)
class Exit:
    """How a container ended, by the engine's own account."""

    code: int
    """128 + n where signal n ended it."""
    out_of_memory: bool = False
    """The kernel killed something in it for memory."""
    started: str | None = None
    """UTC, ISO 8601; None if it never started."""
    finished: str | None = None
    error: str | None = None
    """The engine's words where it could not start the command."""


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container as the engine lists it."""

    id: str
    name: str
    labels: Mapping[str, str]
    running: bool
    exit: Exit | None
    """Set once it has ended; None while it was never started or still runs."""


@dataclass(frozen=True, kw_only=True)
class ImageInfo:
    """An image as the engine knows it."""

    id: str
    digests: tuple[str, ...] = ()
    """name@sha256:… for each registry it came from or went to; () for one built here."""
    labels: Mapping[str, str] = field(default_factory=dict)
    size_bytes: int = 0
    layers: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EngineIdentity:
    """Which engine ran a launch. Only the same engine may later rule that the launch is lost."""

    kind: str
    """docker or local."""
    id: str
    """The daemon's own id; for the local engine the machine id."""
    boot_id: str
    """The kernel's boot id as seen by the engine's host; "" for a remote daemon."""
    host: str
    version: str
    rootless: bool = False
    flavour: str = ""
    """podman, rootless, userns-remap …: what changes how a user is mapped."""
    not_enforced: tuple[str, ...] = ()
    """What of a spec this engine cannot enforce (local: read-only mounts, network, limits …)."""


class Engine(Protocol):
    """A container engine. Every method raises EngineError, with the engine's words, when the engine fails."""

    kind: str

    def identity(self) -> EngineIdentity:
        """Who this engine is."""

    def image(self, reference: str) -> ImageInfo | None:
        """The image of this tag or id, None where there is none. Never pulls."""

    def create(self, spec: ContainerSpec) -> str:
        """Create a container and return its id. A name in use is an EngineError that names it."""

    def start(self, container: str) -> None:
        """Start a created container."""

    def attach(self, container: str) -> Iterator[bytes]:
        """Its output, both streams as one, from now until it ends. Attach before `start` to miss nothing."""

    def wait(self, container: str) -> Exit:
        """Wait until it has ended."""

    def signal(self, container: str, number: int) -> None:
        """Send a signal to its first process. One that has ended already is no error."""

    def kill(self, container: str) -> None:
        """End every process in it at once. One that has ended already is no error."""

    def find(self, name: str) -> Container | None:
        """The container of this name or id; None where there is none."""

    def containers(self, labels: Mapping[str, str]) -> Sequence[Container]:
        """All containers, running or ended, that carry these labels."""

    def remove(self, container: str) -> None:
        """Remove an ended container. One that is gone already is no error."""

    def command_line(self, spec: ContainerSpec) -> str:
        """The equal command for a shell, to read and to paste."""
