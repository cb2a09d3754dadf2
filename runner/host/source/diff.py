"""What differs between two source trees, from the store alone: the list of files and a unified diff."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from runner.host.source.archive import Member, members, read_member
from runner.host.source.exports import archive
from runner.host.source.git import printable

_MAX_TEXT_BYTES = 1_000_000
"""Larger files are only named: comparing lines takes time that grows with the square of their number."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One file that differs."""

    path: str
    kind: str
    """added, removed, modified, or mode (the same bytes; executable, or a symlink, in only one of them)."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """From one tree to another. Equal trees: no changes, no text."""

    changes: tuple[Change, ...]
    text: str
    """Unified diff; binary and very large files are named in it without their content."""


def diff(tree_a: str, tree_b: str, cache: Path) -> Difference:
    """How `tree_b` differs from `tree_a`.

    Raises:
        RunnerError: the store lacks one of them.
    """
    if tree_a == tree_b:
        return Difference(changes=(), text="")
    old_path, new_path = archive(tree_a, cache), archive(tree_b, cache)
    changes: list[Change] = []
    text: list[str] = []
    with old_path.open("rb") as old, new_path.open("rb") as new:
        before = {member.path: member for member in members(old, old_path)}
        after = {member.path: member for member in members(new, new_path)}
        for path in sorted(before.keys() | after.keys()):
            a, b = before.get(path), after.get(path)
            kind = _kind(old, a, new, b)
            if kind is not None:
                name = printable(path)
                changes.append(Change(path=name, kind=kind))
                text += _section(name, a, _text(old, a), b, _text(new, b))
    return Difference(changes=tuple(changes), text="".join(text))


def _kind(old: IO[bytes], a: Member | None, new: IO[bytes], b: Member | None) -> str | None:
    if a is None:
        return "added"
    if b is None:
        return "removed"
    if a.size != b.size or not _same(old, a, new, b):
        return "modified"
    return "mode" if a.mode != b.mode else None


def _same(old: IO[bytes], a: Member, new: IO[bytes], b: Member) -> bool:
    return all(x == y for x, y in zip(read_member(old, a), read_member(new, b), strict=True))


def _text(archive: IO[bytes], member: Member | None) -> list[str] | None:
    """The lines of a file; of one that is not there none; None for what is not text of a sensible size."""
    if member is None:
        return []
    if member.size > _MAX_TEXT_BYTES:
        return None
    content = b"".join(read_member(archive, member))
    if b"\0" in content:
        return None
    return [line + "\n" for line in content.decode("utf-8", "backslashreplace").split("\n")]


def _section(
    name: str, a: Member | None, old: list[str] | None, b: Member | None, new: list[str] | None
) -> Iterator[str]:
    from_name = "/dev/null" if a is None else f"a/{name}"
    to_name = "/dev/null" if b is None else f"b/{name}"
    yield f"diff a/{name} b/{name}\n"
    if a is not None and b is not None and a.mode != b.mode:
        yield f"old mode {a.mode:o}\nnew mode {b.mode:o}\n"
    if old is None or new is None:
        yield f"{from_name} and {to_name} differ: binary or large, {_bytes(a)} and {_bytes(b)}\n"
        return
    for line in difflib.unified_diff(_lines(old), _lines(new), from_name, to_name):
        yield line if line.endswith("\n") else line + "\n\\ No newline at end of file\n"


def _bytes(member: Member | None) -> str:
    return "none" if member is None else f"{member.size} bytes"


def _lines(lines: list[str]) -> list[str]:
    """`lines` as split above, the last one without the newline it never had; an empty last one is none."""
    if not lines:
        return []
    last = lines[-1][:-1]
    return [*lines[:-1], last] if last else lines[:-1]
