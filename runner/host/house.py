"""Where things are: the repository, and the roots that it or its machine names."""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.contract.errors import RunnerError

SETTINGS = "runner.yml"
ROOTS = {
    "checkpoints": "checkpoints",
    "datasets": "datasets",
    "outputs": "outputs",
    "models": "models",
    "cache": ".cache",
}
OTHER_SETTINGS = {"allow_secrets": list, "engine": str, "mounts": dict}
_KINDS = {str: "text", list: "a list of names or patterns", dict: "a mapping of names to paths"}


@dataclass(frozen=True, kw_only=True)
class House:
    """The repository a command works in, and its roots. All paths are absolute."""

    root: Path
    checkpoints: Path
    datasets: Path
    outputs: Path
    models: Path
    cache: Path
    """May be deleted at any time."""
    allow_secrets: tuple[str, ...] = ()
    """Patterns of files that look like secrets or are very large and may be snapshotted all the same."""
    engine: str = "auto"
    """What ENGINE= is where it is not given."""
    mounts: Mapping[str, str] = field(default_factory=dict)
    """Host paths by the names that resources.mounts uses."""

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders that never belong to a source snapshot."""
        return (self.checkpoints, self.outputs, self.models, self.cache)


def find_house(start: Path, environment: Mapping[str, str]) -> House:
    """The house that `start` lies in: the nearest folder upwards with a runner.yml or with runner/ and projects/.

    Raises:
        RunnerError: there is none, or its runner.yml has an unknown key or is not a mapping.
    """
    root = next((folder for folder in (start, *start.parents) if _is_house(folder)), None)
    if root is None:
        raise RunnerError(f"{start}: no {SETTINGS} here or above; run from inside the repository")
    settings = _settings(root / SETTINGS)
    roots = {}
    for name, default in ROOTS.items():
        text = environment.get(f"{name.upper()}_ROOT") or settings.get(f"{name}_root") or default
        roots[name] = Path(os.path.abspath(root / Path(str(text)).expanduser()))
    return House(
        root=root,
        allow_secrets=tuple(settings.get("allow_secrets") or ()),
        engine=str(settings.get("engine") or "auto"),
        mounts={str(name): str(path) for name, path in (settings.get("mounts") or {}).items()},
        **roots,
    )


def _is_house(folder: Path) -> bool:
    return (folder / SETTINGS).is_file() or ((folder / "runner").is_dir() and (folder / "projects").is_dir())


def _settings(path: Path) -> Mapping[str, Any]:
    """The mapping in runner.yml; an absent file is an empty one."""
    if not path.exists():
        return {}
    from runner.contract.yaml12 import load_yaml, type_name

    known = {f"{name}_root" for name in ROOTS} | set(OTHER_SETTINGS)
    settings = load_yaml(path) if path.read_text().strip() else {}
    settings = {} if settings is None else settings
    if not isinstance(settings, dict):
        raise RunnerError(f"{path}: found a {type(settings).__name__}, expected keys such as checkpoints_root")
    unknown = sorted(set(settings) - known)
    if unknown:
        raise RunnerError(f"{path}: unknown key {', '.join(map(repr, unknown))}; known: {', '.join(sorted(known))}")
    for key, value in settings.items():
        kind = OTHER_SETTINGS.get(key, str)
        if value is not None and not isinstance(value, kind):
            raise RunnerError(f"{path}: {key}: found {type_name(value)}, expected {_KINDS[kind]}")
    return settings


def shared_folder(root: Path, folder: Path) -> Path:
    """Make `folder` below `root`; what is made on the way takes the root's group and mode, for roots that people share.

    Raises:
        RunnerError: it cannot be made.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        status = root.stat()
        missing = [p for p in (folder, *folder.parents) if root in p.parents and not p.exists()]
        for path in reversed(missing):
            _make_like(status, path)
    except OSError as error:
        raise RunnerError(
            f"{error.filename or folder}: cannot be made: {os.strerror(error.errno or 0)}; mend it, or choose another "
            f"root than {root} in {SETTINGS} or the environment"
        ) from None
    return folder


def _make_like(root: os.stat_result, path: Path) -> None:
    """Make the folder `path` with the root's mode and, where we are of it, its group (a scratch disk is often root's)."""
    try:
        path.mkdir()
    except FileExistsError:  # another launch made it in between
        return
    if path.stat().st_gid != root.st_gid:
        with contextlib.suppress(PermissionError):
            os.chown(path, -1, root.st_gid)
    path.chmod(root.st_mode & 0o7777)
