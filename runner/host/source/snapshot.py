"""The source of a launch, exactly as it stands: every file that is tracked, or untracked and not ignored, byte by byte.

files = names from git (the user's repository is only read; a folder that is no repository is listed by the same rules)
for each file that looks different from last time: read it, hash it
tree = the git tree id of all of them
a tree not seen before is packed, each file read once: the id is that of the packed bytes, nothing can slip between
"""

import hashlib
import os
import secrets
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.contract.errors import RunnerError
from runner.host.source.archive import Changed, pack
from runner.host.source.exports import Discard, disk_errors, has_archive, keep_archive, trees_folder
from runner.host.source.files import Files, list_files, modified
from runner.host.source.git import printable
from runner.host.source.policy import check, rules_key
from runner.host.source.tree import (
    Entry,
    Look,
    LookTable,
    git_mode,
    look,
    now_ns,
    part_ids,
    settled,
    tree_ids,
)

_MAX_NAMES = 1000
_TRIES = 5


@dataclass(frozen=True, kw_only=True)
class Source:
    """What code a launch runs, and what its repository says of it. Names in here are printable text of one line."""

    tree: str
    """Git tree id (SHA-1) of all files; `exports` turns it into files."""
    trees: Mapping[str, str]
    """Tree ids of the parts: project (where one was named), runner, rest."""
    kind: str
    """git, or folder where there is no repository."""
    commit: str | None = None
    """HEAD; None in a folder, and before the first commit."""
    branch: str | None = None
    """None on a detached HEAD."""
    remote: str | None = None
    """URL of the branch's remote, without credentials; None for a path of this machine."""
    dirty: tuple[str, ...] = ()
    """Tracked files that differ from HEAD: staged, modified or deleted. At most a thousand names."""
    dirty_total: int = 0
    untracked: tuple[str, ...] = ()
    """Files that git does not know yet; they are in the tree. At most a thousand names."""
    untracked_total: int = 0
    nested: tuple[str, ...] = ()
    """Nested repositories and submodules whose files are in the tree."""
    files: int = 0
    """How many files the tree has."""


def snapshot(
    root: Path,
    cache: Path,
    *,
    project: str | None = None,
    allow: Sequence[str] = (),
    exclude: Sequence[Path] = (),
    keep: bool = True,
) -> Source:
    """Take the source of the house `root` as it stands now and keep it in the cache.

    `allow` names secrets and large files to take all the same (patterns for a path or a file name), `exclude` folders
    of results and data to leave out unless tracked; the cache is left out by itself. With `keep` false (a dry run) the
    tree is only computed.

    Raises:
        RunnerError: a secret or a large untracked file is in it; git fails; a file cannot be read or keeps changing.
    """
    if not root.is_dir():
        raise RunnerError(f"{root}: no folder there: the source of a launch is a folder, usually a clone")
    resolved = os.fsencode(root.resolve())
    leave_out = _within(resolved, root, [*exclude, cache])
    changed: Changed | None = None
    with disk_errors("source snapshot"):
        (cache / "source" / "houses").mkdir(parents=True, exist_ok=True)
        for _ in range(_TRIES):
            try:
                return _snapshot(resolved, cache.resolve(), project, allow, leave_out, keep)
            except Changed as error:
                changed = error
    name = printable(changed.args[0]) if changed is not None else ""
    raise RunnerError(f"{name} keeps changing while the source is read: stop what writes it, or add it to .gitignore")


def _snapshot(
    root: bytes, cache: Path, project: str | None, allow: Sequence[str], exclude: Sequence[bytes], keep: bool
) -> Source:
    started = now_ns()
    memory = cache / "source" / "houses" / f"{hashlib.sha256(root).hexdigest()[:32]}.look"
    known = LookTable({}, {}, {})
    seen: dict[bytes, Look] = {}

    def remember() -> None:
        nonlocal known, seen
        known = LookTable.load(memory) or known
        seen = look(root, known.looks)

    files = list_files(root, cache, exclude, meanwhile=remember)
    looks = _look_at(root, [*files.tracked, *files.untracked], seen)
    facts = known.facts
    rules = rules_key(allow)
    new = [path for path in looks if path not in known.looks] if facts.get("rules") == rules else looks
    check(looks, new, files.untracked, allow)
    if "tree" in facts and looks == known.looks and (not keep or has_archive(facts["tree"], cache)):
        oids = known.oids
        parts = facts["trees"].get(project or "")
        entries = None
    else:
        entries = _read(root, cache, looks, known, keep)
        oids = {entry.path: entry.oid for entry in entries}
        parts = None
    if parts is None or facts["rules"] != rules:
        entries = entries or [Entry(path, git_mode(s[0]) or 0, oids[path]) for path, s in looks.items()]
        ids = tree_ids(entries)
        parts = part_ids(entries, ids, project)
        others = facts["trees"] if facts.get("tree") == ids[b""] else {}
        facts = {"tree": ids[b""], "trees": {**others, project or "": parts}, "rules": rules}
        LookTable(settled(looks, before_ns=started), oids, facts).save(memory)
    return _describe(root, files, looks, oids, facts["tree"], parts)


def _within(resolved: bytes, root: Path, paths: Iterable[Path]) -> list[bytes]:
    """The paths as they lie below the resolved root: both by name and with their symlinks followed."""
    given = os.fsencode(os.path.abspath(root))
    found = []
    for path in paths:
        name = os.fsencode(os.path.abspath(path))
        found += [name, os.fsencode(os.path.realpath(path))]
        if name.startswith(given + b"/"):
            found.append(resolved + name.removeprefix(given))
    return found


def _look_at(root: bytes, names: Sequence[bytes], seen: dict[bytes, Look]) -> dict[bytes, Look]:
    """What each file looks like (from `seen` where it is there); without what is gone or behind a symlinked folder."""
    seen = seen | look(root, [name for name in names if name not in seen])
    fitting = {mode for mode in {s[0] for s in seen.values()} if git_mode(mode) is not None}
    looks = {name: seen[name] for name in names if name in seen and seen[name][0] in fitting}
    parents = {name.rpartition(b"/")[0] for name in looks} - {b""}
    waiting = list(parents)
    while waiting:
        parent = waiting.pop().rpartition(b"/")[0]
        if parent and parent not in parents:
            parents.add(parent)
            waiting.append(parent)
    behind = tuple(p + b"/" for p, s in look(root, parents).items() if not stat.S_ISDIR(s[0]))
    return {name: s for name, s in looks.items() if not name.startswith(behind)} if behind else looks


def _read(root: bytes, cache: Path, looks: Mapping[bytes, Look], known: LookTable, keep: bool) -> list[Entry]:
    """The entries of all files; only those that look different are read, unless the tree has to be packed."""
    stale = [name for name, s in looks.items() if known.looks.get(name) != s]
    if known.looks or not keep:
        fresh = {entry.path: entry for entry in pack(root, stale, Discard())}
        entries = [fresh.get(name) or Entry(name, git_mode(s[0]) or 0, known.oids[name]) for name, s in looks.items()]
        if not keep or has_archive(tree_ids(entries)[b""], cache):
            return entries
    temporary = trees_folder(cache) / f".{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("wb", buffering=1 << 20) as handle:
            entries = pack(root, looks, handle)
        keep_archive(temporary, tree_ids(entries)[b""], cache)
    finally:
        temporary.unlink(missing_ok=True)
    return entries


def _describe(
    root: bytes,
    files: Files,
    looks: Mapping[bytes, Look],
    oids: Mapping[bytes, bytes],
    tree: str,
    parts: Mapping[str, str],
) -> Source:
    gone = {path for path in files.tracked if path not in looks and path not in files.skipped}
    spelled = {mode: b"%o" % (git_mode(mode) or 0) for mode in {s[0] for s in looks.values()}}
    suspects = [
        path
        for path, recorded in files.tracked.items()
        if path in looks and recorded != b"%s %s" % (spelled[looks[path][0]], oids[path])
    ]
    dirty = sorted(files.staged | gone | modified(files, root, suspects)) if files.git is not None else []
    untracked = sorted(path for path in files.untracked if path in looks) if files.git is not None else []
    return Source(
        tree=tree,
        trees=dict(parts),
        kind="folder" if files.git is None else "git",
        commit=files.commit,
        branch=files.branch,
        remote=files.remote,
        dirty=tuple(map(printable, dirty[:_MAX_NAMES])),
        dirty_total=len(dirty),
        untracked=tuple(map(printable, untracked[:_MAX_NAMES])),
        untracked_total=len(untracked),
        nested=tuple(printable(path) for path in sorted(files.nested)),
        files=len(looks),
    )
