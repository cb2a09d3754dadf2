"""Names that people type, and what is made of them: safe as a path, as a container name and on any screen."""

import difflib
import re
from collections.abc import Iterable
from datetime import datetime

from runner.contract.errors import RunnerError

LONGEST = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")


def check_name(kind: str, name: str) -> str:
    """`name`, if it can stand as one part of a path: letters, digits, `.`, `_` and `-`, not longer than 100 characters.

    Raises:
        RunnerError: it cannot; `kind` says what it was to name.
    """
    if len(name) > LONGEST:
        raise RunnerError(f"{kind}={name[:40]!r}…: {len(name)} characters; a name has at most {LONGEST}")
    if not _NAME.match(name) or ".." in name:
        raise RunnerError(
            f"{kind}={name!r}: not a name; use letters, digits, '.', '_' and '-', starting with a letter or digit"
        )
    return name


def unknown(kind: str, name: str, known: Iterable[str]) -> RunnerError:
    """The error for a name that is none of `known`: the nearest one, and the list."""
    have = sorted(known)
    near = difflib.get_close_matches(name, have, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return RunnerError(f"{kind}={name!r}: there is none of that name; {hint}have: {', '.join(have) or 'none'}")


def check_tag(tag: str) -> str:
    """A tag is any line of text of at most 100 characters; only its folder name is narrowed (see `slug`)."""
    if len(tag) > LONGEST or not tag.strip() or any(ord(c) < 32 or ord(c) == 127 for c in tag):
        raise RunnerError(
            f"TAG={tag[:40]!r}: found {len(tag)} characters; a tag is one line of 1 to {LONGEST} printable characters"
        )
    return tag


def slug(text: str) -> str:
    """`text` as part of a folder or container name: every run of other characters becomes one dash."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "run"


def session_name(machine: str, started: datetime, tag: str) -> str:
    """`session_{machine}_{YYYY_MM_DD_HH_MM_SS}_{tag}`, time in UTC. Made once and never parsed."""
    return f"session_{slug(machine)}_{started:%Y_%m_%d_%H_%M_%S}_{slug(tag)}"
