"""Where the Docker engine of this user answers, as the docker command line would find it. Talks to nobody."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.contract.errors import EngineError


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """An engine's address, and who named it."""

    address: str
    """unix:///path or tcp://host:port; an ssh://host is found, and refused."""
    named_by: str
    """DOCKER_HOST, a docker context, or the socket that is there."""
    tls: Path | None = None
    """Folder with ca.pem, cert.pem and key.pem."""
    tls_verify: bool = True

    @property
    def socket(self) -> Path | None:
        """The socket's path; None for an engine on another machine, whose files are not ours."""
        return Path(self.address.removeprefix("unix://")) if self.address.startswith("unix://") else None


def find_endpoint(environment: Mapping[str, str] = os.environ) -> Endpoint | None:
    """DOCKER_HOST, else the current docker context, else the first socket there is; None without any of them.

    Raises:
        EngineError: the current context has no record of where its engine is.
    """
    if environment.get("DOCKER_HOST"):
        tls = environment.get("DOCKER_CERT_PATH") if environment.get("DOCKER_TLS_VERIFY") else None
        return Endpoint(address=environment["DOCKER_HOST"], named_by="DOCKER_HOST", tls=Path(tls) if tls else None)
    configuration = Path(environment.get("DOCKER_CONFIG") or Path(environment.get("HOME", "/"), ".docker"))
    context = environment.get("DOCKER_CONTEXT") or _json(configuration / "config.json").get("currentContext", "default")
    if context and context != "default":
        return _of_context(context, configuration / "contexts")
    there = [path for path in _sockets(environment) if _is_socket(path)]
    ours = next((path for path in there if os.access(path, os.R_OK | os.W_OK)), there[0] if there else None)
    return None if ours is None else Endpoint(address=f"unix://{ours}", named_by="the socket that is there")


def _sockets(environment: Mapping[str, str]) -> Iterator[Path]:
    """Where sockets lie: Docker's, rootless Docker's, Docker Desktop's, Podman's."""
    yield Path("/var/run/docker.sock")
    home, runtime = Path(environment.get("HOME", "/")), environment.get("XDG_RUNTIME_DIR")
    if runtime:
        yield Path(runtime, "docker.sock")
    yield home / ".docker/run/docker.sock"
    yield home / ".docker/desktop/docker.sock"
    if runtime:
        yield Path(runtime, "podman/podman.sock")
    yield Path("/run/podman/podman.sock")


def _of_context(name: str, folder: Path) -> Endpoint:
    """The endpoint of a docker context. Its files are named by the sha256 of its name."""
    key = hashlib.sha256(name.encode()).hexdigest()
    docker = _json(folder / "meta" / key / "meta.json").get("Endpoints", {}).get("docker", {})
    if not docker.get("Host"):
        raise EngineError(
            f"docker context {name!r}: {folder} does not say where its engine is; choose one with `docker context use`"
        )
    tls = folder / "tls" / key / "docker"
    return Endpoint(
        address=docker["Host"],
        named_by=f"docker context {name!r}",
        tls=tls if tls.is_dir() else None,
        tls_verify=not docker.get("SkipTLSVerify", False),
    )


def _is_socket(path: Path) -> bool:
    try:
        return path.is_socket()
    except OSError:  # a folder on the way that we may not enter
        return False


def _json(path: Path) -> dict[str, Any]:
    """A JSON object in a file that need not be there."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
