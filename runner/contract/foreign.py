"""Files that a launch's own command wrote, read without trusting it: whatever lies there, the reader gets a value or None.

Project code may leave anything under a name that we read: half a file, a pipe that nobody writes to, a link out of the
run, NaN, a gigabyte of brackets. None of that may stop a list of runs or keep an outcome from being recorded.
"""

import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

MOST_BYTES = 1 << 20
"""The largest pointer, sidecar or scores file that is read."""


def open_regular(path: Path) -> IO[bytes] | None:
    """The regular file at `path`, open for reading; None for anything else, a link included."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    return None


def line_in(path: Path) -> str | None:
    """The text of a file of one line; None where there is none."""
    text = _content(path).decode(errors="replace").strip()
    return text if text.isprintable() and text else None


def object_in(path: Path) -> Mapping[str, Any]:
    """The JSON object in a file; {} where there is none."""
    try:
        value = json.loads(_content(path))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def number(value: Any) -> float | None:
    """A finite number; JSON writers other than ours write NaN and Infinity too."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def integer(value: Any) -> int | None:
    """An integer."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def text(value: Any) -> str | None:
    """A text."""
    return value if isinstance(value, str) else None


def _content(path: Path) -> bytes:
    handle = open_regular(path)
    if handle is None:
        return b""
    with handle:
        return handle.read(MOST_BYTES)
