"""Checkpoints that are complete or absent, and the choice of the newest valid one.

A state is written beside its name, synced and renamed; the sidecar, with the file's size and sha256, is renamed last.
A .pt without a sidecar that matches is no checkpoint. The file itself holds no name and no clock: it is written through
a file handle, so that equal states make equal bytes.
"""

import os
import re
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from runner.contract.checkpoints import BEST, LATEST, pointed, sidecar
from runner.contract.errors import RunnerError
from runner.contract.jsonio import file_sha256, pretty_json, read_json, sync_folder
from runner.training.hashed_file import HashedFile
from runner.training.state import state_bytes, state_sha256

SCHEMA_VERSION = 1
_NAME = re.compile(r"step_(\d{8,})\.pt")
DAMAGED = "damaged"
PASSED_OVER = "is the end of a shorter run, which a longer one does not pass through"


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A checkpoint that was read and found whole."""

    path: Path
    state: dict[str, Any]
    facts: Mapping[str, Any]
    """Its sidecar."""


@dataclass
class Search:
    """What a search for the newest valid checkpoint found."""

    saved: Saved | None = None
    damaged: list[str] = field(default_factory=list)
    """One line each: which, and what is wrong with it."""
    damaged_paths: list[Path] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    """One line each: whole, but not to be continued from."""


class CheckpointStore:
    """The folder of one run's checkpoints. One process writes."""

    def __init__(self, folder: Path, *, keep_last: int, keep_every: int | None) -> None:
        self.folder = folder
        self._keep_last, self._keep_every = keep_last, keep_every

    def path(self, step: int) -> Path:
        """The file of `step`."""
        return self.folder / f"step_{step:08d}.pt"

    def steps(self) -> list[int]:
        """The steps that have a sidecar, oldest first. Whether they are whole, `read` says."""
        return sorted(step for step, path in self._files() if sidecar(path).is_file())

    def write(self, state: dict[str, Any], facts: Mapping[str, Any], *, best_step: int | None) -> Path:
        """Make `state` durable as the checkpoint of facts["step"], point to it, and delete what is not to be kept.

        Everything is written beside and synced; then come the renames: state, sidecar, pointers.

        Raises:
            OSError: it could not be written; whatever was there before is still there, its name is in the error.
        """
        step = int(facts["step"])
        path = self.path(step)
        beside: dict[Path, Path] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            beside[path] = self._temporary(path)
            content = self._write_state(beside[path], path, state, facts)
            small = {sidecar(path): pretty_json(content), **self._pointers(step, best_step)}
            for target, text in small.items():
                beside[target] = self._temporary(target)
                _write_synced(beside[target], text)
            for target, temporary in beside.items():
                os.replace(temporary, target)
            sync_folder(self.folder)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
        finally:
            for temporary in beside.values():
                temporary.unlink(missing_ok=True)
        self._retain(step, best_step)
        return path

    def _write_state(
        self, temporary: Path, path: Path, state: dict[str, Any], facts: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Write and sync the state; what its sidecar is to say."""
        n_bytes = state_bytes(state)
        hasher = _Background(lambda: state_sha256(state), is_long=n_bytes > 1 << 20)
        digest = write_state(temporary, state)
        return {
            "schema_version": SCHEMA_VERSION,
            "file": path.name,
            "size": temporary.stat().st_size,
            "sha256": digest,
            "state_sha256": hasher.result(),
            **facts,
        }

    def _pointers(self, step: int, best_step: int | None) -> dict[Path, bytes]:
        """The pointers that are to move. A best checkpoint that could not be written leaves `best` where it was."""
        wanted = {LATEST: step}
        if best_step is not None and (best_step == step or sidecar(self.path(best_step)).is_file()):
            wanted[BEST] = best_step
        return {
            self.folder / name: self.path(target).name.encode() + b"\n"
            for name, target in wanted.items()
            if pointed(self.folder, name) != self.path(target)
        }

    def read(self, path: Path) -> Saved:
        """Read one checkpoint and prove that it is whole.

        Raises:
            RunnerError: it is not; the text says what is wrong and with which file.
        """
        if not path.is_file():
            raise RunnerError(f"{path.name}: {'a directory' if path.is_dir() else 'not there'}, not a checkpoint file")
        facts = self._facts(path)
        size = path.stat().st_size
        if size != facts["size"]:
            raise RunnerError(f"{path.name}: {size} bytes, written as {facts['size']}: truncated or overwritten")
        if file_sha256(path) != facts["sha256"]:
            raise RunnerError(f"{path.name}: its bytes are not those that were written (sha256 differs)")
        return Saved(path=path, state=load_state(path), facts=facts)

    def newest_valid(self, accept: Callable[[Mapping[str, Any]], bool] = lambda facts: True) -> Search:
        """The newest checkpoint that is whole and whose sidecar is accepted, and what is wrong with newer ones."""
        search = Search()
        for _, path in sorted(self._files(), reverse=True):
            try:
                saved = self.read(path)
                if accept(saved.facts):
                    search.saved = saved
                    return search
                search.passed_over.append(f"{path.name} {PASSED_OVER}")
            except RunnerError as error:
                search.damaged.append(str(error))
                search.damaged_paths.append(path)
        return search

    def set_aside(self, paths: list[Path]) -> None:
        """Move damaged checkpoints to damaged/, where nothing takes them for newer than the valid one."""
        for path in paths:
            for file in (path, sidecar(path)):
                if file.exists():
                    target = self.folder / DAMAGED / file.name
                    target.parent.mkdir(exist_ok=True)
                    if target.is_dir():
                        shutil.rmtree(target)
                    os.replace(file, target)

    def clean(self) -> None:
        """Remove what a killed writer left, and repair its last rename. Only while nothing is being written."""
        for file in self.folder.glob(".step_*.json.*.tmp"):
            path = self.folder / (file.name.split(".json.")[0].lstrip(".") + ".pt")
            if self._completes(file, path):
                os.replace(file, sidecar(path))
        for file in self.folder.glob(".*.tmp"):
            file.unlink(missing_ok=True)

    def _completes(self, file: Path, path: Path) -> bool:
        """Whether a killed writer had renamed the state but not yet its sidecar."""
        try:
            facts = read_json(file)
            return path.is_file() and isinstance(facts, dict) and file_sha256(path) == facts.get("sha256")
        except RunnerError:
            return False

    def _facts(self, path: Path) -> Mapping[str, Any]:
        if not sidecar(path).is_file():
            raise RunnerError(f"{path.name}: no {sidecar(path).name} beside it: its writing was never completed")
        facts = read_json(sidecar(path))
        if not isinstance(facts, dict) or not {"schema_version", "size", "sha256", "step"} <= facts.keys():
            raise RunnerError(f"{sidecar(path).name}: not the sidecar of a checkpoint")
        if facts["schema_version"] != SCHEMA_VERSION:
            raise RunnerError(
                f"{sidecar(path).name}: schema_version {facts['schema_version']}, this code reads {SCHEMA_VERSION}; use the code of the run"
            )
        return facts

    def _files(self) -> list[tuple[int, Path]]:
        if not self.folder.is_dir():
            return []
        found = ((_NAME.fullmatch(name), name) for name in os.listdir(self.folder))
        return [(int(match[1]), self.folder / name) for match, name in found if match]

    def _retain(self, newest: int, best: int | None) -> None:
        steps = self.steps()
        kept = {newest, best, *steps[-self._keep_last :]}
        pointer = pointed(self.folder, BEST)
        for step in steps:
            if (
                step not in kept
                and self.path(step) != pointer
                and not (self._keep_every and step % self._keep_every == 0)
            ):
                sidecar(self.path(step)).unlink(missing_ok=True)
                self.path(step).unlink(missing_ok=True)

    @staticmethod
    def _temporary(path: Path) -> Path:
        return path.with_name(f".{path.name}.{os.getpid():x}.tmp")


def load_state(path: Path) -> dict[str, Any]:
    """The state in a checkpoint file, on the CPU; only tensors and plain values are read, never code.

    Raises:
        RunnerError: not a checkpoint of a Trainer.
    """
    try:
        with path.open("rb") as handle:
            state = torch.load(handle, map_location="cpu", weights_only=True)
    except Exception as error:
        raise RunnerError(f"{path.name}: torch cannot read it ({str(error).splitlines()[0][:120]})") from error
    if not isinstance(state, dict) or "progress" not in state or "model" not in state:
        raise RunnerError(f"{path.name}: not a checkpoint of a Trainer (a state with progress and model expected)")
    return state


def write_state(path: Path, state: dict[str, Any]) -> str:
    """Write and sync a state, return the file's sha256.

    Raises:
        OSError: it could not be written.
    """
    file = HashedFile(path)
    try:
        torch.save(state, file)  # type: ignore[arg-type]
        return file.finish()
    except RuntimeError:
        if file.error is not None:
            raise file.error from None
        raise
    finally:
        file.close()


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())


class _Background:
    """One call: in a thread of its own if it is long, else at once. hashlib lets go of the interpreter meanwhile."""

    def __init__(self, call: Callable[[], str], *, is_long: bool) -> None:
        self._call = call
        self._value = ""
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True) if is_long else None
        if self._thread is not None:
            self._thread.start()
        else:
            self._run()

    def _run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:
            self._error = error

    def result(self) -> str:
        """Wait for the call; its value, or its error raised here."""
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value
