"""From a ContainerSpec to what Docker is asked for: the body of a create request, and the same as a `docker run` line.

The line is made from the body, so that the two cannot drift apart.
"""

import csv
import io
import math
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from runner.contract import layout
from runner.contract.errors import EngineError
from runner.host.engines.engine import ContainerSpec, Mount, User

LOG_BYTES = "10m"
"""Docker keeps a copy of the output; logs.txt is the record."""


@dataclass(frozen=True, kw_only=True)
class Flavour:
    """What about an engine changes how it must be asked."""

    rootless: bool = False
    podman: bool = False
    remapped: bool = False
    """The daemon maps users (userns-remap)."""
    selinux: bool = False
    cdi_devices: tuple[str, ...] = ()
    """Devices it offers by CDI name: nvidia.com/gpu=GPU-…"""

    def user(self, user: User) -> str:
        """uid:gid inside. Rootless Docker maps root inside to the caller outside, and nobody else to anybody useful."""
        return "0:0" if self.rootless and not self.podman else f"{user.uid}:{user.gid}"

    def groups(self, user: User) -> list[str]:
        """Supplementary groups. A rootless engine cannot map them by number; Podman can keep them as they are."""
        if self.rootless:
            return ["keep-groups"] if self.podman and user.groups else []
        return [str(group) for group in user.groups if group != user.gid]

    def userns(self) -> str:
        """The user namespace that keeps what is written the caller's; "" for the engine's own."""
        if self.podman:
            return "keep-id" if self.rootless else ""
        return "host" if self.remapped else ""


def create_body(spec: ContainerSpec, flavour: Flavour, accounts: Sequence[Mount]) -> dict[str, Any]:
    """The body of `POST /containers/create`. `accounts` are the generated /etc/passwd and /etc/group."""
    return {
        "Image": spec.image,
        "Entrypoint": [spec.argv[0]],  # an ENTRYPOINT of the image would come first
        "Cmd": list(spec.argv[1:]),
        "WorkingDir": str(spec.workdir),
        "Env": [f"{name}={value}" for name, value in spec.environment.items()],
        "Labels": dict(spec.labels),
        "User": flavour.user(spec.user),
        "Hostname": spec.hostname,
        "Healthcheck": {"Test": ["NONE"]},
        "StopTimeout": math.ceil(spec.limits.grace_s),
        "AttachStdout": True,
        "AttachStderr": True,
        "AttachStdin": spec.terminal,
        "OpenStdin": spec.terminal,
        "StdinOnce": spec.terminal,
        "Tty": spec.terminal,
        "ExposedPorts": {f"{port}/tcp": {} for port in spec.ports},
        "HostConfig": _host_config(spec, flavour, accounts),
    }


def _host_config(spec: ContainerSpec, flavour: Flavour, accounts: Sequence[Mount]) -> dict[str, Any]:
    limits = spec.limits
    config: dict[str, Any] = {
        "Mounts": [_bind(mount) for mount in (*spec.mounts, *accounts)],
        "ReadonlyRootfs": spec.read_only_root,
        # exec: torch.compile loads what it has compiled from there
        "Tmpfs": {"/tmp": f"exec,mode=1777,size={limits.tmp_bytes}"},
        "ShmSize": limits.shm_bytes,
        "PidsLimit": limits.pids,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", *(["label=disable"] if flavour.selinux else [])],
        "Init": True,
        "NetworkMode": "bridge" if spec.network else "none",
        "GroupAdd": flavour.groups(spec.user),
        "UsernsMode": flavour.userns(),
        "LogConfig": {"Type": "json-file", "Config": {"max-size": LOG_BYTES, "max-file": "1"}},
    }
    if spec.hostname != "localhost":  # torchrun looks its own name up, and hangs without an answer
        config["ExtraHosts"] = [f"{spec.hostname}:127.0.0.1"]
    if flavour.podman:
        config["LogConfig"] = {"Type": "k8s-file", "Config": {"max-size": LOG_BYTES}}
    if limits.memory_bytes is not None:
        config["Memory"] = config["MemorySwap"] = limits.memory_bytes  # the same: no swap on top
    if limits.cpus is not None:
        config["NanoCpus"] = round(limits.cpus * 1e9)
    if limits.gpus:
        config["DeviceRequests"] = [_gpus(limits.gpus, flavour)]
    if spec.ports:
        config["PortBindings"] = {
            f"{port}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}] for port in spec.ports
        }
    return config


def _gpus(uuids: tuple[str, ...], flavour: Flavour) -> dict[str, Any]:
    """By UUID, since indices change with the driver's order. By CDI where the engine offers these GPUs so."""
    names = [f"nvidia.com/gpu={uuid}" for uuid in uuids]
    if flavour.podman or all(name in flavour.cdi_devices for name in names):
        return {"Driver": "cdi", "DeviceIDs": names}
    return {"Driver": "", "Count": 0, "DeviceIDs": list(uuids), "Capabilities": [["gpu"]], "Options": {}}


def _bind(mount: Mount) -> dict[str, Any]:
    return {
        "Type": "bind",  # unlike -v, this never makes a folder of a misspelt source
        "Source": str(mount.source),
        "Target": str(mount.target),
        "ReadOnly": mount.read_only,
        "BindOptions": {"Propagation": "rprivate"},
    }


def command_line(body: dict[str, Any], name: str, program: Sequence[str]) -> str:
    """The `docker run` line that does the same as creating `body`, for a shell."""
    return shlex.join([*program, "run", *_flags(body, name), body["Image"], *body["Cmd"]])


def _flags(body: dict[str, Any], name: str) -> Iterator[str]:
    host = body["HostConfig"]
    yield from ("--rm", "--name", name)
    if body["Tty"]:
        yield "-it"
    yield from ("--init", "--pull", "never", "--no-healthcheck", "--cap-drop", "ALL")
    if host["ReadonlyRootfs"]:
        yield "--read-only"
    for option in host["SecurityOpt"]:
        yield from ("--security-opt", option)
    if host["UsernsMode"]:
        yield from ("--userns", host["UsernsMode"])
    yield from ("--user", body["User"])
    for group in host["GroupAdd"]:
        yield from ("--group-add", group)
    yield from ("--network", host["NetworkMode"], "--hostname", body["Hostname"])
    for mapping in host.get("ExtraHosts", []):
        yield from ("--add-host", mapping)
    for port, bindings in host.get("PortBindings", {}).items():
        for binding in bindings:
            yield from ("--publish", f"{binding['HostIp']}:{binding['HostPort']}:{port}")
    yield from _limit_flags(body)
    for target, options in host["Tmpfs"].items():
        yield from ("--tmpfs", f"{target}:{options}")
    for mount in host["Mounts"]:
        yield from ("--mount", _mount_flag(mount))
    for variable in body["Env"]:
        yield from ("--env", variable)
    for label, value in body["Labels"].items():
        yield from ("--label", f"{label}={value}")
    yield from ("--workdir", body["WorkingDir"], "--entrypoint", body["Entrypoint"][0])


def _limit_flags(body: dict[str, Any]) -> Iterator[str]:
    host = body["HostConfig"]
    yield from ("--shm-size", str(host["ShmSize"]), "--pids-limit", str(host["PidsLimit"]))
    yield from ("--stop-timeout", str(body["StopTimeout"]))
    if "Memory" in host:
        yield from ("--memory", str(host["Memory"]), "--memory-swap", str(host["MemorySwap"]))
    if "NanoCpus" in host:
        yield from ("--cpus", f"{host['NanoCpus'] / 1e9:g}")
    for request in host.get("DeviceRequests", []):
        if request["Driver"] == "cdi":
            for device in request["DeviceIDs"]:
                yield from ("--device", device)
        else:
            yield from ("--gpus", f'"device={",".join(request["DeviceIDs"])}"')  # quotes: the value is CSV
    yield from ("--log-driver", host["LogConfig"]["Type"])
    for option, value in host["LogConfig"]["Config"].items():
        yield from ("--log-opt", f"{option}={value}")


def _mount_flag(mount: dict[str, Any]) -> str:
    """The CSV that --mount takes, quoted where a path has a comma or a quote."""
    fields = ["type=bind", f"source={mount['Source']}", f"target={mount['Target']}", "bind-propagation=rprivate"]
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow([*fields, *(["readonly"] if mount["ReadOnly"] else [])])
    return buffer.getvalue()


def check_mount_points(mounts: Sequence[Mount]) -> None:
    """Refuse a mount point that Docker would make in one of our folders, as root.

    Raises:
        EngineError: naming the path.
    """
    for mount in mounts:
        parent = _owner(mount.target.parent, mounts)
        if parent is not None:
            point = parent.source / mount.target.relative_to(parent.target)
            if point.is_symlink() or not point.exists() or point.is_dir() != mount.source.is_dir():
                kind = "folder" if mount.source.is_dir() else "file"
                raise EngineError(
                    f"{point}: must be a {kind} before {mount.source} can be mounted over it at {mount.target}"
                )


def read_only_submounts(mounts: Sequence[Mount]) -> tuple[Mount, ...]:
    """Further mounts that keep read-only what other file systems hold below a read-only source.

    Docker's read-only is not recursive before 25 and Linux 5.12: a disk mounted below a data set would be writable.
    """
    found = []
    for mount in mounts:
        for path in submounts(mount.source) if mount.read_only else ():
            target = mount.target / path.relative_to(mount.source)
            if _owner(target, mounts) is mount:
                found.append(Mount(source=path, target=target))
    return tuple(found)


def submounts(folder: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> list[Path]:
    """The mount points strictly below `folder`, each once, as the kernel lists them."""
    found = []
    for line in mountinfo.read_bytes().splitlines():
        point = Path(os.fsdecode(_unescape(line.split(b" ")[4])))
        if folder in point.parents and point not in found:
            found.append(point)
    return found


def _unescape(field: bytes) -> bytes:
    """Undo mountinfo's octal escapes of blanks and backslashes."""
    for escape, character in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        field = field.replace(escape, character)
    return field


def _owner(target: PurePosixPath, mounts: Sequence[Mount]) -> Mount | None:
    """The mount that a path inside lies in: the one with the longest target above it."""
    above = [mount for mount in mounts if mount.target == target or mount.target in target.parents]
    return max(above, key=lambda mount: len(mount.target.parts), default=None)


def accounts_text(user: str, groups: Sequence[str], home: str = str(layout.HOME)) -> tuple[str, str]:
    """Contents of /etc/passwd and /etc/group for this `uid:gid`: whoami, getpass and ~ need a line each."""
    uid, gid = user.split(":")
    passwd, group = [f"root:x:0:0:root:{home}:/bin/sh"], ["root:x:0:"]
    if uid != "0":
        passwd.append(f"user:x:{uid}:{gid}:user:{home}:/bin/sh")
    if gid != "0":
        group.append(f"user:x:{gid}:")
    group += [f"group{number}:x:{number}:" for number in groups if number.isdigit() and number not in ("0", gid)]
    return "\n".join(passwd) + "\n", "\n".join(group) + "\n"
