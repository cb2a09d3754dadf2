"""Takes raw data out of what its authors offer: a folder, or an archive of files."""

import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from runner.inside.dataset.lists import DataError


def take(source: Path | None, folder: Path) -> None:
    """Copy the files of a folder, or unpack a tar or zip archive, into the empty `folder`, with the tree as it is there.

    Of an archive only files and folders are taken, and only such as stay below `folder`.

    Raises:
        DataError: it is neither, is cut short, or holds a name that leads elsewhere.
    """
    if source is None:
        raise DataError("raw: no source was given; name a folder or an archive with SOURCE=")
    if source.is_dir():
        shutil.copytree(source, folder, dirs_exist_ok=True, symlinks=True)
        return
    with _whole(source):
        if zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as packed:
                for info in packed.infolist():
                    if not info.is_dir():
                        with packed.open(info) as handle:
                            _write(handle, info.filename, folder, source)
        else:
            with tarfile.open(source, "r:*") as tar:
                for member in tar:
                    handle_or_none = tar.extractfile(member) if member.isfile() else None
                    if handle_or_none is not None:
                        with handle_or_none as handle:
                            _write(handle, member.name, folder, source)


def _write(handle: IO[bytes], name: str, folder: Path, source: Path) -> None:
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/"):
        raise DataError(f"{source}: holds the name {name!r}, which leads out of it; do not trust this archive")
    target = folder.joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as out:
        shutil.copyfileobj(handle, out, 1 << 20)


@contextmanager
def _whole(source: Path) -> Iterator[None]:
    """All that unpacking raises for a file that is no whole archive. A full disk is not the archive's fault."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = os.fsencode(str(error)).decode("utf-8", "backslashreplace").partition("\n")[0]
        raise DataError(f"{source}: not a whole tar or zip archive ({reason}); get it again") from None
