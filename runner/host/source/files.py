"""Which files belong to a snapshot: tracked, and untracked but not ignored; those of nested repositories included."""

import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from runner.contract.errors import RunnerError
from runner.host.source.git import (
    Git,
    Repository,
    find_repository,
    open_repository,
    parse_config,
    printable,
    start_config,
)

RUNNERIGNORE = b".runnerignore"
_TOKEN = re.compile(r"(gh[pousr]_|github_pat_|glpat-|hf_)\w{10,}")


@dataclass
class Files:
    """The names of a snapshot, relative to the house, and what the repository says of them."""

    tracked: dict[bytes, bytes] = field(default_factory=dict)
    """`mode id` in the user's index, as ls-files spells them. The file itself may be gone."""
    skipped: set[bytes] = field(default_factory=set)
    """Tracked, and kept out of the working tree by a sparse checkout."""
    untracked: list[bytes] = field(default_factory=list)
    staged: set[bytes] = field(default_factory=set)
    """Where the index differs from HEAD."""
    nested: list[bytes] = field(default_factory=list)
    """Repositories within the house; their files are among the others."""
    git: Git | None = None
    """None where the house is no repository."""
    commit: str | None = None
    branch: str | None = None
    """None on a detached HEAD."""
    remote: str | None = None


def list_files(
    root: bytes, cache: Path, exclude: Sequence[bytes], meanwhile: Callable[[], None] = lambda: None
) -> Files:
    """The files of the house `root`; `meanwhile` is called once while git is busy.

    A house that a repository further up ignores altogether (a home folder kept in git, say) is taken as a plain folder.
    """
    repository = find_repository(root)
    files = _list(root, cache, repository, exclude, meanwhile)
    if repository is not None and repository.top != root and not files.tracked and not files.untracked:
        files = _list(root, cache, None, exclude)
    ignored = _runner_ignored(root, cache, [*files.tracked, *files.untracked])
    if ignored:
        files.tracked = {path: entry for path, entry in files.tracked.items() if path not in ignored}
        files.untracked = [path for path in files.untracked if path not in ignored]
        files.staged -= ignored
    return files


def _list(
    folder: bytes,
    cache: Path,
    repository: Repository | None,
    exclude: Sequence[bytes],
    meanwhile: Callable[[], None] = lambda: None,
) -> Files:
    """The files of one repository or plain folder, and of those within it."""
    top = folder if repository is None else repository.top
    files = Files()
    with ExitStack() as running:
        links = _ask(folder, Git(cache, top, repository), exclude, meanwhile, files, running)
    for path, recorded in sorted(links.items()):
        _add_nested(folder, path, recorded, cache, exclude, files)
    return files


def _ask(
    folder: bytes,
    git: Git,
    exclude: Sequence[bytes],
    meanwhile: Callable[[], None],
    files: Files,
    running: ExitStack,
) -> dict[bytes, bytes]:
    """Fill `files` by commands that overlap as far as one does not need another's answer; return what is nested."""
    start = running.enter_context
    configuring = start(start_config(git.cache, git.repository, folder))
    heading = None if git.repository is None else start(git.start_head())
    git = replace(git, config=parse_config(configuring.result()))
    names = ["ls-files", "-z", "-c", "-o", "-t", "-s"]
    listing = start(git.start([*names, *_rules(git), *_excluded(git.top, folder, exclude)], cwd=folder))
    files.git = git if git.repository is not None else None
    comparing = None
    if heading is not None:
        files.commit, files.branch = _head(git, heading.finish(may_fail=True))
        files.remote = _remote(git, files.branch)
        if files.commit is not None:
            compare = ["diff-index", "--cached", "--name-only", "-z", "--no-renames", "--relative", files.commit]
            comparing = start(git.start(compare, cwd=folder))
    meanwhile()
    links = _read_listing(listing.result(), files, 64 if git.object_format == "sha256" else 40)
    if comparing is not None:
        files.staged = set(comparing.result().split(b"\0")) - {b""}
    else:
        files.staged = set(files.tracked)
    return links


def _read_listing(listing: bytes, files: Files, digits: int) -> dict[bytes, bytes]:
    """Sort the output of ls-files into `files`; return the nested repositories, each with the commit the index has."""
    links: dict[bytes, bytes] = {}
    end = len("H 100644 ") + digits  # then a space, the stage, a tab and the path
    for record in listing.split(b"\0"):
        if record.startswith(b"? "):
            path = record[2:]
            if path.endswith(b"/"):
                links[path[:-1]] = b""
            else:
                files.untracked.append(path)
        elif record:
            path = record[end + 3 :]
            if record.startswith(b"160000", 2):
                links[path] = record[9:end]
            else:
                files.tracked[path] = record[2:end]
                if record.startswith(b"S"):
                    files.skipped.add(path)
    return links


def _add_nested(
    folder: bytes, path: bytes, recorded: bytes, cache: Path, exclude: Sequence[bytes], files: Files
) -> None:
    """Add the files of the nested repository `path` as if they were the outer one's."""
    inner = os.path.join(folder, path)
    try:
        kind = os.lstat(inner).st_mode
    except (FileNotFoundError, NotADirectoryError):
        files.staged.add(path)
        return
    if not stat.S_ISDIR(kind):
        files.untracked.append(path)
        return
    try:
        repository = open_repository(inner) if os.path.lexists(os.path.join(inner, b".git")) else None
        found = _list(inner, cache, repository, exclude)
    except RunnerError as error:
        raise RunnerError(f"nested repository {printable(path)}: {error} (or add it to .gitignore)") from error
    prefix = path + b"/"
    files.tracked |= {prefix + name: entry for name, entry in found.tracked.items()}
    files.untracked += [prefix + name for name in found.untracked]
    files.skipped |= {prefix + name for name in found.skipped}
    files.staged |= {prefix + name for name in found.staged}
    if repository is not None:
        files.nested += [path, *(prefix + name for name in found.nested)]
        if recorded and found.commit != recorded.decode():
            files.staged.add(path)


def _rules(git: Git) -> list[bytes | str]:
    """What git ignores by default, spelled out: our private config knows neither core.excludesFile nor info/exclude."""
    home = os.path.expanduser("~")
    default = os.path.join(os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config"), "git", "ignore")
    named = git.config.get("core.excludesfile")
    excludes = os.fsencode(default) if named is None else os.path.join(git.top, os.fsencode(os.path.expanduser(named)))
    candidates = [excludes] if named != "" else []
    if git.repository is not None:
        candidates.append(os.path.join(git.repository.common, b"info", b"exclude"))
    found = [b"--exclude-from=" + path for path in candidates if os.path.isfile(path)]
    return ["--exclude-per-directory=.gitignore", *found]


def _excluded(top: bytes, folder: bytes, exclude: Iterable[bytes]) -> list[bytes]:
    """Anchored patterns for the excluded paths within `folder`: a name's special characters stand for themselves."""
    inside = {path for path in exclude if path.startswith(folder.rstrip(b"/") + b"/")}
    names = sorted(os.path.relpath(path, top) for path in inside)
    return [b"--exclude=/" + re.sub(rb"([\\*?\[\] ])", rb"\\\1", name) for name in names]


def _head(git: Git, answer: bytes | None) -> tuple[str | None, str | None]:
    """Commit and branch."""
    if answer is None:
        reference = git.unborn_branch()
        commit = None
    else:
        commit, _, reference = answer.decode("utf-8", "backslashreplace").strip().partition("\n")
    branch = None if reference in (None, "", "HEAD") else reference.removeprefix("refs/heads/")
    return commit, branch


def _remote(git: Git, branch: str | None) -> str | None:
    """The public URL of the branch's remote, else of origin, else of the only one."""
    urls = {key[7:-4]: url for key, url in git.config.items() if key.startswith("remote.") and key.endswith(".url")}
    name = git.config.get(f"branch.{branch}.remote", "origin")
    if name not in urls and len(urls) == 1:
        name = next(iter(urls))
    return public_url(urls[name]) if name in urls else None


def public_url(url: str) -> str | None:
    """A remote's URL without user, password, token, query and fragment. None for a path of this machine, a command,
    or where an unusual password makes it unclear which part is secret."""
    url = url.encode("utf-8", "backslashreplace").decode()
    if "::" in url.split("/", 1)[0]:
        return None
    if "://" not in url:
        match = re.fullmatch(r"(?:([^@/]*)@)?([^:/@]+):(?!/?/)(.+)", url)
        if match is None or "@" in match[3] or re.fullmatch(r"[A-Za-z]", match[2]):
            return None
        user = "git@" if match[1] == "git" else ""
        return _TOKEN.sub("***", f"{user}{match[2]}:{re.split('[?#]', match[3])[0]}")
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port is not None else ""
        host = parts.hostname
    except ValueError:
        return None
    if parts.scheme == "file" or not host or "@" in parts.path:
        return None
    host = f"[{host}]" if ":" in host else host
    user = "git@" if parts.username == "git" and parts.password is None else ""
    return _TOKEN.sub("***", urlunsplit((parts.scheme, user + host + port, parts.path, "", "")))


def _runner_ignored(root: bytes, cache: Path, paths: Sequence[bytes]) -> set[bytes]:
    """The paths that .runnerignore files (gitignore syntax, in any folder) exclude, tracked or not.

    Git reads the syntax: a scratch index of the names alone is asked which of them the patterns match.
    """
    if RUNNERIGNORE not in b"\0".join(paths) and not os.path.lexists(os.path.join(root, RUNNERIGNORE)):
        return set()
    git = Git(cache, root, None)
    with tempfile.TemporaryDirectory(dir=cache / "source") as scratch:
        index = os.fsencode(os.path.join(scratch, "index"))
        lines = b"".join(b"100644 " + b"0" * 39 + b"1\t" + path + b"\0" for path in paths)
        git.start(["update-index", "-z", "--index-info"], cwd=root, index=index, stdin=lines).result()
        matched = git.start(
            ["ls-files", "-z", "-c", "-i", "--exclude-per-directory=" + RUNNERIGNORE.decode()], cwd=root, index=index
        ).result()
    return set(matched.split(b"\0")) - {b""}


def modified(files: Files, root: bytes, suspects: Sequence[bytes]) -> set[bytes]:
    """Of the tracked `suspects`, whose bytes differ from the index's, those that git too calls modified.

    Line-end conversion and the like make bytes differ where nothing was modified. Filter programs (LFS) are never run:
    there git's record of the file's times decides.
    """
    if files.git is None or not suspects:
        return set(suspects)
    asked = suspects if len(suspects) <= 500 else []
    listing = files.git.start(["ls-files", "-z", "-m", "--", *asked], cwd=root).result()
    inner = tuple(path + b"/" for path in files.nested)
    return (set(listing.split(b"\0")) & set(suspects)) | {path for path in suspects if path.startswith(inner)}
