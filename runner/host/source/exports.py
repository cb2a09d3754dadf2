"""The store of source trees under the cache: each tree once, as source.tar and as plain files to mount.

    <cache>/source/trees/<tree id>/source.tar   what a run keeps in inputs/
                                   files/       the same, unpacked: complete or absent

The cache may be deleted at any time; whatever is found damaged is rebuilt from the other form or refused by name.
"""

import errno
import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runner.contract.errors import RunnerError
from runner.contract.jsonio import sync_folder
from runner.host.source.archive import Changed, pack, unpack, verify
from runner.host.source.tree import Entry, LookTable, git_mode, look, tree_ids

ARCHIVE = "source.tar"
_FILES = "files"
_FILES_LOOK = "files.look"
_ARCHIVE_LOOK = "source.tar.json"


class Discard:
    """A sink: hashing is packing without keeping."""

    def write(self, content: bytes, /) -> int:
        """Take it all, keep nothing."""
        return len(content)


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn what the file system refuses into one line that names the file and what to do."""
    try:
        yield
    except OSError as error:
        where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "the cache"
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "free some space or set CACHE_ROOT to another disk" if full else "see that it can be read and written"
        raise RunnerError(f"{what}: {error.strerror or error} ({where!r}): {advice}") from error


def trees_folder(cache: Path) -> Path:
    """Where the trees lie; made if it is missing."""
    folder = cache / "source" / "trees"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def tree_files(tree: str, cache: Path) -> Path:
    """Where the files of a tree lie once they are exported; nothing is made."""
    return cache / "source" / "trees" / tree / "files"


def has_archive(tree: str, cache: Path) -> bool:
    """Whether the store has this tree's archive, looking as it was written."""
    return _is_recorded(cache / "source" / "trees" / tree)


def keep_archive(temporary: Path, tree: str, cache: Path) -> None:
    """Take a finished archive of `tree` into the store; `temporary` lies in `trees_folder` and is gone afterwards."""
    with _locked(tree, cache) as folder:
        if _is_recorded(folder):
            temporary.unlink()
            return
        temporary.chmod(0o644)
        os.replace(temporary, folder / ARCHIVE)
        _record_archive(folder, synced=False)


def archive(tree: str, cache: Path) -> Path:
    """The path of the tree's source.tar, known to be whole and synced to disk. For hard links: never write to it.

    Raises:
        RunnerError: the store has it neither as an archive nor as files.
    """
    with disk_errors("source archive"), _locked(tree, cache) as folder:
        _ensure_archive(tree, folder)
        return folder / ARCHIVE


def place_archive(tree: str, cache: Path, target: Path) -> None:
    """Put the tree's source.tar at `target`, as a hard link where the file system allows one, else as a copy."""
    source = archive(tree, cache)
    with disk_errors("source archive"):
        link_or_copy(source, target)


def link_or_copy(source: Path, target: Path) -> None:
    """Put a file that never changes at `target`: a hard link where the file system allows one, else a copy, complete or
    absent. OSError where it cannot be done.
    """
    try:
        if source.stat().st_uid != os.getuid():  # of a cache that people share: a link would stay its maker's
            raise PermissionError(errno.EPERM, "not ours")
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EACCES):
            raise
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        try:
            with source.open("rb") as reader, temporary.open("xb") as writer:
                shutil.copyfileobj(reader, writer, 1 << 20)
                writer.flush()
                os.fsync(writer.fileno())
            os.rename(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def export(tree: str, cache: Path) -> Path:
    """The folder that holds the tree's files, just verified: mount it read-only. Several callers at once are safe.

    Every file is looked at (size, times, inode, mode); where one differs all bytes are read again, and a damaged export
    is put aside under another name (a container may still use it) and made anew.

    Raises:
        RunnerError: the store has the tree no longer; take it back with `import_archive`.
    """
    with disk_errors("source export"), _locked(tree, cache) as folder:
        files = folder / _FILES
        if not _is_intact(tree, folder):
            if files.exists():
                files.rename(folder / f"{_FILES}.damaged.{secrets.token_hex(4)}")
            _ensure_archive(tree, folder)
            _unpack(tree, folder)
        return files


def import_archive(tar: Path, cache: Path, expected: str | None = None) -> str:
    """Take a run's source.tar back into the store, every byte checked before anything is kept; its tree id.

    Raises:
        RunnerError: it is not there, damaged, not a source archive, or not of the `expected` tree.
    """
    if expected is not None and has_archive(_checked(expected), cache):
        with suppress(RunnerError):
            archive(expected, cache)
            return expected
    if not tar.is_file():
        raise RunnerError(f"{tar}: no source archive there: it is one of the files of a run's inputs/")
    with disk_errors("source import"):
        temporary = trees_folder(cache) / f".{secrets.token_hex(8)}.tmp"
        try:
            shutil.copyfile(tar, temporary)
            with temporary.open("rb") as handle:
                tree = tree_ids(verify(handle, tar))[b""]
            if expected is not None and tree != expected:
                raise RunnerError(
                    f"{tar}: holds source tree {tree}, expected {expected}: it was changed; get the run's own copy back"
                )
            keep_archive(temporary, tree, cache)
        finally:
            temporary.unlink(missing_ok=True)
    return tree


def _checked(tree: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{40}", tree):
        raise RunnerError(f"{tree!r} is no source tree id: expected 40 hex digits")
    return tree


@contextmanager
def _locked(tree: str, cache: Path) -> Iterator[Path]:
    """The tree's folder, made if need be, for this process and thread alone."""
    folder = trees_folder(cache) / _checked(tree)
    folder.mkdir(exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(descriptor)


def _archive_look(folder: Path) -> list[int]:
    seen = (folder / ARCHIVE).stat()
    return [seen.st_size, seen.st_mtime_ns, seen.st_ino]


def _is_recorded(folder: Path, *, synced: bool = False) -> bool:
    """Whether the archive is there and looks as it did when it was written (and `synced`)."""
    try:
        record = json.loads((folder / _ARCHIVE_LOOK).read_bytes())
        return bool(record["look"] == _archive_look(folder) and record["synced"] >= synced)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


def _record_archive(folder: Path, *, synced: bool) -> None:
    temporary = folder / f".{_ARCHIVE_LOOK}.tmp"
    temporary.write_text(json.dumps({"schema_version": 1, "look": _archive_look(folder), "synced": synced}))
    os.replace(temporary, folder / _ARCHIVE_LOOK)


def _ensure_archive(tree: str, folder: Path) -> None:
    """See that the archive is there and whole, from the files if need be. Hard links change ctime: not compared."""
    path = folder / ARCHIVE
    if _is_recorded(folder, synced=True):
        return
    if not _is_recorded(folder) and not _archive_holds(tree, path):
        path.unlink(missing_ok=True)
        if not _is_intact(tree, folder):
            raise RunnerError(
                f"source tree {tree[:12]} is not in the cache any more: launch again from the repository, "
                "or name a run that has it in its inputs/"
            )
        _repack(folder)
    _sync(path)
    _record_archive(folder, synced=True)


def _archive_holds(tree: str, path: Path) -> bool:
    try:
        with path.open("rb") as handle:
            return tree_ids(verify(handle, path))[b""] == tree
    except (FileNotFoundError, RunnerError):
        return False


def _repack(folder: Path) -> None:
    temporary = folder / f".{ARCHIVE}.tmp"
    files = os.fsencode(folder / _FILES)
    with temporary.open("wb") as handle:
        pack(files, _walk(files)[0], handle)
    temporary.chmod(0o644)
    os.replace(temporary, folder / ARCHIVE)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(path.parent)


def _unpack(tree: str, folder: Path) -> None:
    temporary = folder / f".{_FILES}.{secrets.token_hex(4)}.tmp"
    try:
        temporary.mkdir()
        temporary.chmod(0o755)
        with (folder / ARCHIVE).open("rb") as handle:
            entries = unpack(handle, folder / ARCHIVE, os.fsencode(temporary))
        if tree_ids(entries)[b""] != tree:
            raise RunnerError(f"{folder / ARCHIVE} does not hold its tree: delete {folder} and launch again")
        temporary.rename(folder / _FILES)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _record_files(folder, entries)


def _record_files(folder: Path, entries: list[Entry]) -> None:
    """Remember what the export looks like, its folders too: theirs change when a name comes or goes."""
    parents = {b"."} | {path for path in tree_ids(entries) if path}
    names = [*(entry.path for entry in entries), *parents]
    looks = look(os.fsencode(folder / _FILES), names)
    oids = {entry.path: entry.oid for entry in entries} | {path: b"0" * 40 for path in parents}
    LookTable(looks, oids, {}).save(folder / _FILES_LOOK)


def _is_intact(tree: str, folder: Path) -> bool:
    """Whether the export is there and holds exactly its tree; bytes are read only where something looks different."""
    files = os.fsencode(folder / _FILES)
    if not os.path.isdir(files):
        return False
    table = LookTable.load(folder / _FILES_LOOK)
    if table is not None and table.looks and look(files, table.looks) == table.looks:
        return True
    names, folders, plain = _walk(files)
    try:
        entries = pack(files, names, Discard())
    except (Changed, RunnerError):
        return False
    ids = tree_ids(entries)
    if not plain or ids[b""] != tree or set(ids) != folders:
        return False
    _record_files(folder, entries)
    return True


def _walk(files: bytes) -> tuple[list[bytes], set[bytes], bool]:
    """The files and folders below an export, and whether all their modes are the plain ones."""
    names: list[bytes] = []
    folders = {b""}
    plain = True
    waiting = [b""]
    while waiting:
        here = waiting.pop()
        with os.scandir(files + b"/" + here) as found:
            for item in found:
                path = here + b"/" + item.name if here else item.name
                mode = item.stat(follow_symlinks=False).st_mode
                if item.is_dir(follow_symlinks=False):
                    folders.add(path)
                    waiting.append(path)
                else:
                    names.append(path)
                    if item.is_symlink():
                        continue
                kind = 0o755 if item.is_dir(follow_symlinks=False) or mode & 0o100 else 0o644
                plain = plain and mode & 0o7777 == kind and (path in folders or git_mode(mode) is not None)
    return names, folders, plain
