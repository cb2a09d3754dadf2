"""A data folder's identity: bytes and paths, followed symlinks, refused strangers, and a cache that cannot lie."""

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.contract import hashing
from runner.contract.errors import RunnerError
from runner.contract.fingerprint import Fingerprint, fingerprint
from runner.contract.listing import Difference, compare, read_listing, write_listing

COREUTILS = r"find -L . -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum -z -- | sha256sum"
OLD = 1_600_000_000


def fill(root: Path, count: int = 30) -> Path:
    """Files with awkward names, none of them changed lately as far as mtime says."""
    for number in range(count):
        path = root / f"class {number % 3}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number % 256]) * number * 50)
    names = [b"a", b"a.txt", b"a-", b"A", b"new\nline", b"not utf8 \xff", b"'quote\"", b"\xc3\xa9", b"-dash"]
    for name in names:
        with open(os.fsencode(root) + b"/" + name, "wb") as handle:
            handle.write(name)
    (root / "a!").mkdir()
    (root / "a!" / "b").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Filled folders that no longer count as just changed: no program can set a ctime, so all wait together."""
    made = [fill(tmp_path_factory.mktemp("settled") / "raw") for _ in range(12)]
    time.sleep(2.1)
    return iter(made)


@pytest.fixture
def settled(roots: Iterator[Path]) -> Path:
    """A filled folder of this test's own."""
    return next(roots)


def by_coreutils(root: Path) -> str:
    return subprocess.run(["sh", "-c", COREUTILS], cwd=root, check=True, capture_output=True, text=True).stdout.split()[
        0
    ]


def refused(root: Path) -> str:
    with pytest.raises(RunnerError) as caught:
        fingerprint(root)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(root), "ROOT")


def test_it_is_what_coreutils_say(tmp_path: Path) -> None:
    root = fill(tmp_path / "raw")
    found = fingerprint(root)
    assert found.sha256 == by_coreutils(root)
    assert (found.files, found.cached) == (40, 0)
    assert found.bytes == sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    assert len(found.modes_sha256) == 64


def test_many_files_are_hashed_by_several_processes_to_the_same(tmp_path: Path) -> None:
    root = fill(tmp_path / "raw", hashing._ALONE + 500)
    (root / "large").write_bytes(os.urandom(3 * 2**20))
    seen: list[tuple[int, int]] = []
    found = fingerprint(root, progress=lambda done, total: seen.append((done, total)))
    assert found.sha256 == by_coreutils(root)
    assert {total for _, total in seen} == {found.bytes}
    assert max(done for done, _ in seen) <= found.bytes


def test_an_empty_folder_has_a_fingerprint(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (tmp_path / "raw" / "nothing").mkdir(parents=True)
    for _ in range(2):
        found = fingerprint(tmp_path / "raw", cache=cache)
        assert (found.files, found.bytes) == (0, 0)
        assert found.sha256 == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_names_bytes_and_modes_count_and_times_do_not(tmp_path: Path) -> None:
    root = fill(tmp_path / "raw")
    first = fingerprint(root)
    os.utime(root / "a", (OLD, OLD))
    (root / "empty").mkdir()
    assert fingerprint(root) == first
    os.chmod(root / "a", 0o700)
    after_mode = fingerprint(root)
    assert after_mode.sha256 == first.sha256
    assert after_mode.modes_sha256 != first.modes_sha256
    (root / "a").rename(root / "b")
    renamed = fingerprint(root)
    assert renamed.sha256 != first.sha256
    (root / "b").rename(root / "a")
    (root / "a").write_bytes(b"b")
    assert fingerprint(root).sha256 not in (first.sha256, renamed.sha256)


def test_the_root_may_be_a_symlink_to_another_disk(tmp_path: Path) -> None:
    root = fill(tmp_path / "elsewhere")
    (tmp_path / "raw").symlink_to(root)
    assert fingerprint(tmp_path / "raw") == fingerprint(root)


def test_symlinks_inside_count_as_what_they_point_to(tmp_path: Path) -> None:
    root = fill(tmp_path / "raw")
    (root / "link").symlink_to("class 0/000.png")
    (root / "class 1" / "up").symlink_to("../a")
    (root / "z").symlink_to("class 2")
    found = fingerprint(root)
    assert found.sha256 == by_coreutils(root)
    assert found.files == 42 + 10
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    assert fingerprint(copy).sha256 == found.sha256


def test_symlinks_that_would_dangle_in_a_container_are_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("x")
    root = tmp_path / "raw"
    advice = "make it relative to what is inside, or copy the file"

    def link(target: str | Path) -> str:
        shutil.rmtree(root, ignore_errors=True)
        fill(root, 3)
        (root / "class 0" / "bad").symlink_to(target)
        return refused(root)

    name = "ROOT/class 0/bad: is a symlink to"
    assert link("gone.png") == f"{name} gone.png, which is not there"
    assert link("../../outside") == f"{name} ../../outside, which leads out of the folder; {advice}"
    assert link(outside) == f"{name} {outside}, which leads out of the folder; {advice}"
    assert link(root / "a") == f"{name} ROOT/a, which leads out of the folder; {advice}"
    assert link("../../raw/a") == f"{name} ../../raw/a, which leads out of the folder; {advice}"
    assert link("bad") == f"{name} bad, which cannot be followed (Too many levels of symbolic links)"
    assert link("..") == "ROOT/class 0/bad: is a symlink that leads back to a folder it is in"


def test_strangers_are_refused_by_name(tmp_path: Path) -> None:
    root = fill(tmp_path / "raw", 3)
    os.mkfifo(root / "pipe")
    assert refused(root) == "ROOT/pipe: is no file, folder or symlink (a socket, pipe or device); take it away"
    (root / "pipe").unlink()
    (root / "link").symlink_to("class 0/socket")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(root / "class 0")
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
        assert refused(root).startswith("ROOT/class 0/socket: is no file, folder or symlink")


def test_a_root_that_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert refused(tmp_path / "file") == "ROOT: not a folder"
    assert refused(tmp_path / "gone") == "ROOT: not there, or files vanished while it was read"


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_unreadable_files_are_named(tmp_path: Path) -> None:
    root = fill(tmp_path / "raw", 3)
    (root / "a").chmod(0)
    assert refused(root) == "ROOT/a: cannot be read (Permission denied)"


def test_unchanged_files_are_answered_from_the_cache(settled: Path, tmp_path: Path) -> None:
    root, cache = settled, tmp_path / "cache"
    first = fingerprint(root, cache=cache)
    assert first.cached == 0
    second = fingerprint(root, cache=cache)
    assert second.cached == second.files == first.files
    assert (second.sha256, second.modes_sha256, second.bytes) == (first.sha256, first.modes_sha256, first.bytes)
    assert compare(first.listing, second.listing) == Difference()
    assert fingerprint(root, cache=cache, full=True).cached == 0


def test_what_changed_is_read_again_and_the_rest_is_not(settled: Path, tmp_path: Path) -> None:
    root, cache = settled, tmp_path / "cache"
    first = fingerprint(root, cache=cache)
    kept = root.joinpath("class 1", "001.png").stat()
    root.joinpath("class 1", "001.png").write_bytes(b"y" * kept.st_size)  # the same size …
    os.utime(root / "class 1" / "001.png", ns=(kept.st_atime_ns, kept.st_mtime_ns))  # … and the same mtime
    (root / "a").unlink()
    (root / "brand new").write_bytes(b"1")
    os.chmod(root / "A", 0o711)
    found = fingerprint(root, cache=cache)
    assert found.sha256 == fingerprint(root).sha256 == by_coreutils(root)
    assert found.cached == first.files - 3
    assert compare(first.listing, found.listing) == Difference(
        added=("brand new",), removed=("a",), changed=("class 1/001.png",), mode_changed=("A",)
    )


def test_a_mode_that_changed_is_seen_though_the_bytes_come_from_the_cache(settled: Path, tmp_path: Path) -> None:
    root, cache = settled, tmp_path / "cache"
    first = fingerprint(root, cache=cache)
    os.chmod(root / "a", 0o640)
    second = fingerprint(root, cache=cache)
    assert second.sha256 == first.sha256
    assert second.modes_sha256 != first.modes_sha256


def test_files_that_were_just_written_are_not_trusted(tmp_path: Path) -> None:
    root, cache = tmp_path / "raw", tmp_path / "cache"
    root.mkdir()
    (root / "a").write_bytes(b"1")
    fingerprint(root, cache=cache)
    assert fingerprint(root, cache=cache).cached == 0


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "older"])
def test_a_damaged_cache_is_ignored(settled: Path, tmp_path: Path, damage: str) -> None:
    root, cache = settled, tmp_path / "cache"
    first = fingerprint(root, cache=cache)
    (file,) = cache.iterdir()
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        content[-1] ^= 1
    damaged = {
        "cut": content[:100],
        "flipped": content,
        "empty": b"",
        "text": b"{}",
        "older": b"runner fingerprint cache 0\n",
    }
    file.write_bytes(damaged[damage])
    again = fingerprint(root, cache=cache)
    assert (again.sha256, again.cached) == (first.sha256, 0)
    assert fingerprint(root, cache=cache).cached == first.files


def test_a_cache_that_cannot_be_written_does_not_matter(tmp_path: Path) -> None:
    root = fill(tmp_path / "raw")
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert fingerprint(root, cache=tmp_path / "cache") == fingerprint(root)


def test_several_at_once_agree_and_leave_one_good_cache(settled: Path, tmp_path: Path) -> None:
    root, cache = settled, tmp_path / "cache"
    found: list[Fingerprint] = []
    threads = [
        threading.Thread(target=lambda: found.append(fingerprint(root, cache=cache, full=True))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert {one.sha256 for one in found} == {fingerprint(root).sha256}
    assert len(list(cache.iterdir())) == 1
    assert fingerprint(root, cache=cache).cached == found[0].files


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    root.mkdir()
    (root / "growing").write_bytes(b"x" * 40_000_000)
    stop = threading.Event()

    def write() -> None:
        with (root / "growing").open("ab", buffering=0) as handle:
            while not stop.is_set():
                handle.write(b"x")
                time.sleep(0.0005)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert refused(root) == "ROOT/growing: changed while it was being read; wait until nothing writes to it"
    finally:
        stop.set()
        writer.join()


@pytest.mark.parametrize("name", ["files.tsv", "files.tsv.gz"])
def test_a_listing_is_stored_and_read_back(tmp_path: Path, name: str) -> None:
    root = fill(tmp_path / "raw")
    os.chmod(root / "a", 0o600)
    listing = fingerprint(root).listing
    path = tmp_path / name
    write_listing(path, listing)
    again = read_listing(path)
    assert again == listing
    assert [entry.path for entry in again] == [entry.path for entry in listing]
    assert compare(listing, again) == Difference()
    assert not compare(listing, again)
    before = path.read_bytes()
    write_listing(path, again)
    assert path.read_bytes() == before
    entry = next(entry for entry in again if entry.path == "a")
    assert (entry.size, entry.mode) == (1, 0o600)
    assert entry.sha256 == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"


def test_a_bad_listing_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "files.tsv"
    path.write_text("00" * 32 + '\t1\t0644\t"a"\nnonsense\n')
    with pytest.raises(RunnerError, match=r"files\.tsv:2: not a listing of files"):
        read_listing(path)
    (tmp_path / "cut.gz").write_bytes(b"\x1f\x8b\x08\0")
    with pytest.raises(RunnerError, match=r"cut\.gz:1: not a listing of files"):
        read_listing(tmp_path / "cut.gz")
    with pytest.raises(RunnerError, match=r"gone\.tsv: not there"):
        read_listing(tmp_path / "gone.tsv")
