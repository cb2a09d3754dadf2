"""Snapshots of real repositories and folders: what is in them is what stands in the working tree, byte for byte."""

import hashlib
import os
import random
import shutil
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.contract.errors import RunnerError
from runner.host.source.exports import export
from runner.host.source.files import public_url
from runner.host.source.snapshot import Source, snapshot

Git = Callable[..., str]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def house(tmp_path: Path) -> Path:
    folder = tmp_path / "my house"
    folder.mkdir()
    return folder


@pytest.fixture
def git(house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """Git for making repositories, with an empty home and no identity of its own."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)

    def run(*arguments: str | Path, cwd: Path = house, **environment: str) -> str:
        identity = ("-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")
        safe = ("-c", "protocol.file.allow=always", "-c", "safe.directory=*")
        done = subprocess.run(
            ["git", *identity, *safe, *arguments], cwd=cwd, capture_output=True, env={**os.environ, **environment}
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode("utf-8", "surrogateescape").strip()

    return run


def write(path: Path, content: str | bytes = "x\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def listing(folder: Path, *leave_out: str) -> dict[bytes, tuple[str, bytes]]:
    """Every file below a folder: kind and bytes. `.git`, whatever it is, is left out, and so are the named paths."""
    found = {}
    root = os.fsencode(folder)
    for here, folders, names in os.walk(root):
        relative = os.path.relpath(here, root)
        for name in [*names, *(f for f in folders if os.path.islink(os.path.join(here, f)))]:
            path = os.path.normpath(os.path.join(relative, name))
            full = os.path.join(here, name)
            mode = os.lstat(full).st_mode
            if stat.S_ISLNK(mode):
                found[path] = ("link", os.readlink(full))
            elif stat.S_ISREG(mode):
                found[path] = ("755" if mode & 0o100 else "644", Path(os.fsdecode(full)).read_bytes())
        folders[:] = [f for f in folders if f != b".git"]
    hidden = tuple(os.fsencode(name) for name in leave_out)
    return {
        path: facts
        for path, facts in found.items()
        if path.split(b"/")[-1] != b".git" and not (hidden and path.startswith(hidden))
    }


def state(folder: Path) -> dict[str, tuple[int, ...]]:
    """Times, sizes, modes and bytes of everything below a folder."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        s = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        digest = int.from_bytes(hashlib.sha256(content).digest()[:8], "big")
        found[str(path)] = (s.st_mtime_ns, s.st_ctime_ns, s.st_size, s.st_mode, s.st_ino, digest)
    return found


def exported(house: Path, cache: Path, **options: object) -> tuple[Source, dict[bytes, tuple[str, bytes]]]:
    source = snapshot(house, cache, **options)  # type: ignore[arg-type]
    return source, listing(export(source.tree, cache))


def test_a_dirty_tree_is_taken_as_it_stands(house: Path, cache: Path, git: Git) -> None:
    git("init")
    for name in ("kept.py", "edited.py", "staged.py", "gone.py", "moved.py"):
        write(house / name, f"# {name}\n")
    write(house / ".gitignore", "ignored/\n*.log\n")
    git("add", ".")
    git("commit", "-m", "first")
    write(house / "edited.py", "# edited\n")
    write(house / "staged.py", "# staged\n")
    git("add", "staged.py")
    (house / "gone.py").unlink()
    git("mv", "moved.py", "there.py")
    write(house / "new file.py", "# new\n")
    write(house / "ignored/big.bin")
    write(house / "run.log")

    source, files = exported(house, cache)

    assert files == listing(house, "ignored/", "run.log")
    assert source.kind == "git"
    assert source.branch == "main"
    assert source.commit == git("rev-parse", "HEAD")
    assert source.dirty == ("edited.py", "gone.py", "moved.py", "staged.py", "there.py")
    assert source.untracked == ("new file.py",)
    assert (source.dirty_total, source.untracked_total, source.files) == (5, 1, len(files))


def test_the_tree_id_is_the_one_git_gives(house: Path, cache: Path, git: Git) -> None:
    git("init")
    for name in ("a/b/c.py", "a.b", "a-b/x", "a0", "runner/x.py", "projects/p/m.py", "projects/q/m.py", "projects/r"):
        write(house / name, name)
    (house / "a/b/c.py").chmod(0o755)
    os.symlink("a/b", house / "link")
    git("add", ".")
    source = snapshot(house, cache, project="p")
    assert source.tree == git("write-tree")
    assert source.trees["runner"] == git("write-tree", "--prefix=runner/")
    assert source.trees["project"] == git("write-tree", "--prefix=projects/p/")
    git("rm", "-r", "-q", "--cached", "runner", "projects/p")
    assert source.trees["rest"] == git("write-tree")


def test_nothing_under_git_is_written(house: Path, cache: Path, git: Git) -> None:
    git("init")
    write(house / "loose.py", "loose")
    write(house / "packed.py", "packed")
    git("add", ".")
    git("commit", "-m", "first")
    git("gc", "-q")
    write(house / "again.py", "loose")
    write(house / "staged.py", "staged")
    git("add", "staged.py")
    (house / "staged.py").touch()
    before = state(house / ".git")
    snapshot(house, cache)
    write(house / "packed.py", "changed")
    snapshot(house, cache)
    assert state(house / ".git") == before


def test_a_split_index_is_read_and_not_renewed(house: Path, cache: Path, git: Git) -> None:
    git("init")
    write(house / "a.py")
    git("add", ".")
    git("update-index", "--split-index")
    git("commit", "-m", "first")
    shared = next((house / ".git").glob("sharedindex.*"))
    os.utime(shared, (1_600_000_000, 1_600_000_000))
    before = state(house / ".git")
    source, files = exported(house, cache)
    assert set(files) == {b"a.py"}
    assert source.dirty == ()
    assert state(house / ".git") == before


def test_filters_attributes_and_line_ends_change_nothing(house: Path, cache: Path, git: Git, tmp_path: Path) -> None:
    git("init")
    ran = tmp_path / "ran"
    git("config", "filter.lfs.clean", f"touch '{ran}'; echo pointer")
    git("config", "filter.lfs.smudge", f"touch '{ran}'; cat")
    git("config", "core.autocrlf", "true")
    git("config", "core.fsmonitor", f"touch '{ran}'")
    attributes = """
        *.bin filter=lfs diff=lfs merge=lfs -text
        *.txt text eol=crlf
        *.id ident
        *.u16 working-tree-encoding=UTF-16LE-BOM text
        secretless export-ignore
        *.sub export-subst
        """
    write(house / ".gitattributes", textwrap.dedent(attributes))
    write(house / "weights.bin", b"\0\1\2" * 1000)
    write(house / "dos.txt", b"one\r\ntwo\r\n")
    write(house / "unix.txt", b"one\ntwo\n")
    write(house / "mixed.txt", b"one\r\ntwo\n")
    write(house / "keyword.id", b"$Id$ $Id: 12345 $\n")
    write(house / "wide.u16", "zwölf\n".encode("utf-16"))
    write(house / "secretless")
    write(house / "version.sub", "$Format:%H$\n")
    git("add", ".")
    git("commit", "-m", "first")
    write(house / "more.bin", b"more")
    ran.unlink(missing_ok=True)
    _, files = exported(house, cache)
    assert files == listing(house)
    assert not ran.exists()


def test_a_stat_clean_file_behind_a_filter_is_not_dirty(house: Path, cache: Path, git: Git) -> None:
    git("init")
    git("config", "filter.lfs.clean", "echo pointer")
    write(house / ".gitattributes", "*.bin filter=lfs\n*.txt eol=crlf\n")
    for name in ("weights.bin", "dos.txt"):
        write(house / name, b"heavy\r\n")
        os.utime(house / name, (1_600_000_000, 1_600_000_000))
    git("add", ".")
    git("commit", "-m", "first")
    assert snapshot(house, cache).dirty == ()
    write(house / "dos.txt", b"other\r\n")
    assert snapshot(house, cache).dirty == ("dos.txt",)


WEIRD = [
    b"with space", b" lead", b"trail ", b'quo"te', b"apos'trophe", b"new\nline", b"tab\tname", b"back\\slash", b"\xff\xfe.bin",
    "größe.py".encode(), b"-rf", b"*", b"?", b"[a]", b"!bang", b"#hash", b"a:b", b"...", b"..a", b"~", b"$(id)", b"H 100644 x\ty",
    b"? q", b"git~1", b"x" * 255, b"d/" * 60 + b"deep", b"CON", b"d.git/HEAD", b"a\rb", b"\x01", b"%s", b"{x}",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["tracked", "untracked", "folder"])
def test_any_name_that_a_file_can_have(house: Path, cache: Path, git: Git, kind: str) -> None:
    for number, name in enumerate(WEIRD):
        path = os.path.join(os.fsencode(house), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as handle:
            handle.write(b"%d" % number)
    os.symlink(b"\xff nowhere\n" + b"y" * 300, os.path.join(os.fsencode(house), b"\xfe link"))
    if kind != "folder":
        git("init")
    if kind == "tracked":
        git("-c", "core.protectNTFS=false", "add", ".")
        git("commit", "-m", "first")
    source, files = exported(house, cache)
    assert files == listing(house)
    assert len(files) == len(WEIRD) + 1
    assert source.dirty == ()
    assert source.untracked_total == (len(WEIRD) + 1 if kind == "untracked" else 0)
    assert all(name.isprintable() for name in source.untracked)


def test_random_trees_come_back_byte_for_byte(tmp_path: Path, git: Git) -> None:
    alphabet = [bytes([c]) for c in range(1, 256) if c != ord("/")]
    for seed in range(25):
        dice = random.Random(seed)
        house, cache = tmp_path / f"house{seed}", tmp_path / f"cache{seed}"
        house.mkdir()
        folders = [os.fsencode(house)]
        for _ in range(dice.randint(0, 8)):
            name = b"".join(dice.choices(alphabet, k=dice.randint(1, 12)))
            folder = os.path.join(dice.choice(folders), name)
            if name.strip(b".") and not os.path.lexists(folder) and b".git" not in name.lower():
                os.mkdir(folder)
                folders.append(folder)
        for _ in range(dice.randint(0, 40)):
            name = b"".join(dice.choices(alphabet, k=dice.randint(1, 120)))
            path = os.path.join(dice.choice(folders), name)
            if not name.strip(b".") or os.path.lexists(path) or b".git" in name.lower():
                continue
            if dice.random() < 0.15:
                os.symlink(b"".join(dice.choices(alphabet, k=dice.randint(1, 200))), path)
                continue
            with open(path, "wb") as handle:
                handle.write(dice.randbytes(dice.choice([0, 1, 511, 512, 513, 4096, 100_000])))
            os.chmod(path, dice.choice([0o600, 0o644, 0o700, 0o755, 0o777, 0o444, 0o654]))
        if seed % 2:
            git("init", cwd=house)
            git("-c", "core.protectNTFS=false", "add", ".", cwd=house)
            tree = git("write-tree", cwd=house)
        source, files = exported(house, cache)
        assert files == listing(house), seed
        if seed % 2:
            assert source.tree == tree, seed


def test_links_and_executable_bits(house: Path, cache: Path, git: Git) -> None:
    git("init")
    write(house / "tool.sh", "#!/bin/sh\n").chmod(0o755)
    write(house / "group.sh", "#!/bin/sh\n").chmod(0o674)
    write(house / "real/file.py")
    os.symlink("real", house / "to_folder")
    os.symlink("real/file.py", house / "to_file")
    os.symlink("nowhere", house / "dangling")
    os.symlink("/etc/hostname", house / "absolute")
    git("add", ".")
    source, files = exported(house, cache)
    assert files == listing(house)
    (house / "tool.sh").chmod(0o644)
    after, files = exported(house, cache)
    assert files[b"tool.sh"][0] == "644"
    assert after.tree != source.tree


def test_a_folder_replaced_by_a_symlink(house: Path, cache: Path, git: Git, tmp_path: Path) -> None:
    git("init")
    write(house / "data/a.txt", "inside")
    write(house / ".gitignore", "hidden\n")
    write(house / "hidden/b.txt", "inside")
    git("add", "-f", ".")
    git("commit", "-m", "first")
    snapshot(house, cache)
    for name in ("data", "hidden"):
        (house / name).rename(tmp_path / name)
        (house / name).symlink_to(tmp_path / name)
    source, files = exported(house, cache)
    assert set(files) == {b".gitignore", b"data"}
    assert source.dirty == ("data/a.txt", "hidden/b.txt")


def test_tracked_files_count_even_if_ignored_and_runnerignore_beats_both(house: Path, cache: Path, git: Git) -> None:
    git("init")
    write(house / ".gitignore", "*.bin\n")
    for name in ("kept.bin", "a.dat", "sub/b.dat", "sub/keep.dat", "new.dat", "doc/x.md", "sub/c.py"):
        write(house / name)
    git("add", "-f", "kept.bin", "a.dat", "sub", "doc", ".gitignore")
    write(house / "loose.bin")
    assert b"kept.bin" in exported(house, cache)[1]
    assert b"loose.bin" not in exported(house, cache)[1]
    write(house / ".runnerignore", "# not needed\n*.dat\n!keep.dat\n/doc/\n!loose.bin\n")
    write(house / "sub/.runnerignore", "c.py\n")
    source, files = exported(house, cache)
    assert set(files) == {b".gitignore", b".runnerignore", b"kept.bin", b"sub/.runnerignore", b"sub/keep.dat"}
    assert "a.dat" not in source.dirty


def test_the_users_own_excludes_count(house: Path, cache: Path, git: Git, tmp_path: Path) -> None:
    git("init")
    write(tmp_path / "home/.config/git/ignore", "from_default\n")
    write(house / ".git/info/exclude", "from_info\n!kept\n")
    for name in ("from_default", "from_info", "from_config", "kept", "a.py"):
        write(house / name)
    assert set(exported(house, cache)[1]) == {b"a.py", b"from_config", b"kept"}
    write(tmp_path / "home/my ignore", "from_config\nkept\n")
    git("config", "--global", "core.excludesFile", "~/my ignore")
    assert set(exported(house, cache)[1]) == {b"a.py", b"from_default", b"kept"}


def test_the_callers_git_variables_do_not_count(
    house: Path, cache: Path, git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git("init")
    write(house / "a.py")
    git("add", ".")
    git("commit", "-m", "first")
    other = tmp_path / "other"
    other.mkdir()
    git("init", cwd=other)
    for name, value in {
        "GIT_DIR": str(other / ".git"),
        "GIT_WORK_TREE": str(other),
        "GIT_INDEX_FILE": str(other / "index"),
        "GIT_OBJECT_DIRECTORY": str(other / "objects"),
        "GIT_CEILING_DIRECTORIES": str(tmp_path),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.excludesFile",
        "GIT_CONFIG_VALUE_0": "/dev/null",
        "GIT_LITERAL_PATHSPECS": "0",
        "GIT_TRACE": "1",
    }.items():
        monkeypatch.setenv(name, value)
    source, files = exported(house, cache)
    assert set(files) == {b"a.py"}
    assert (source.branch, source.dirty) == ("main", ())


def test_a_folder_that_is_no_repository(house: Path, cache: Path, git: Git) -> None:
    write(house / "a.py")
    write(house / "checkpoints/p/run/logs.txt")
    write(house / "data[1]/raw/x")
    write(house / "data1/raw/x")
    write(house / ".gitignore", "*.tmp\n")
    write(house / "x.tmp")
    source, files = exported(house, cache, exclude=[house / "checkpoints", house / "data[1]/raw"])
    assert set(files) == {b"a.py", b".gitignore", b"data1/raw/x"}
    assert (source.kind, source.commit, source.branch, source.untracked_total) == ("folder", None, None, 0)


def test_the_cache_in_the_house_is_left_out(house: Path, git: Git) -> None:
    git("init")
    write(house / "a.py")
    write(house / ".cache/wheels/x.whl")
    source, files = exported(house, house / ".cache")
    assert set(files) == {b"a.py"}
    assert snapshot(house, house / ".cache") == source


def test_an_excluded_folder_may_be_a_symlink(house: Path, cache: Path, git: Git, tmp_path: Path) -> None:
    git("init")
    write(tmp_path / "disk/run/logs.txt")
    (house / "checkpoints").symlink_to(tmp_path / "disk")
    write(house / "a.py")
    alias = tmp_path / "alias"
    alias.symlink_to(house)
    for root in (house, alias):
        assert set(exported(root, cache, exclude=[root / "checkpoints"])[1]) == {b"a.py"}


def test_an_empty_repository(house: Path, cache: Path, git: Git) -> None:
    git("init")
    source, files = exported(house, cache)
    assert files == {}
    assert source.tree == "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
    assert (source.commit, source.branch) == (None, "main")
    assert snapshot(house, cache) == source
    write(house / "a.py")
    git("add", ".")
    assert snapshot(house, cache).dirty == ("a.py",)


def test_a_detached_head_and_no_identity(house: Path, cache: Path, git: Git) -> None:
    git("init")
    write(house / "a.py")
    git("add", ".")
    git("commit", "-m", "first")
    git("checkout", "-q", "--detach")
    source = snapshot(house, cache)
    assert (source.commit, source.branch) == (git("rev-parse", "HEAD"), None)


def test_a_worktree(house: Path, cache: Path, git: Git, tmp_path: Path) -> None:
    git("init")
    write(house / "a.py")
    git("add", ".")
    git("commit", "-m", "first")
    second = tmp_path / "second tree"
    git("worktree", "add", "-b", "topic", str(second))
    write(house / ".git/info/exclude", "secret_notes\n")
    write(second / "b.py")
    write(second / "secret_notes")
    before = state(house / ".git")
    source, files = exported(second, cache)
    assert set(files) == {b"a.py", b"b.py"}
    assert (source.branch, source.untracked, source.dirty) == ("topic", ("b.py",), ())
    assert state(house / ".git") == before


def test_a_house_within_a_larger_repository(house: Path, cache: Path, git: Git) -> None:
    git("init")
    write(house / ".gitignore", "*.log\n")
    inner = house / "ml"
    write(inner / "a.py")
    write(inner / "x.log")
    write(house / "other.py")
    git("add", ".")
    git("commit", "-m", "first")
    write(inner / "a.py", "edited")
    write(inner / "new.py")
    source, files = exported(inner, cache, exclude=[inner / "checkpoints"])
    assert set(files) == {b"a.py", b"new.py"}
    assert (source.dirty, source.untracked) == (("a.py",), ("new.py",))


def test_a_house_that_a_larger_repository_ignores_is_a_folder(house: Path, cache: Path, git: Git) -> None:
    git("init")
    write(house / ".gitignore", "*\n")
    write(house / "work/a.py")
    source, files = exported(house / "work", cache)
    assert set(files) == {b"a.py"}
    assert source.kind == "folder"


def test_nested_repositories_and_submodules_are_taken_whole(house: Path, cache: Path, git: Git, tmp_path: Path) -> None:
    library = tmp_path / "library"
    write(library / "lib.py", "v1")
    git("init", cwd=library)
    git("add", ".", cwd=library)
    git("commit", "-m", "lib", cwd=library)
    git("init")
    git("submodule", "add", "-q", str(library), "vendor/lib")
    git("submodule", "add", "-q", str(library), "vendor/absent")
    git("commit", "-m", "first")
    git("submodule", "deinit", "-f", "-q", "vendor/absent")
    write(house / "vendor/lib/lib.py", "v2")
    write(house / "vendor/lib/new.py")
    write(house / "vendor/lib/.gitignore", "*.o\n")
    write(house / "vendor/lib/x.o")
    for name, commit in (("nested", True), ("unborn", False)):
        write(house / name / "a.py")
        git("init", cwd=house / name)
        if commit:
            git("add", ".", cwd=house / name)
            git("commit", "-m", "x", cwd=house / name)
        write(house / name / "sub/b.py")
    before = state(house / ".git")
    source, files = exported(house, cache)
    assert files == listing(house, "vendor/lib/x.o")
    assert source.nested == ("nested", "unborn", "vendor/lib")
    assert "vendor/lib/lib.py" in source.dirty
    assert {"nested/sub/b.py", "unborn/sub/b.py", "vendor/lib/new.py"} <= {*source.untracked}
    assert state(house / ".git") == before
    git("commit", "-qam", "moved", cwd=house / "vendor/lib")
    assert "vendor/lib" in snapshot(house, cache).dirty


def test_a_sha256_repository_gives_the_same_tree(house: Path, cache: Path, git: Git, tmp_path: Path) -> None:
    twin = tmp_path / "twin"
    twin.mkdir()
    git("init", "--object-format=sha256")
    git("init", cwd=twin)
    for folder in (house, twin):
        write(folder / "a.py", "a")
        write(folder / "sub/b.py", "b")
        git("add", ".", cwd=folder)
        git("commit", "-m", "x", cwd=folder)
        write(folder / "sub/b.py", "other")
    one, other = snapshot(house, cache), snapshot(twin, cache)
    assert one.tree == other.tree
    assert one.trees == other.trees
    assert one.dirty == other.dirty == ("sub/b.py",)
    assert len(one.commit or "") == 64


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to somebody else")
def test_a_repository_owned_by_somebody_else(house: Path, cache: Path, git: Git) -> None:
    git("init")
    write(house / "a.py")
    git("add", ".")
    git("commit", "-m", "first")
    for path in [house, *house.rglob("*")]:
        os.chown(path, 12345, 12345)
    refused = subprocess.run(["git", "status"], cwd=house, capture_output=True)
    assert b"dubious ownership" in refused.stderr
    source, files = exported(house, cache)
    assert set(files) == {b"a.py"}
    assert source.kind == "git"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_what_cannot_be_read_is_named(house: Path, cache: Path, git: Git, tmp_path: Path) -> None:
    git("init")
    write(house / "a.py")
    write(house / "locked/b.py")
    (house / "locked").chmod(0)
    tmp_path.chmod(0o777)
    for path in (house, house / ".git", cache.parent):
        path.chmod(0o777)
    code = f"""
        import os, sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from runner.contract.errors import RunnerError
        from runner.host.source.snapshot import snapshot
        for parent in Path({str(tmp_path)!r}).parents:
            parent.exists()
        os.setgroups([]); os.setgid(12345); os.setuid(12345)
        try:
            snapshot(Path({str(house)!r}), Path({str(cache)!r}))
        except RunnerError as error:
            print(error)
        """
    for parent in list(tmp_path.parents)[:-2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert "locked" in done.stdout and ".gitignore" in done.stdout, (done.stdout, done.stderr)
    (house / "locked").chmod(0o755)
    (house / "a.py").chmod(0)
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert "a.py cannot be read" in done.stdout, (done.stdout, done.stderr)


def test_special_files_are_no_source(house: Path, cache: Path, git: Git) -> None:
    git("init")
    write(house / "a.py")
    write(house / "was_file")
    git("add", ".")
    (house / "was_file").unlink()
    os.mkfifo(house / "was_file")
    os.mkfifo(house / "pipe")
    source, files = exported(house, cache)
    assert set(files) == {b"a.py"}
    assert "was_file" in source.dirty


def test_an_edit_of_equal_size_with_its_time_put_back_is_seen(house: Path, cache: Path, git: Git) -> None:
    git("init")
    path = write(house / "a.py", "lr = 1")
    git("add", ".")
    os.utime(path, (1_600_000_000, 1_600_000_000))
    seen = {snapshot(house, cache).tree}
    for number in range(2, 10):
        path.write_bytes(b"lr = %d" % number)
        os.utime(path, (1_600_000_000, 1_600_000_000))
        seen.add(snapshot(house, cache).tree)
    assert len(seen) == 9


def test_what_becomes_ignored_leaves_and_what_was_left_out_comes_back(house: Path, cache: Path, git: Git) -> None:
    git("init")
    write(house / "a.py")
    write(house / "b.py")
    first, _ = exported(house, cache)
    write(house / ".gitignore", "b.py\n")
    assert set(exported(house, cache)[1]) == {b".gitignore", b"a.py"}
    (house / ".gitignore").unlink()
    assert snapshot(house, cache) == first


def test_a_readme_edit_changes_only_the_rest(house: Path, cache: Path, git: Git) -> None:
    git("init")
    for name in ("README.md", "runner/x.py", "projects/p/m.py", "projects/q/m.py"):
        write(house / name, name)
    first = snapshot(house, cache, project="p")
    write(house / "README.md", "better")
    second = snapshot(house, cache, project="p")
    assert {part for part in first.trees if first.trees[part] != second.trees[part]} == {"rest"}
    write(house / "projects/q/m.py", "better")
    third = snapshot(house, cache, project="p")
    assert {part for part in first.trees if second.trees[part] != third.trees[part]} == {"rest"}
    write(house / "projects/p/m.py", "better")
    fourth = snapshot(house, cache, project="p")
    assert {part for part in first.trees if third.trees[part] != fourth.trees[part]} == {"project"}
    assert set(snapshot(house, cache).trees) == {"runner", "rest"}


def test_a_queued_run_never_sees_later_edits(house: Path, cache: Path, git: Git) -> None:
    git("init")
    write(house / "a.py", "first")
    source = snapshot(house, cache)
    write(house / "a.py", "later")
    assert (export(source.tree, cache) / "a.py").read_text() == "first"
    shutil.rmtree(house)
    assert (export(source.tree, cache) / "a.py").read_text() == "first"


def test_the_cache_may_go_at_any_time(house: Path, cache: Path, git: Git) -> None:
    git("init")
    write(house / "a.py")
    source, files = exported(house, cache)
    for lost in (cache, cache / "source" / "trees", cache / "source" / "git", cache / "source" / "houses"):
        shutil.rmtree(lost)
        assert exported(house, cache) == (source, files)
    for path in (cache / "source" / "houses").iterdir():
        for damaged in (b"", b"{}", b"\0" * 100, path.read_bytes()[:-3]):
            path.write_bytes(damaged)
            assert snapshot(house, cache) == source


def test_a_dry_run_keeps_no_tree(house: Path, cache: Path, git: Git) -> None:
    git("init")
    write(house / "a.py")
    planned = snapshot(house, cache, keep=False)
    assert not (cache / "source/trees").exists()
    assert snapshot(house, cache) == planned
    assert export(planned.tree, cache).is_dir()


def test_a_broken_git_is_never_taken_for_none(house: Path, cache: Path, git: Git) -> None:
    write(house / "a.py")
    (house / ".git").mkdir()
    with pytest.raises(RunnerError, match=r"is no git repository \(no HEAD\): repair it"):
        snapshot(house, cache)
    (house / ".git").rmdir()
    write(house / ".git", "gitdir: ../moved/away\n")
    with pytest.raises(RunnerError, match="moved/away, which is no git repository"):
        snapshot(house, cache)
    write(house / ".git", "nonsense")
    with pytest.raises(RunnerError, match="does not start with 'gitdir: '"):
        snapshot(house, cache)
    (house / ".git").unlink()
    git("init")
    write(house / ".git/index", "garbage" * 10)
    with pytest.raises(RunnerError, match="git ls-files failed"):
        snapshot(house, cache)
    (house / ".git/index").unlink()
    write(house / ".git/config", "[core\n")
    with pytest.raises(RunnerError, match=r"git config failed .*bad config"):
        snapshot(house, cache)


def test_no_git_and_no_house(house: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunnerError, match="no folder there"):
        snapshot(house / "nowhere", cache)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(RunnerError, match="git is not on PATH: install git"):
        snapshot(house, cache)


def test_a_file_that_keeps_changing_is_named(house: Path, cache: Path, git: Git) -> None:
    git("init")
    write(house / "a.py")
    code = f"""
        while True:
            with open({str(house / "log.txt")!r}, "wb") as handle:
                for _ in range(50):
                    handle.write(b"x" * 1000)
                    handle.flush()
        """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)]) as writer:
        try:
            for _ in range(20):
                try:
                    source = snapshot(house, cache)
                except RunnerError as error:
                    assert "log.txt keeps changing" in str(error)
                else:
                    export(source.tree, cache)
        finally:
            writer.kill()


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://github.com/org/repo.git", "https://github.com/org/repo.git"),
        ("https://user:pa55@github.com/org/repo.git", "https://github.com/org/repo.git"),
        ("https://ghp_0123456789abcdef@github.com/org/repo", "https://github.com/org/repo"),
        ("https://host:8443/r.git?token=abc#frag", "https://host:8443/r.git"),
        ("https://host/ghp_0123456789abcdef/r.git", "https://host/***/r.git"),
        ("ssh://git@host:22/org/repo", "ssh://git@host:22/org/repo"),
        ("ssh://alice:pw@host/org/repo", "ssh://host/org/repo"),
        ("git@github.com:org/repo.git", "git@github.com:org/repo.git"),
        ("alice@host:org/repo.git", "host:org/repo.git"),
        ("user:p@ss@host:org/repo.git", None),
        ("https://user:p@ss/w@host/x", None),
        ("/srv/git/repo.git", None),
        ("../repo", None),
        ("file:///srv/git/repo.git", None),
        ("ext::sh -c 'secret %S'", None),
        ("C:\\repo", None),
        ("https://[::1]:3000/r", "https://[::1]:3000/r"),
        ("https://host:port/r", None),
        ("", None),
    ],
)
def test_a_remote_is_recorded_without_credentials(url: str, public: str | None) -> None:
    assert public_url(url) == public


def test_the_remote_of_the_branch(house: Path, cache: Path, git: Git) -> None:
    git("init")
    assert snapshot(house, cache).remote is None
    git("remote", "add", "mine", "https://me:token@example.org/mine.git")
    assert snapshot(house, cache).remote == "https://example.org/mine.git"
    git("remote", "add", "origin", "https://example.org/origin.git")
    assert snapshot(house, cache).remote == "https://example.org/origin.git"
    git("config", "branch.main.remote", "mine")
    assert snapshot(house, cache).remote == "https://example.org/mine.git"
