"""JSON that hashes the same everywhere, and files that are complete or absent."""

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runner.contract.errors import RunnerError


def canonical_json(value: Any) -> bytes:
    """Encode `value` deterministically: same types and values, same bytes. NaN and infinity are refused (ValueError)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def sha256_of(value: Any) -> str:
    """The sha256 of `value`'s canonical JSON, 64 hex digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def pretty_json(value: Any) -> bytes:
    """Encode `value` for people: indented, in its own order, a newline at the end. NaN and infinity are refused."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        RunnerError: the file is not there or holds no JSON; the text names it.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RunnerError(f"{path}: not there") from None
    except ValueError as error:
        raise RunnerError(f"{path}: not JSON ({error})") from None


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success it is synced and renamed onto `path`, on any error removed.

    Readers see the old file or the whole new one. The file gets the mode that the umask gives to any new file
    (mkstemp's 0600 would hide it from the others of a shared root).
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes) -> None:
    """Write a whole file or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def publish_once(path: Path, content: bytes) -> bool:
    """Write `path` unless it exists already; of several writers the first wins. True if this call wrote it.

    link(2) refuses an existing name, which rename(2) would overwrite.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
