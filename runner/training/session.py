"""Where a training writes: the run folder of its launch, or a folder of its own outside any launch."""

import datetime
import os
import socket
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.contract.config import Config, load_config, snapshot
from runner.contract.errors import RunnerError
from runner.contract.layout import RunPaths
from runner.contract.names import session_name
from runner.contract.schema import builtin_defaults, overlay
from runner.contract.trainer_keys import DEFAULTS
from runner.contract.yaml12 import dump_yaml, load_mapping
from runner.training.appended_file import AppendedFile


@dataclass(frozen=True)
class Session:
    """The folder of one run, or none for a Trainer that writes nothing."""

    paths: RunPaths | None
    own: bool = False
    """Whether there is no launch around it, so that nobody else writes logs.txt."""

    @property
    def name(self) -> str:
        """The folder's path as text; "" without one."""
        return str(self.paths.folder) if self.paths is not None else ""

    @classmethod
    def of_launch_or_new(cls, config: Any, *, first: bool = True) -> "Session":
        """RUN_DIR's folder; where there is no launch, a new one below `output_path` or ./checkpoints."""
        if os.environ.get("RUN_DIR"):
            return cls(RunPaths(Path(os.environ["RUN_DIR"])))
        if not first:
            return cls.none()
        root = Path(getattr(config, "output_path", None) or "checkpoints")
        return cls(RunPaths(_new_folder(root, str(getattr(config, "tag", "")), config)), own=True)

    @classmethod
    def existing(cls, folder: Path) -> "Session":
        """A folder that an earlier Trainer made, to resume in.

        Raises:
            RunnerError: there is no such folder.
        """
        if not folder.is_dir():
            raise RunnerError(f"{folder}: no run folder to resume in")
        return cls(RunPaths(folder), own=True)

    @classmethod
    def none(cls) -> "Session":
        """Nothing is written."""
        return cls(None)


def read_config(config: Any) -> Config:
    """A Config from a path (.json or .yml), a mapping, or as it is. Keys that are not there get their defaults.

    Raises:
        RunnerError: it cannot be read.
    """
    if isinstance(config, Config):
        values: Mapping[str, Any] = snapshot(config)
        if DEFAULTS.keys() <= values.keys() and "seed" in values:
            return config
    elif isinstance(config, Mapping):
        values = config
    elif isinstance(config, str | Path):
        path = Path(config)
        values = snapshot(load_config(path)) if path.suffix == ".json" else load_mapping(path)
    elif hasattr(config, "__dict__"):
        values = vars(config)
    else:
        raise RunnerError(f"Trainer: a config or the path of one expected, found {type(config).__name__}")
    return Config(overlay({**builtin_defaults(tag="", dataset=None), **DEFAULTS}, dict(values)))


def _new_folder(root: Path, tag: str, config: Config) -> Path:
    """A new `session_{machine}_{time}_{tag}` below `root`; a taken name gets _2, _3 …"""
    name = session_name(socket.gethostname(), datetime.datetime.now(datetime.UTC), tag)
    root.mkdir(parents=True, exist_ok=True)
    for number in range(1, 10_000):
        folder = root / (name if number == 1 else f"{name}_{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        RunPaths(folder).config_yml.write_text(dump_yaml(snapshot(config)))
        return folder
    raise RunnerError(f"{root}: ten thousand sessions in this second; something starts too many")


class Tee:
    """Sends what is printed to the terminal and to logs.txt. Only used outside a launch; in one the supervisor does it."""

    def __init__(self, path: Path) -> None:
        self._streams = sys.stdout, sys.stderr
        self._file = AppendedFile(path, lambda text: print(text, file=self._streams[0], flush=True))

    def __enter__(self) -> "Tee":
        sys.stdout, sys.stderr = (_Both(stream, self._file) for stream in self._streams)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        sys.stdout, sys.stderr = self._streams
        if isinstance(error, RunnerError):
            self._file.append(f"error: {error}\n".encode())
        elif error is not None and not isinstance(error, SystemExit):
            self._file.append("".join(traceback.format_exception(error)).encode())
        self._file.close()


class _Both:
    """A stream that also writes to a file; everything else is the stream's."""

    def __init__(self, stream: Any, file: AppendedFile) -> None:
        self._stream, self._file = stream, file

    def write(self, text: str) -> int:
        kept = text.rpartition("\r")[2] if "\r" in text and not text.endswith("\n") else text.replace("\r", "")
        self._file.append(kept.encode(errors="backslashreplace"))
        return int(self._stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
