"""The Docker engine: containers and images, as `engine` asks for them.

Of the SDK's client only the plain calls are used: a container is created by image id and never pulls, `wait` has no read
timeout (docker-py #2964), and output is read from a connection that stands before the start.
"""

import hashlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from runner.contract.errors import EngineError
from runner.contract.jsonio import sha256_of, write_atomic
from runner.host.engines import docker_request
from runner.host.engines.docker_connection import (
    TIMEOUT_S,
    Connection,
    absent_is_none,
    ended_is_no_error,
    leaving_is_no_error,
    one_line,
)
from runner.host.engines.docker_endpoint import Endpoint, find_endpoint
from runner.host.engines.docker_request import Flavour
from runner.host.engines.engine import Container, ContainerSpec, EngineIdentity, Exit, ImageInfo, Mount, check_sources

ENDED = ("exited", "dead")
OOM_NEWS_S = 0.5
"""Docker learns of a kill for memory from another event than of the exit, which may come first."""


def available() -> str | None:
    """Address of this user's Docker engine, without talking to it or importing its SDK; None where there is none."""
    endpoint = find_endpoint()
    return None if endpoint is None else endpoint.address


class DockerEngine:
    """Containers of one Docker engine (or of Podman's Docker API)."""

    kind = "docker"

    def __init__(self, cache: Path, endpoint: Endpoint | None = None) -> None:
        """Talk to `endpoint`, by default this user's; small generated files go to `cache`. Connects on first use."""
        found = endpoint or find_endpoint()
        if found is None:
            raise EngineError(
                "no Docker engine here: neither DOCKER_HOST nor a context nor a socket; `make engine` installs one"
            )
        if found.address.startswith("ssh://"):
            raise EngineError(
                f"{found.address} (named by {found.named_by}): an engine behind ssh has none of this machine's folders to "
                "mount; log in there and run it there, or use ENGINE=local"
            )
        self.endpoint = found
        self._cache = cache
        self._connection = Connection(found)

    def identity(self) -> EngineIdentity:
        """Who this engine is."""
        info = self._info
        # Podman makes up a new id for each answer.
        own = sha256_of([info["Name"], info["DockerRootDir"]])[:32] if self._flavour.podman else info["ID"]
        names = {
            "podman": self._flavour.podman,
            "rootless": self._flavour.rootless,
            "userns-remap": self._flavour.remapped,
        }
        return EngineIdentity(
            kind=self.kind,
            id=own,
            boot_id=_boot_id() if self.endpoint.socket and "Desktop" not in info.get("OperatingSystem", "") else "",
            host=info["Name"],
            version=info["ServerVersion"],
            rootless=self._flavour.rootless,
            flavour=", ".join(name for name, is_so in names.items() if is_so),
        )

    def image(self, reference: str) -> ImageInfo | None:
        """The image of this tag or id, None where there is none. Never pulls."""
        with self._connection.speaking(f"image {reference!r}"), absent_is_none():
            found: dict[str, Any] = self._connection.client.inspect_image(reference)  # type: ignore[no-untyped-call]
            return ImageInfo(
                id=found["Id"],
                digests=tuple(found.get("RepoDigests") or ()),
                labels=(found.get("Config") or {}).get("Labels") or {},
                size_bytes=found.get("Size", 0),
                layers=tuple((found.get("RootFS") or {}).get("Layers") or ()),
            )
        return None

    def save_image(self, image_id: str) -> Iterator[bytes]:
        """An image as one tar, in pieces."""
        with self._connection.speaking(f"image {image_id[:19]} cannot be saved"):
            yield from self._connection.client.get_image(image_id)

    def load_image(self, pieces: Iterator[bytes]) -> None:
        """Take an image that `save_image` gave."""
        with self._connection.speaking("the image cannot be loaded"):
            for line in self._connection.client.load_image(pieces) or ():  # type: ignore[no-untyped-call]
                if "error" in line:
                    raise EngineError(f"the image cannot be loaded: {one_line(str(line['error']))}")

    def tag_image(self, image_id: str, tag: str) -> None:
        """Give an image a further name."""
        name, _, version = tag.rpartition(":")
        with self._connection.speaking(f"image {image_id[:19]} cannot be tagged {tag}"):
            self._connection.client.tag(image_id, name, version)

    def create(self, spec: ContainerSpec) -> str:
        """Create a container and return its id. A name in use is an EngineError that names it."""
        if not re.fullmatch(r"(sha256:)?[0-9a-f]{64}", spec.image):
            raise EngineError(
                f"image {spec.image!r}: containers are created by image id (sha256:…), so that no tag can move"
            )
        if self.endpoint.socket is not None:  # of another machine's files we know nothing
            check_sources(spec.mounts)
            docker_request.check_mount_points(spec.mounts)
        body = self._body(spec)
        with self._connection.speaking(f"container {spec.name!r} cannot be created"):
            return str(self._connection.client.create_container_from_config(body, spec.name)["Id"])  # type: ignore[no-untyped-call]

    def start(self, container: str) -> None:
        """Start a created container."""
        with self._connection.speaking(f"container {container[:12]} cannot be started"):
            self._connection.client.start(container)

    def attach(self, container: str) -> Iterator[bytes]:
        """Its output, both streams as one, from now until it ends. Attach before `start` to miss nothing."""
        with self._connection.speaking(f"container {container[:12]}: its output"):
            client = self._connection.client
            response = client.post(
                f"{client.base_url}/v{client.api_version}/containers/{container}/attach",
                params={"stream": 1, "stdout": 1, "stderr": 1},
                stream=True,
                timeout=(TIMEOUT_S, None),
            )
            self._connection.check(response)
            found = self._connection.client.inspect_container(container)
        if found["State"]["Status"] in ENDED:
            response.close()
            return iter(())
        return self._connection.output(response, framed=not found["Config"]["Tty"])

    def wait(self, container: str) -> Exit:
        """Wait until it has ended."""
        with self._connection.speaking(f"container {container[:12]}: its end"):
            while True:
                self._connection.client.wait(container, timeout=None)
                exit_ = _exit_of(self._connection.client.inspect_container(container)["State"])
                if exit_ is not None:
                    return self._with_news_of_memory(container, exit_)
                time.sleep(0.1)  # not started yet

    def signal(self, container: str, number: int) -> None:
        """Send a signal to its first process. One that has ended already is no error."""
        with self._connection.speaking(f"container {container[:12]}: signal {number}"), ended_is_no_error():
            self._connection.client.kill(container, signal=number)

    def kill(self, container: str) -> None:
        """End every process in it at once. One that has ended already is no error."""
        with self._connection.speaking(f"container {container[:12]}: kill"), ended_is_no_error():
            self._connection.client.kill(container)

    def find(self, name: str) -> Container | None:
        """The container of this name or id; None where there is none."""
        with self._connection.speaking(f"container {name!r}"), absent_is_none():
            found = self._connection.client.inspect_container(name)
            return Container(
                id=found["Id"],
                name=found["Name"].removeprefix("/"),
                labels=found["Config"]["Labels"] or {},
                running=bool(found["State"]["Running"]),
                exit=_exit_of(found["State"]),
            )
        return None

    def containers(self, labels: Mapping[str, str]) -> Sequence[Container]:
        """All containers, running or ended, that carry these labels."""
        with self._connection.speaking("the list of containers"):
            listed = self._connection.client.containers(
                all=True, filters={"label": [f"{k}={v}" for k, v in labels.items()]}
            )
        found = []
        for row in listed:
            if row["State"] == "running":
                found.append(
                    Container(
                        id=row["Id"],
                        name=row["Names"][0].removeprefix("/"),
                        labels=row["Labels"] or {},
                        running=True,
                        exit=None,
                    )
                )
            elif (container := self.find(row["Id"])) is not None:  # the list does not say how it ended
                found.append(container)
        return found

    def remove(self, container: str) -> None:
        """Remove an ended container. One that is gone already is no error."""
        with (
            self._connection.speaking(f"container {container[:12]} cannot be removed"),
            absent_is_none(),
            leaving_is_no_error(),
        ):
            self._connection.client.remove_container(container, v=True)

    def command_line(self, spec: ContainerSpec) -> str:
        """The equal `docker run` line for a shell, to read and to paste. With `spec.terminal` it is interactive."""
        program = ["podman"] if self._flavour.podman else ["docker"]
        if self.endpoint.named_by == "DOCKER_HOST":
            program += ["--url" if self._flavour.podman else "--host", self.endpoint.address]
        return docker_request.command_line(self._body(spec), spec.name, program)

    def _body(self, spec: ContainerSpec) -> dict[str, Any]:
        further = self._accounts(spec)
        if self.endpoint.socket is not None:
            further += docker_request.read_only_submounts(spec.mounts)
        return docker_request.create_body(spec, self._flavour, further)

    def _accounts(self, spec: ContainerSpec) -> list[Mount]:
        """The generated /etc/passwd and /etc/group, kept by their contents."""
        texts = docker_request.accounts_text(
            self._flavour.user(spec.user), self._flavour.groups(spec.user), spec.environment.get("HOME", "/")
        )
        folder = self._cache.absolute() / "accounts" / hashlib.sha256("".join(texts).encode()).hexdigest()[:16]
        try:
            for name, text in zip(("passwd", "group"), texts, strict=True):
                if not (folder / name).exists():
                    folder.mkdir(parents=True, exist_ok=True)
                    write_atomic(folder / name, text.encode())
                    (folder / name).chmod(0o644)
        except OSError as error:
            raise EngineError(
                f"{folder}: cannot be written: {error.strerror}; CACHE_ROOT chooses another place"
            ) from None
        return [Mount(source=folder / name, target=PurePosixPath("/etc", name)) for name in ("passwd", "group")]

    @cached_property
    def _info(self) -> dict[str, Any]:
        with self._connection.speaking("the engine's facts"):
            return dict(self._connection.client.info())

    @cached_property
    def _flavour(self) -> Flavour:
        options = [option.split(",")[0] for option in self._info.get("SecurityOptions") or ()]
        devices = self._info.get("DiscoveredDevices") or ()
        return Flavour(
            rootless="name=rootless" in options,
            podman=self._connection.server.startswith("Libpod"),
            remapped="name=userns" in options,
            selinux="name=selinux" in options,
            cdi_devices=tuple(device["ID"] for device in devices if device.get("Source") == "cdi"),
        )

    def _with_news_of_memory(self, container: str, exit_: Exit) -> Exit:
        """Look again for a while where the exit smells of a kill for memory that Docker does not know of yet."""
        deadline = time.monotonic() + OOM_NEWS_S
        while exit_.code == 137 and not exit_.out_of_memory and time.monotonic() < deadline:
            time.sleep(0.05)
            again = _exit_of(self._connection.client.inspect_container(container)["State"])
            exit_ = again or exit_
        return exit_


def _exit_of(state: dict[str, Any]) -> Exit | None:
    """How a container ended; None while it runs or was never started. A start that failed is an end with an error."""
    failed = state["Status"] == "created" and bool(state.get("Error"))
    if state["Status"] not in ENDED and not failed:
        return None
    return Exit(
        code=state["ExitCode"],
        out_of_memory=bool(state.get("OOMKilled")),
        started=_moment(state.get("StartedAt")),
        finished=_moment(state.get("FinishedAt")),
        error=one_line(state["Error"]) if state.get("Error") else None,
    )


def _moment(text: str | None) -> str | None:
    """Docker's nanoseconds, less their trailing zeros, as microseconds; its year 1 means never."""
    if not text or text.startswith("0001"):
        return None
    seconds, _, fraction = text.rstrip("Z").partition(".")
    return f"{seconds}.{fraction[:6]:0<6}Z"


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
