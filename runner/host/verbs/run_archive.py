"""One run as one file: a plain tar, the same bytes for the same content.

    runner-export.json      what it holds: the run, and size and sha256 of every member below
    runner-export.sha256    the sha256 of that page
    run/…                   the run folder
    models/<name>/<version>/…  the released models that it began with
    wheels/…                the wheels of its locks
    image.tar               its image, as the engine saves it

Reading is strict: the members are exactly those of the page, in its order, plain files with names below the root.
"""

import hashlib
import io
import json
import os
import secrets
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from runner.contract.errors import RunnerError
from runner.contract.jsonio import file_sha256, pretty_json
from runner.contract.names import check_name

PAGE, PAGE_SHA256 = "runner-export.json", "runner-export.sha256"
RUN, MODELS, WHEELS, IMAGE = "run/", "models/", "wheels/", "image.tar"
SCHEMA_VERSION = 1
_LARGEST_PAGE = 64 << 20
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Item:
    """One file of an archive."""

    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """What an archive says of itself."""

    run: str
    project: str
    dataset: str
    """The folder between project and run; no-dataset for none."""
    items: Mapping[str, Item]
    """By name, in the order of the archive."""
    empty_folders: tuple[str, ...] = ()
    """Of the run folder."""
    image_id: str | None = None
    image_tag: str | None = None
    schema_version: int = field(default=SCHEMA_VERSION)

    def to_bytes(self) -> bytes:
        """The page as it is written."""
        items = {name: {"size": item.size, "sha256": item.sha256} for name, item in self.items.items()}
        return pretty_json({**vars(self), "items": items, "empty_folders": list(self.empty_folders)})


def item_of(path: Path) -> Item:
    """The size and hash of a file."""
    return Item(size=path.stat().st_size, sha256=file_sha256(path))


def write_archive(target: Path, page: Page, sources: Mapping[str, Path]) -> None:
    """Write `page` and its items, each from the file that `sources` names, to `target`.

    Raises:
        RunnerError: a file changed since the page was made.
    """
    content = page.to_bytes()
    with tarfile.open(target, "x:", format=tarfile.GNU_FORMAT) as tar:
        _add(tar, PAGE, len(content), io.BytesIO(content))
        digest = hashlib.sha256(content).hexdigest().encode() + b"\n"
        _add(tar, PAGE_SHA256, len(digest), io.BytesIO(digest))
        for name, item in page.items.items():
            with sources[name].open("rb") as handle:
                reader = Hashed(handle)
                try:
                    _add(tar, name, item.size, reader)
                except OSError as error:
                    if error.errno is not None:
                        raise
                    reader.cut = True  # tarfile's word for a file that has become shorter
            if reader.cut or reader.hexdigest() != item.sha256 or handle_has_grown(sources[name], item.size):
                raise RunnerError(f"{sources[name]}: changed while it was exported; does somebody still write there?")


def handle_has_grown(path: Path, size: int) -> bool:
    """Whether a file is not of this size any more."""
    return path.stat().st_size != size


def _add(tar: tarfile.TarFile, name: str, size: int, reader: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    tar.addfile(member, reader)


class Hashed:
    """A reader that hashes what passes through."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self._digest = hashlib.sha256()
        self.cut = False

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        content = self._handle.read(size)
        self._digest.update(content)
        return content

    def hexdigest(self) -> str:
        """Of all that was read."""
        return self._digest.hexdigest()


class Archive:
    """An archive that is open for reading."""

    def __init__(self, path: Path, tar: tarfile.TarFile) -> None:
        self.path = path
        self._tar = tar
        self.page = self._read_page()

    def verify(self) -> None:
        """Read every byte and compare it with the page.

        Raises:
            RunnerError: something is missing, added, cut short or changed; it is named.
        """
        with _plainly(self.path):
            expected = list(self.page.items)
            for position, member in enumerate(self._tar.getmembers()[2:]):
                if position >= len(expected) or member.name != expected[position] or not member.isreg():
                    raise RunnerError(f"{self.path}: holds {member.name!r}, which its page does not name there")
            found = len(self._tar.getmembers()) - 2
            if found != len(expected):
                raise RunnerError(f"{self.path}: ends before {expected[found]!r}; copy it again")
            for name in expected:
                for _ in self.read(name):
                    pass

    def read(self, name: str) -> Iterator[bytes]:
        """The bytes of one item, in pieces; an error at their end if they are not what the page says."""
        with _plainly(self.path):
            item, digest, size = self.page.items[name], hashlib.sha256(), 0
            reader = self._tar.extractfile(name)
            assert reader is not None
            while content := reader.read(_CHUNK):
                digest.update(content)
                size += len(content)
                yield content
            if size != item.size or digest.hexdigest() != item.sha256:
                raise RunnerError(f"{self.path}: {name} is damaged; copy the archive again")

    def extract(self, name: str, target: Path) -> None:
        """Write one item to a new file, safe from a power cut."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as handle:
            for piece in self.read(name):
                handle.write(piece)
            handle.flush()
            os.fsync(handle.fileno())

    def _read_page(self) -> Page:
        with _plainly(self.path):
            content, digest = (self._small(name) for name in (PAGE, PAGE_SHA256))
            if hashlib.sha256(content).hexdigest().encode() + b"\n" != digest:
                raise RunnerError(f"{self.path}: its first page is damaged; copy the archive again")
            return _page_of(json.loads(content), self.path)

    def _small(self, name: str) -> bytes:
        member = self._tar.next()
        if member is None or member.name != name or not member.isreg() or member.size > _LARGEST_PAGE:
            raise RunnerError(f"{self.path}: not an export of a run (no {name} at its beginning)")
        reader = self._tar.extractfile(member)
        assert reader is not None
        return reader.read()


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """An archive of `make export`.

    Raises:
        RunnerError: not there, or not one.
    """
    if not path.is_file():
        raise RunnerError(f"FILE={str(path)!r}: not there; `make export RUN= FILE=` makes one")
    with _plainly(path):
        tar = tarfile.open(path, "r:")  # noqa: SIM115
    with tar:
        yield Archive(path, tar)


@contextmanager
def beside(parent: Path, name: str) -> Iterator[Path]:
    """A hidden folder in `parent` that becomes `name` when it is complete, or nothing."""
    temporary = parent / f".{name}.{secrets.token_hex(4)}.importing"
    temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _plainly(path: Path) -> Iterator[None]:
    """Turn what tarfile and json say of a broken file into one line."""
    try:
        yield
    except (tarfile.TarError, EOFError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise RunnerError(f"{path}: cannot be read as an export of a run ({error}); copy the archive again") from None


def _page_of(value: dict[str, Any], path: Path) -> Page:
    """The page as a value, its names checked: they become paths."""
    version = value["schema_version"]
    if version != SCHEMA_VERSION:
        raise RunnerError(f"{path}: schema_version {version}, this runner reads {SCHEMA_VERSION}; update this checkout")
    page = Page(
        run=check_name("run", value["run"]),
        project=check_name("project", value["project"]),
        dataset=check_name("dataset", value["dataset"]),
        items={name: Item(size=int(one["size"]), sha256=str(one["sha256"])) for name, one in value["items"].items()},
        empty_folders=tuple(value["empty_folders"]),
        image_id=value.get("image_id"),
        image_tag=value.get("image_tag"),
    )
    for name in (*page.items, *(RUN + folder for folder in page.empty_folders)):
        parts = PurePosixPath(name).parts
        plain = name == "/".join(parts) and not any(part in ("", ".", "..") or "\0" in part for part in parts)
        known = name == IMAGE or (len(parts) > 1 and f"{parts[0]}/" in (RUN, WHEELS)) or _is_of_model(parts)
        if not plain or not known:
            raise RunnerError(f"{path}: names {name!r}, which is no file of a run; it was not made by `make export`")
    return page


def _is_of_model(parts: tuple[str, ...]) -> bool:
    """models/<name>/<version>/<file>, none of them hidden."""
    return len(parts) == 4 and f"{parts[0]}/" == MODELS and not any(part.startswith(".") for part in parts)
