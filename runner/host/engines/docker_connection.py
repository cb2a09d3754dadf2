"""The connection to a Docker engine, through its SDK. The only module that imports it: its errors end here.

The SDK costs 0.1 s to import, so that is done on first use. `speaking` turns every failure into one line: what the engine
refused and why, or that it does not answer and what to do.
"""

import errno
import re
import socket
import struct
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from runner.contract.errors import EngineError
from runner.host.engines.docker_endpoint import Endpoint

if TYPE_CHECKING:
    import requests
    from docker.api import APIClient

OLDEST_API, NEWEST_API = "1.41", "1.45"
"""20.10 speaks up to 1.41; 1.45 is the newest the SDK was written for. Docker 29 refuses what is older than 1.44."""
TIMEOUT_S = 120.0
PING_S = 10.0
FRAME = struct.Struct(">BxxxL")


class Connection:
    """To one engine; made on first use."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.server = ""
        """What the engine calls itself; known once there is a client."""

    @cached_property
    def client(self) -> "APIClient":
        """A client that speaks a version of the API that both sides know; a ping tells theirs at the least cost."""
        with self.speaking("connecting"):
            with self._new_client(OLDEST_API) as probe:
                answer = probe.get(f"{probe.base_url}/_ping", timeout=PING_S)
                self.check(answer)
            if "Api-Version" not in answer.headers:
                raise EngineError(f"{self.endpoint.address}: what answers there is no Docker engine")
            self.server = answer.headers.get("Server", "")
            client = self._new_client(min(answer.headers["Api-Version"], NEWEST_API, key=_version))
            weakref.finalize(self, client.close)  # the SDK leaves its connections to the garbage collector
            return client

    def _new_client(self, version: str) -> "APIClient":
        from docker.api import APIClient
        from docker.tls import TLSConfig

        folder, tls = self.endpoint.tls, None
        if folder is not None:
            tls = TLSConfig(
                client_cert=(str(folder / "cert.pem"), str(folder / "key.pem")),
                ca_cert=str(folder / "ca.pem"),
                verify=self.endpoint.tls_verify,
            )
        return APIClient(
            base_url=self.endpoint.address,
            version=version,
            timeout=int(TIMEOUT_S),
            tls=tls or False,
        )

    def output(self, response: "requests.Response", *, framed: bool) -> Iterator[bytes]:
        """The payloads of Docker's frames: 8 bytes that name stream and length, then the bytes."""
        read = response.raw.read
        with self.speaking("its output"):
            try:
                while framed and (header := read(FRAME.size)):
                    payload = read(FRAME.unpack(header)[1]) if len(header) == FRAME.size else b""
                    if len(header) < FRAME.size or len(payload) < FRAME.unpack(header)[1]:
                        raise ConnectionResetError(errno.ECONNRESET, "the connection broke off in the middle of a line")
                    yield payload
                while not framed and (payload := response.raw.read1(1 << 16)):
                    yield payload
            finally:
                response.close()
            self._knock()  # an engine that has died ends the output just as a container does

    def check(self, response: "requests.Response") -> None:
        """Raise the SDK's own error for an answer that is one."""
        import requests
        from docker.errors import create_api_error_from_http_exception

        try:
            response.raise_for_status()
        except requests.HTTPError as error:
            create_api_error_from_http_exception(error)

    @contextmanager
    def speaking(self, what: str) -> Iterator[None]:
        """Turn every way in which the engine or the connection to it can fail into an EngineError about `what`."""
        try:
            self._knock()
        except OSError as error:
            raise EngineError(self._why_silent(error)) from None
        from http.client import HTTPException

        try:
            from docker.errors import APIError, DockerException
            from urllib3.exceptions import HTTPError
        except ImportError:  # outside the host venv `import docker` finds our docker/ folder
            raise EngineError(
                "the Docker SDK is not installed in this Python; start with make, or use the host venv"
            ) from None
        try:
            yield
        except APIError as error:
            raise EngineError(f"{what}: {one_line(error.explanation or str(error))}") from None
        except (DockerException, HTTPError, OSError, HTTPException, ValueError, struct.error) as error:
            raise EngineError(self._why_silent(error)) from None

    def _knock(self) -> None:
        """Connect to the socket and leave again: 0.1 ms, an OSError in plain words, and none of the SDK's connections,
        which stay open where they fail."""
        if self.endpoint.socket is not None:
            with socket.socket(socket.AF_UNIX) as ours:
                ours.settimeout(PING_S)
                ours.connect(str(self.endpoint.socket))

    def _why_silent(self, error: Exception) -> str:
        """Why there was no answer, and what to do."""
        cause, address = _system_error(error), self.endpoint.address
        number = None if cause is None else cause.errno
        if number in (errno.EACCES, errno.EPERM):
            return f"{address}: permission denied; {_how_to_join(self.endpoint.socket)}"
        if number in (errno.ECONNREFUSED, errno.ENOENT) and "client" not in self.__dict__:
            return (
                f"{address}: no Docker engine answers there (named by {self.endpoint.named_by}); "
                "start it, for instance with `sudo systemctl start docker`, or use ENGINE=local"
            )
        words = one_line(str((cause and cause.strerror) or error))
        return f"{address}: the engine stopped answering ({words}); see whether it runs: `docker info`"


@contextmanager
def absent_is_none() -> Iterator[None]:
    """Pass over "no such container" and "no such image"."""
    from docker.errors import NotFound

    with suppress(NotFound):
        yield


@contextmanager
def ended_is_no_error() -> Iterator[None]:
    """Pass over what Docker says of a container that is gone or does not run."""
    from docker.errors import APIError

    try:
        yield
    except APIError as error:
        if error.status_code not in (404, 409):
            raise


@contextmanager
def leaving_is_no_error() -> Iterator[None]:
    """Pass over what Docker says of a container that is being removed already."""
    from docker.errors import APIError

    try:
        yield
    except APIError as error:
        if "already in progress" not in str(error.explanation):
            raise


def one_line(text: str) -> str:
    """The engine's message as one line, without the names of the parts of it that passed it on."""
    line = " ".join(text.split())
    line = re.sub(
        r"^.*(?:unable to start container process|OCI runtime create failed|error during container init): ", "", line
    )
    return line.removesuffix(": unknown")


def _system_error(error: BaseException) -> OSError | None:
    """The operating system's error that an error was made of, wherever the layers in between have put it."""
    seen: list[BaseException] = [error]
    for one in seen:
        if isinstance(one, OSError) and one.errno is not None:
            return one
        inner = (one.__cause__, one.__context__, getattr(one, "reason", None), *one.args)
        seen += [other for other in inner if isinstance(other, BaseException) and other not in seen]
    return None


def _how_to_join(socket: Path | None) -> str:
    """The next step for somebody whom the socket refuses."""
    import getpass
    import grp

    group = "docker"
    with suppress(OSError, KeyError):
        if socket is not None and (gid := socket.stat().st_gid) != 0:
            group = grp.getgrgid(gid).gr_name
    return f"join its group (`sudo usermod -aG {group} {getpass.getuser()}`, then log in again), or use ENGINE=local"


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
