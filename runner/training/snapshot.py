"""The source of a run as files to import from: its inputs/source.tar, unpacked once a tree and checked at each use.

    <cache>/runner/trees/<tree id>/        below XDG_CACHE_HOME or ~/.cache; a temporary folder where that is read-only

A tree id is git's: the SHA-1 over every path, mode and byte. What is imported is what the manifest names, or nothing.
"""

import atexit
import hashlib
import os
import secrets
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from runner.contract.errors import RunnerError

_FILE, _EXECUTABLE, _LINK, _FOLDER = b"100644", b"100755", b"120000", b"40000"


def source_folder(archive: Path, tree: str) -> Path:
    """The folder with the files of `tree`, from the run's `archive`; whole and checked.

    Raises:
        RunnerError: the archive is gone, damaged, or of another tree.
    """
    cache = _trees()
    folder = cache / tree
    if folder.is_dir():
        if tree_id(folder) == tree:
            return folder
        folder.rename(cache / f".{tree}.{secrets.token_hex(4)}.damaged")
    temporary = cache / f".{tree}.{secrets.token_hex(4)}.tmp"
    try:
        _unpack(archive, temporary)
        found = tree_id(temporary)
        if found != tree:
            raise RunnerError(
                f"{archive}: holds source tree {found[:12]}, its manifest names {tree[:12]}: it was changed; "
                "get the run's own copy back"
            )
        _take(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _take(temporary: Path, folder: Path) -> None:
    """Rename into place; another process that was quicker has made the same."""
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def tree_id(folder: Path, *, ignore: str | None = None) -> str:
    """The git tree id of the files below `folder`, without what lies in folders of the name `ignore`."""
    ignored = b"" if ignore is None else ignore.encode()
    return _hash_folder(os.fsencode(folder), ignored) or _tree({})


def _hash_folder(folder: bytes, ignored: bytes) -> str | None:
    """The id of one folder; None for one without files, which git does not know."""
    entries: dict[bytes, tuple[bytes, str]] = {}
    with os.scandir(folder) as found:
        for item in found:
            if item.name == ignored:
                continue
            if item.is_symlink():
                entries[item.name] = _LINK, _blob(os.readlink(item.path))
            elif item.is_dir():
                inner = _hash_folder(item.path, ignored)
                if inner is not None:
                    entries[item.name] = _FOLDER, inner
            else:
                mode = _EXECUTABLE if item.stat().st_mode & 0o100 else _FILE
                with open(item.path, "rb") as handle:
                    entries[item.name] = mode, _blob(handle.read())
    return _tree(entries) if entries else None


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _tree(entries: Mapping[bytes, tuple[bytes, str]]) -> str:
    """Git sorts a folder as if its name ended with a slash."""
    names = sorted(entries, key=lambda name: name + b"/" if entries[name][0] == _FOLDER else name)
    body = b"".join(entries[name][0] + b" " + name + b"\0" + bytes.fromhex(entries[name][1]) for name in names)
    return hashlib.sha1(b"tree %d\0" % len(body) + body, usedforsecurity=False).hexdigest()


def _unpack(archive: Path, folder: Path) -> None:
    """Write the files of a source archive below `folder`, which is new. Links come last: nothing is written through one.

    Raises:
        RunnerError: it is not there, cut short, or holds anything but files and links below its root.
    """
    try:
        folder.mkdir(parents=True)
        with tarfile.open(archive, "r:") as tar:
            links = [member for member in _members(tar, archive) if not _write(tar, member, folder)]
        for link in links:
            target = folder / link.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(link.linkname)
    except FileNotFoundError:
        raise RunnerError(
            f"{archive}: not there; a run's code is in its inputs/, get the run's own copy back"
        ) from None
    except (tarfile.TarError, FileExistsError, EOFError) as error:
        raise RunnerError(
            f"{archive}: cannot be read as a source archive ({error}); get the run's own copy back"
        ) from None


def _members(tar: tarfile.TarFile, archive: Path) -> Iterable[tarfile.TarInfo]:
    for member in tar:
        parts = member.name.split("/")
        if not (member.isreg() or member.issym()) or any(part in ("", ".", "..") for part in parts):
            raise RunnerError(
                f"{archive}: holds {member.name!r}, which no source archive does; it was not made by runner"
            )
        yield member


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> bool:
    """Write a file; False for a link."""
    if member.issym():
        return False
    target = folder / member.name
    target.parent.mkdir(parents=True, exist_ok=True)
    reader = tar.extractfile(member)
    assert reader is not None
    with target.open("xb") as writer:
        shutil.copyfileobj(reader, writer)
    if member.mode & 0o100:
        target.chmod(0o755)
    return True


def _trees() -> Path:
    """Where trees are kept between processes; a folder of this process alone where nothing can be written."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(home).expanduser() / "runner" / "trees"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return _own_folder()


_own: list[Path] = []


def _own_folder() -> Path:
    if not _own:
        _own.append(Path(tempfile.mkdtemp(prefix="runner-trees-")))
        atexit.register(shutil.rmtree, _own[0], ignore_errors=True)
    return _own[0]
