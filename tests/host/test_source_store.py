"""The store of trees: archives anybody's tar can read and nobody can abuse, exports verified, imports checked, diffs."""

import io
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.contract.errors import RunnerError
from runner.host.source import exports
from runner.host.source.archive import member_head, members
from runner.host.source.diff import Change, diff
from runner.host.source.exports import archive, export, import_archive, place_archive
from runner.host.source.policy import looks_secret
from runner.host.source.snapshot import snapshot
from runner.host.source.tree import EXECUTABLE, FILE, SYMLINK


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def house(tmp_path: Path) -> Path:
    folder = tmp_path / "house"
    write(folder / "a.py", "print(1)\n")
    write(folder / "runner/tool.sh", "#!/bin/sh\n").chmod(0o755)
    (folder / "link").symlink_to("runner/tool.sh")
    write(folder / ("long/" * 30 + "name.py"), "deep\n")
    return folder


def write(path: Path, content: str | bytes = "x\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# The policy


@pytest.mark.parametrize(
    "name",
    [".env", ".env.local", "sub/.env", ".ENV", "key.pem", "certs/server.PEM", "id_rsa", "id_rsa.old", "home/.ssh/config",
     ".netrc", ".pypirc", "credentials.json", "x/.aws/credentials", ".aws/credentials", ".docker/config.json", "kaggle.json",
     "new\nline/.env"],
)  # fmt: skip
def test_known_secret_names(name: str) -> None:
    assert looks_secret(name.encode())


@pytest.mark.parametrize(
    "name",
    [".env.example", ".env.template", ".env.sample", "environment.py", "env", "id_rsa.pub", "my_credentials.json.md",
     ".aws/config", "docker/config.json", "pem.py", "envs/.envs", "config.json", "aws/credentials"],
)  # fmt: skip
def test_harmless_names(name: str) -> None:
    assert not looks_secret(name.encode())


def test_secrets_and_large_files_are_refused_in_one_line(house: Path, cache: Path) -> None:
    write(house / ".env", "TOKEN=planted-secret-1")
    write(house / "keys/a.pem", "planted-secret-2")
    with (house / "weights.bin").open("wb") as handle:
        handle.truncate(120_000_000)
    subprocess.run(["git", "init", "-q"], cwd=house, check=True)
    subprocess.run(["git", "add", ".env"], cwd=house, check=True)
    with pytest.raises(RunnerError) as caught:
        snapshot(house, cache)
    text = str(caught.value)
    assert "\n" not in text
    assert (
        "secret would be kept with every run: .env, keys/a.pem; untracked files over 50 MB: weights.bin (120 MB)"
        in text
    )
    assert ".gitignore" in text and ".runnerignore" in text and "runner.yml" in text
    for path in cache.rglob("*"):
        assert not path.is_file() or b"planted-secret" not in path.read_bytes()

    source = snapshot(house, cache, allow=[".env", "keys/*", "weights.bin"])
    assert (export(source.tree, cache) / ".env").exists()
    with pytest.raises(RunnerError, match=r"every run: \.env, keys/a\.pem: leave"):
        snapshot(house, cache, allow=["weights.bin"])
    write(house / ".gitignore", "*.pem\n*.bin\n")
    write(house / ".runnerignore", ".env\n")
    assert snapshot(house, cache).files == 6
    subprocess.run(["git", "add", "-f", "weights.bin"], cwd=house, check=True)
    assert snapshot(house, cache).files == 7


def test_a_long_list_of_secrets_is_cut(house: Path, cache: Path) -> None:
    for number in range(30):
        write(house / f"{number:02}.pem")
    with pytest.raises(RunnerError, match=r"09\.pem and 20 more: leave"):
        snapshot(house, cache)


# The archive


def test_any_tar_reads_it_and_it_is_the_same_twice(house: Path, cache: Path, tmp_path: Path) -> None:
    tree = snapshot(house, cache).tree
    first = archive(tree, cache).read_bytes()
    shutil.rmtree(cache)
    os.utime(house / "a.py", (0, 0))
    snapshot(house, cache)
    path = archive(tree, cache)
    assert path.read_bytes() == first
    plain = tmp_path / "plain"
    plain.mkdir()
    subprocess.run(["tar", "xf", path, "-C", plain], check=True)
    subprocess.run(["diff", "-r", "--no-dereference", house, plain], check=True)
    with tarfile.open(path) as tar:
        assert {(m.uid, m.gid, m.mtime, m.uname, m.gname) for m in tar} == {(0, 0, 0, "", "")}
        assert tar.getnames() == sorted(tar.getnames())
        assert {m.name: m.mode for m in tar}["runner/tool.sh"] == 0o755


@pytest.mark.parametrize("size", [0, 1, 1 << 33, (1 << 33) - 1, 1 << 40])
@pytest.mark.parametrize("length", [1, 99, 100, 101, 255, 3000])
def test_headers_are_what_tarfile_writes(size: int, length: int) -> None:
    name = "n" * length
    for mode, bits in ((FILE, 0o644), (EXECUTABLE, 0o755)):
        info = tarfile.TarInfo(name)
        info.mode, info.size = bits, size
        assert member_head(name.encode(), mode, size) == info.tobuf(tarfile.GNU_FORMAT)
    info = tarfile.TarInfo("l")
    info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, name
    assert member_head(b"l", SYMLINK, 0, name.encode()) == info.tobuf(tarfile.GNU_FORMAT)


def hostile(*infos: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for info, content in infos:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()[: 512 * (2 * len(infos) + 2)] if infos and infos[0][1] else out.getvalue()


def info(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, target, mode
    return made


HOSTILE = {
    "traversal": [(info("../evil"), b"x")],
    "hidden traversal": [(info("a/../../evil"), b"x")],
    "absolute": [(info("/tmp/evil"), b"x")],
    "dot": [(info("./a"), b"x")],
    "double slash": [(info("a//b"), b"x")],
    "git": [(info(".git/hooks/post-checkout"), b"x")],
    "device": [(info("null", tarfile.CHRTYPE), b"")],
    "fifo": [(info("pipe", tarfile.FIFOTYPE), b"")],
    "hard link": [(info("hard", tarfile.LNKTYPE, "/etc/passwd"), b"")],
    "folder": [(info("d", tarfile.DIRTYPE, mode=0o755), b"")],
    "setuid": [(info("su", mode=0o4755), b"x")],
    "order": [(info("b"), b"x"), (info("a"), b"x")],
    "twice": [(info("a"), b"x"), (info("a"), b"y")],
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_refused(case: str, cache: Path, tmp_path: Path) -> None:
    tar = write(tmp_path / "source.tar", hostile(*HOSTILE[case]))
    before = sorted(path for path in tmp_path.rglob("*") if cache not in path.parents and path != cache)
    with pytest.raises(RunnerError, match=r"source\.tar: no source archive of ours: "):
        import_archive(tar, cache)
    assert sorted(path for path in tmp_path.rglob("*") if cache not in path.parents and path != cache) == before
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_writing_through_a_symlink_is_refused(cache: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    content = member_head(b"a", SYMLINK, 0, os.fsencode(victim)) + member_head(b"a/evil", FILE, 0) + bytes(1024)
    tar = write(tmp_path / "source.tar", content)
    with pytest.raises(RunnerError, match="lies below a file"):
        tree = import_archive(tar, cache)
        export(tree, cache)
    assert not list(victim.iterdir())


def test_every_cut_and_every_flipped_byte_is_noticed(house: Path, cache: Path, tmp_path: Path) -> None:
    shutil.rmtree(house / "long")
    tree = snapshot(house, cache).tree
    whole = archive(tree, cache).read_bytes()
    other = tmp_path / "other cache"
    for cut in range(0, len(whole), 256):
        tar = write(tmp_path / "source.tar", whole[:cut])
        with pytest.raises(RunnerError, match=r"source"):
            import_archive(tar, other, tree)
    content = {m.path: m for m in members(io.BytesIO(whole), Path("x"))}[b"a.py"].offset
    for position in (0, 50, 101, 124, 148, 156, 257, 400, content, content + 5, content + 100):
        flipped = bytearray(whole)
        flipped[position] ^= 1
        tar = write(tmp_path / "source.tar", bytes(flipped))
        with pytest.raises(
            RunnerError, match=r"source\.tar: (no source archive|holds source tree|no whole)|is damaged after it"
        ):
            import_archive(tar, other, tree)
    with pytest.raises(RunnerError, match="no whole source archive"):
        import_archive(write(tmp_path / "source.tar", whole + b"more"), other, tree)


def test_a_run_is_rebuilt_after_clone_and_cache_are_gone(house: Path, cache: Path, tmp_path: Path) -> None:
    source = snapshot(house, cache)
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    place_archive(source.tree, cache, inputs / "source.tar")
    original = tmp_path / "original"
    house.rename(original)
    shutil.rmtree(cache)
    with pytest.raises(RunnerError, match="is not in the cache any more: launch again"):
        export(source.tree, cache)
    assert import_archive(inputs / "source.tar", cache, source.tree) == source.tree
    subprocess.run(["diff", "-r", "--no-dereference", original, export(source.tree, cache)], check=True)
    assert import_archive(tmp_path / "nowhere", cache, source.tree) == source.tree
    with pytest.raises(RunnerError, match=f"holds source tree {source.tree}, expected {'0' * 40}"):
        import_archive(inputs / "source.tar", cache, "0" * 40)
    with pytest.raises(RunnerError, match="no source archive there"):
        import_archive(tmp_path / "nowhere", cache)


def test_runs_share_one_archive_by_hard_links(house: Path, cache: Path, tmp_path: Path) -> None:
    tree = snapshot(house, cache).tree
    targets = [tmp_path / "one.tar", tmp_path / "two.tar"]
    for target in targets:
        place_archive(tree, cache, target)
    assert {path.stat().st_ino for path in targets} == {archive(tree, cache).stat().st_ino}
    assert targets[0].stat().st_mode & 0o777 == 0o644
    with pytest.raises(RunnerError, match="File exists"):
        place_archive(tree, cache, targets[0])


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no second file system to copy to")
def test_across_file_systems_the_archive_is_copied(house: Path, cache: Path) -> None:
    tree = snapshot(house, cache).tree
    other = Path("/dev/shm") / f"source-{os.getpid()}"
    other.mkdir()
    try:
        place_archive(tree, cache, other / "source.tar")
        assert (other / "source.tar").read_bytes() == archive(tree, cache).read_bytes()
        assert [path.name for path in other.iterdir()] == ["source.tar"]
    finally:
        shutil.rmtree(other)


# The export


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
def test_modes_do_not_depend_on_the_umask(house: Path, cache: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        files = export(snapshot(house, cache).tree, cache)
    finally:
        os.umask(before)
    modes = {str(path.relative_to(files)): path.stat().st_mode & 0o7777 for path in files.rglob("*")}
    assert modes["a.py"] == 0o644
    assert modes["runner/tool.sh"] == modes["runner"] == 0o755
    assert files.stat().st_mode & 0o7777 == 0o755


DAMAGE: dict[str, Callable[[Path], object]] = {
    "byte": lambda files: write(files / "a.py", "print(2)\n"),
    "byte, time put back": lambda files: _quietly(files / "a.py", b"print(2)\n"),
    "mode": lambda files: (files / "a.py").chmod(0o755),
    "private": lambda files: (files / "a.py").chmod(0o600),
    "gone": lambda files: (files / "a.py").unlink(),
    "more": lambda files: write(files / "runner/more.py"),
    "more folders": lambda files: (files / "runner/empty").mkdir(),
    "link": lambda files: ((files / "link").unlink(), (files / "link").symlink_to("/etc/passwd")),
    "folder gone": lambda files: shutil.rmtree(files / "long"),
    "all gone": lambda files: shutil.rmtree(files),
}


def _quietly(path: Path, content: bytes) -> None:
    seen = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


@pytest.mark.parametrize("case", DAMAGE)
@pytest.mark.parametrize("archived", [True, False])
def test_a_damaged_export_is_made_anew_or_refused(case: str, archived: bool, house: Path, cache: Path) -> None:
    tree = snapshot(house, cache).tree
    files = export(tree, cache)
    if not archived:
        (files.parent / "source.tar").unlink()
    DAMAGE[case](files)
    if archived:
        again = export(tree, cache)
        assert again == files
        subprocess.run(["diff", "-r", "--no-dereference", house, again], check=True)
        assert (again / "a.py").stat().st_mode & 0o7777 == 0o644
        assert not (again / "runner/empty").exists()
    else:
        with pytest.raises(RunnerError, match="is not in the cache any more"):
            export(tree, cache)


def test_an_export_that_only_looks_different_stays(house: Path, cache: Path) -> None:
    tree = snapshot(house, cache).tree
    files = export(tree, cache)
    number = files.stat().st_ino
    os.utime(files / "a.py", (1, 1))
    assert export(tree, cache).stat().st_ino == number
    (files.parent / "files.look").unlink()
    assert export(tree, cache).stat().st_ino == number


def test_a_damaged_archive_is_rebuilt_from_the_export(house: Path, cache: Path) -> None:
    tree = snapshot(house, cache).tree
    export(tree, cache)
    path = archive(tree, cache)
    whole = path.read_bytes()
    for damage in (whole[:-700], b"", whole[:600] + b"!" + whole[601:]):
        path.write_bytes(damage)
        assert archive(tree, cache).read_bytes() == whole
    path.unlink()
    assert archive(tree, cache).read_bytes() == whole


def test_launching_again_mends_a_damaged_store(house: Path, cache: Path) -> None:
    tree = snapshot(house, cache).tree
    path = archive(tree, cache)
    number = path.stat().st_ino
    assert snapshot(house, cache).tree == tree
    assert path.stat().st_ino == number
    whole = path.read_bytes()
    path.write_bytes(b"damaged")
    assert snapshot(house, cache).tree == tree
    assert archive(tree, cache).read_bytes() == whole


def test_many_callers_at_once(house: Path, cache: Path) -> None:
    for number in range(200):
        write(house / f"pkg/{number}.py", str(number))
    found: list[tuple[str, Path]] = []

    def take() -> None:
        source = snapshot(house, cache)
        found.append((source.tree, export(source.tree, cache)))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1
    subprocess.run(["diff", "-r", "--no-dereference", house, found[0][1]], check=True)
    assert not [path.name for path in (cache / "source").rglob("*.tmp")]


@pytest.mark.parametrize("tree", ["../../etc", "", "a" * 39, "A" * 40, "a" * 40 + "\n"])
def test_a_tree_id_is_never_a_path(tree: str, cache: Path) -> None:
    for use in (export, archive):
        with pytest.raises(RunnerError, match="is no source tree id: expected 40 hex digits"):
            use(tree, cache)


def test_a_full_disk_is_one_line_and_leaves_nothing(house: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", small]).returncode != 0:
        pytest.skip("cannot mount a small file system")
    try:
        write(house / "big.txt", os.urandom(200_000))
        with pytest.raises(RunnerError, match=r"No space left on device.*CACHE_ROOT"):
            snapshot(house, small / "cache")
        assert not list((small / "cache/source/trees").iterdir())
        assert exports.has_archive("0" * 40, small) is False
    finally:
        subprocess.run(["umount", small], check=True)


# The difference


def test_a_diff_names_what_changed(house: Path, cache: Path) -> None:
    write(house / "data.bin", b"\0\1")
    write(house / "gone.py", "bye")
    write(house / "same.py")
    before = snapshot(house, cache).tree
    write(house / "a.py", "print(2)\nprint(3)")
    write(house / "data.bin", b"\0\2")
    (house / "gone.py").unlink()
    write(house / "new file.py", "hello\n")
    (house / "runner/tool.sh").chmod(0o644)
    (house / "link").unlink()
    (house / "link").symlink_to("a.py")
    found = diff(before, snapshot(house, cache).tree, cache)
    assert found.changes == (
        Change(path="a.py", kind="modified"),
        Change(path="data.bin", kind="modified"),
        Change(path="gone.py", kind="removed"),
        Change(path="link", kind="modified"),
        Change(path="new file.py", kind="added"),
        Change(path="runner/tool.sh", kind="mode"),
    )
    assert (
        "--- a/a.py\n+++ b/a.py\n@@ -1 +1,2 @@\n-print(1)\n+print(2)\n+print(3)\n\\ No newline at end of file\n"
        in found.text
    )
    assert "a/data.bin and b/data.bin differ: binary or large, 2 bytes and 2 bytes\n" in found.text
    assert "--- a/gone.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-bye\n\\ No newline at end of file\n" in found.text
    assert "--- /dev/null\n+++ b/new file.py\n@@ -0,0 +1 @@\n+hello\n" in found.text
    assert "diff a/runner/tool.sh b/runner/tool.sh\nold mode 100755\nnew mode 100644\n" in found.text
    assert "same.py" not in found.text
    assert diff(before, before, cache).changes == ()
    assert "TWO" not in found.text
