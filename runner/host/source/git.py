"""Git as a reader only: which repository a folder belongs to, and commands that neither write to it nor run its code.

Three findings shape this page. `git add` into a private repository whose alternates are the user's objects *freshens*
(utime) those objects, so the user's .git would be touched. Git's index compares whole seconds, so it misses an edit of
equal size whose old mtime was put back within a second. And a repository's own config may name programs to run
(filters, fsmonitor). So git only lists names here, through a private GIT_DIR with our config; `source_tree` hashes.
"""

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from runner.contract.errors import RunnerError

_CONFIG = """[core]
\trepositoryformatversion = {version}
\tbare = false
\tfsmonitor = false
\tuntrackedCache = false
\tsplitIndex = false
\tprotectNTFS = false
\tprotectHFS = false
"""
_PASSED_ON = ("core.autocrlf", "core.eol", "core.filemode", "core.ignorecase", "core.precomposeunicode")


def printable(path: bytes) -> str:
    """A file name as one line of valid text: what is not UTF-8 and every control character becomes an escape."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@dataclass(frozen=True)
class Repository:
    """Where a repository keeps what; found without asking git, so that no error of git can mean "not a repository"."""

    top: bytes
    """The folder that holds `.git`."""
    git_dir: bytes
    """HEAD and the index (of this worktree)."""
    common: bytes
    """Objects, refs and info/exclude, shared by all worktrees."""


def find_repository(folder: bytes) -> Repository | None:
    """The repository that `folder` (absolute, resolved) lies in; like git's own search it stops at a mount point.

    Raises:
        RunnerError: there is a `.git` that leads to no repository.
    """
    device = os.stat(folder).st_dev
    here = folder
    while True:
        if os.path.lexists(os.path.join(here, b".git")):
            found = open_repository(here, must=here == folder)
            if found is not None:
                return found
        parent = os.path.dirname(here)
        if parent == here or os.stat(parent).st_dev != device:
            return None
        here = parent


def open_repository(top: bytes, *, must: bool = True) -> Repository | None:
    """The repository whose `.git` lies in `top`. A `.git` folder that is none gives None, unless it `must` be one."""
    git_dir = os.path.join(top, b".git")
    if not os.path.isdir(git_dir):
        git_dir = _follow(top, git_dir)
        must = True
    if not os.path.lexists(os.path.join(git_dir, b"HEAD")):
        if not must:
            return None
        raise RunnerError(
            f"{printable(top)}/.git leads to {printable(git_dir)}, which is no git repository (no HEAD): repair it, "
            "or remove .git to use the folder as it is"
        )
    common = git_dir
    if os.path.isfile(os.path.join(git_dir, b"commondir")):
        with open(os.path.join(git_dir, b"commondir"), "rb") as handle:
            common = os.path.normpath(os.path.join(git_dir, handle.read().rstrip(b"\r\n")))
    return Repository(top, git_dir, common)


def _follow(top: bytes, dot_git: bytes) -> bytes:
    """The folder that a `.git` file (a worktree's or a submodule's) names."""
    try:
        with open(dot_git, "rb") as handle:
            content = handle.read(1 << 16)
    except OSError as error:
        raise RunnerError(f"{printable(dot_git)}: {error.strerror}: repair or remove it") from None
    if not content.startswith(b"gitdir: "):
        raise RunnerError(f"{printable(dot_git)} is a file that does not start with 'gitdir: ': repair or remove it")
    return os.path.normpath(os.path.join(top, content.removeprefix(b"gitdir: ").rstrip(b"\r\n")))


@dataclass
class Running:
    """A git command under way. Its output goes to a file, so that it never waits for its reader."""

    process: "subprocess.Popen[bytes]"
    what: str
    output: IO[bytes]
    errors: IO[bytes]

    def finish(self, *, may_fail: bool = False) -> bytes | None:
        """Its output; None where it failed and may.

        Raises:
            RunnerError: it failed, with git's own words; or it could not read a folder, which it calls only a warning.
        """
        code = self.process.wait()
        with self.output, self.errors:
            self.errors.seek(0)
            words = self.errors.read().decode(errors="replace").strip()
            if "could not open directory" in words:
                raise RunnerError(
                    f"{words.splitlines()[0].removeprefix('warning: ')}: make it readable or add it to .gitignore"
                )
            if code != 0:
                if may_fail:
                    return None
                raise RunnerError(f"{self.what} failed ({code}): {' '.join(words.split()) or 'no message'}")
            self.output.seek(0)
            return self.output.read()

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *error: object) -> None:
        """End it where nobody asked for its result, because another command failed."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.output.close()
        self.errors.close()

    def result(self) -> bytes:
        """Its output; a failure is an error."""
        output = self.finish()
        assert output is not None
        return output


@dataclass(frozen=True)
class Git:
    """Git commands on one work tree. `repository` None serves a folder that is none: an empty index, the same rules."""

    cache: Path
    top: bytes
    repository: Repository | None
    config: Mapping[str, str] = field(default_factory=dict)
    """The user's effective git config: of a key that is set several times the last value."""

    @property
    def object_format(self) -> str:
        """sha1 or sha256: how long the ids in the user's index are."""
        return self.config.get("extensions.objectformat", "sha1")

    def start(
        self, arguments: Sequence[str | bytes], *, cwd: bytes, index: bytes | None = None, stdin: bytes | None = None
    ) -> Running:
        """Start a command on the user's index and objects (or on `index`) with our own config."""
        reader = _reader(self.cache, self.object_format)
        environment: dict[str, str | bytes] = {**_clean(reader), "GIT_DIR": str(reader), "GIT_WORK_TREE": self.top}
        environment["GIT_INDEX_FILE"] = index or os.fsencode(reader / "no-index")
        if self.repository is not None and index is None:
            environment["GIT_INDEX_FILE"] = os.path.join(self.repository.git_dir, b"index")
            environment["GIT_OBJECT_DIRECTORY"] = os.path.join(self.repository.common, b"objects")
            _keep_shared_index(self.repository, reader)
        passed = [item for key in _PASSED_ON if key in self.config for item in ("-c", f"{key}={self.config[key]}")]
        return _start([*passed, *arguments], environment, cwd, stdin)

    def start_head(self) -> Running:
        """Start asking which commit and branch HEAD is. Fails where there is no commit yet."""
        assert self.repository is not None
        return self._on_repository("rev-parse", "HEAD", "--symbolic-full-name", "HEAD")

    def unborn_branch(self) -> str | None:
        """The branch HEAD names though it has no commit yet.

        Raises:
            RunnerError: HEAD names nothing: the repository is damaged.
        """
        return self._on_repository("symbolic-ref", "HEAD").result().decode("utf-8", "backslashreplace").strip()

    def _on_repository(self, *arguments: str) -> Running:
        assert self.repository is not None
        environment = {
            **_clean(_reader(self.cache, "sha1")),
            "GIT_DIR": self.repository.git_dir,
            "GIT_WORK_TREE": self.top,
        }
        return _start(arguments, environment, self.top, None)


def start_config(cache: Path, repository: Repository | None, folder: bytes) -> Running:
    """Start reading the user's whole git config: the only command that sees their global and system files."""
    environment: dict[str, str | bytes] = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM"):
        if name in os.environ:
            environment[name] = os.environ[name]
    environment["LC_ALL"] = "C"
    environment["GIT_DIR"] = repository.git_dir if repository is not None else os.fsencode(_reader(cache, "sha1"))
    return _start(["config", "--list", "-z"], environment, folder, None)


def parse_config(listing: bytes) -> dict[str, str]:
    """The output of `git config --list -z` as a mapping; a key without a value means true."""
    pairs = (item.decode("utf-8", "surrogateescape").partition("\n") for item in listing.split(b"\0") if item)
    return {key: value if separator else "true" for key, separator, value in pairs}


def _clean(home: Path) -> dict[str, str | bytes]:
    """The caller's environment without their git: no GIT_*, no global, no system config, no prompts, no locks."""
    kept: dict[str, str | bytes] = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    return kept | {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
    }


def _start(
    arguments: Sequence[str | bytes], environment: Mapping[str, str | bytes], cwd: bytes, stdin: bytes | None
) -> Running:
    words = [os.fsdecode(a) for a in arguments]
    what = "git " + next(w for i, w in enumerate(words) if w != "-c" and (i == 0 or words[i - 1] != "-c"))
    output, errors = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - `Running` closes them
    source: IO[bytes] | int = subprocess.DEVNULL
    if stdin is not None:
        source = tempfile.TemporaryFile()  # noqa: SIM115 - closed below, once git has it
        source.write(stdin)
        source.seek(0)
    try:
        process = subprocess.Popen(
            ["git", *arguments], env=environment, cwd=cwd, stdin=source, stdout=output, stderr=errors, close_fds=True
        )
    except FileNotFoundError:
        output.close()
        errors.close()
        raise RunnerError("git is not on PATH: install git (for example `apt-get install git`)") from None
    finally:
        if not isinstance(source, int):
            source.close()
    return Running(process, what, output, errors)


def _reader(cache: Path, object_format: str) -> Path:
    """An empty repository of ours with the given kind of ids: made once, never written to."""
    folder = cache / "source" / "git" / object_format
    if (folder / "HEAD").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / "new"
        (made / "objects").mkdir(parents=True)
        (made / "refs").mkdir()
        config = _CONFIG.format(version=1 if object_format != "sha1" else 0)
        if object_format != "sha1":
            config += f"[extensions]\n\tobjectFormat = {object_format}\n"
        (made / "config").write_text(config)
        (made / "HEAD").write_text("ref: refs/heads/none\n")
        try:
            made.rename(folder)
        except OSError:
            if not (folder / "HEAD").exists():
                raise
    return folder


def _keep_shared_index(repository: Repository, reader: Path) -> None:
    """A split index names a second file beside HEAD, and git would renew that file's mtime: it gets a copy."""
    for name in os.listdir(repository.git_dir):
        if name.startswith(b"sharedindex."):
            copy = os.path.join(os.fsencode(reader), name)
            if not os.path.exists(copy):
                with open(os.path.join(repository.git_dir, name), "rb") as handle:
                    content = handle.read()
                with tempfile.NamedTemporaryFile(dir=reader, delete=False) as new:
                    new.write(content)
                os.replace(new.name, copy)
