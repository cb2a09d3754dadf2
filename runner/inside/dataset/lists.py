r"""List files: which examples a split holds. One line each, columns between tabs:

    name <TAB> path <TAB> label

`path` is relative to the data set's root, so that a list holds on the host, in a container and on another machine:
`raw/cats/17.png` is a file, `raw/data_batch_1.bin#17` record 17, counted from 0, of a file. A backslash, a tab, a line
break, a `#` and a byte that is no UTF-8 stand in names and paths as `\\`, `\t`, `\n`, `\r` and `\xNN`: what is left is
text that any tool reads line by line.
"""

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runner.contract.errors import RunnerError

Labels = NDArray[np.int64]

_SHORT = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_LONG = {short: plain for plain, short in _SHORT.items()}
_SPECIAL = re.compile("[\\\\\t\n\r\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")
_PLAIN = re.compile(rb"[\w-][\w. -]*(?:/[\w-][\w. -]*)*")
"""A path without an escape, a record, or a part that is empty or begins with a dot."""
_ESCAPE = re.compile(rb"\\(?:x[0-9a-f]{2}|.?)", re.DOTALL)


class DataError(RunnerError):
    """The data is not what its format promises. The text names the file, what was found and what was expected."""


@dataclass(frozen=True)
class Entry:
    """One example of a split."""

    path: str
    """Of the file, relative to the data set's root. Bytes that are no UTF-8 as surrogates, as os.fsdecode gives them."""
    label: int
    record: int | None = None
    """Which record of the file; None where the file is the example."""
    name: str | None = None
    """What people call it; by default the last part of the path, with the record's number."""

    @property
    def line(self) -> str:
        """The line of a list file."""
        record = "" if self.record is None else f"#{self.record}"
        name = os.path.basename(self.path) + record if self.name is None else self.name
        return f"{quoted(name)}\t{self.reference}\t{self.label}\n"

    @property
    def reference(self) -> str:
        """The path, and the record, as a list file holds them. There is one way to write each."""
        return quoted(self.path).replace("#", "\\x23") + ("" if self.record is None else f"#{self.record}")


def quoted(text: str) -> str:
    """`text` without any character that would end a column or a line."""
    return _SPECIAL.sub(_quote, text)


def _quote(found: "re.Match[str]") -> str:
    character = found[0]
    if character in _SHORT:
        return _SHORT[character]
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def unquoted(text: bytes) -> str:
    """What `quoted` was given, from the bytes of a list file.

    Raises:
        ValueError: a backslash that begins none of the five.
    """
    if b"\\" in text:
        text = _ESCAPE.sub(_unquote, text)
    return os.fsdecode(text)


def _unquote(found: "re.Match[bytes]") -> bytes:
    escape = found[0]
    if escape[1:2] == b"x" and len(escape) == 4:
        return bytes([int(escape[2:], 16)])
    plain = _LONG.get(escape.decode("latin-1"))
    if plain is None:
        raise ValueError(f"{escape.decode('latin-1')!r} is no escape")
    return plain.encode()


def write_list(path: Path, entries: Iterable[Entry]) -> None:
    """Write a list file, a line at a time."""
    with path.open("w", encoding="utf-8", newline="") as handle:
        handle.writelines(entry.line for entry in entries)


class ListFile:
    """A list file, read. A million lines take their own bytes and 16 more each."""

    def __init__(self, path: Path) -> None:
        """Read `path`.

        Raises:
            DataError: it is not there, or a line has not its three columns or no whole number for a label.
        """
        self.path = path
        try:
            self._text = path.read_bytes()
        except FileNotFoundError:
            raise DataError(f"{path}: not there; make it with `make dataset DATASET=… STAGE=lists`") from None
        if self._text and not self._text.endswith(b"\n"):
            raise DataError(f"{path}: its last line does not end: cut short; make the lists again")
        ends = np.flatnonzero(np.frombuffer(self._text, np.uint8) == ord("\n"))
        self._starts = np.concatenate([[0], ends + 1]).astype(np.int64)
        self.labels: Labels = np.empty(len(ends), np.int64)
        """Of every line."""
        for index, line in enumerate(self._lines()):
            columns = line.split(b"\t")
            try:
                _, _, label = columns
                self.labels[index] = int(label)
            except (ValueError, OverflowError):
                raise DataError(
                    f"{path}:{index + 1}: found {line[:80]!r}, expected name, path and a whole number, tabs between"
                ) from None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Entry:
        """The entry of one line.

        Raises:
            DataError: its path is absolute, leads out of the data set, or cannot be read.
        """
        line = self._text[self._starts[index] : self._starts[index + 1] - 1]
        name, path, label = line.split(b"\t")
        file, mark, record = path.partition(b"#")
        try:
            if mark and not record.isdigit():
                raise ValueError("expected a number behind #")
            entry = Entry(unquoted(file), int(label), int(record) if mark else None, unquoted(name))
        except ValueError as error:
            raise DataError(f"{self.path}:{index + 1}: {path[:80]!r}: {error}") from None
        if not {"", ".", ".."}.isdisjoint(entry.path.split("/")) or entry.reference.encode() != path:
            raise DataError(
                f"{self.path}:{index + 1}: {path[:80]!r}: expected a path below the data set's root, in the one way of writing it"
            )
        return entry

    def path_of(self, index: int) -> str:
        """The path of one line, as its entry has it; an Entry takes many times as long to make.

        Raises:
            DataError: as for the entry.
        """
        path = self._text[self._starts[index] : self._starts[index + 1]].split(b"\t", 2)[1]
        return path.decode() if _PLAIN.fullmatch(path) else self[index].path

    def __iter__(self) -> Iterator[Entry]:
        return (self[index] for index in range(len(self)))

    def references(self) -> Iterator[bytes]:
        """The second column of every line as it stands: equal for equal examples, since there is one way to write each."""
        return (line.split(b"\t", 2)[1] for line in self._lines())

    def _lines(self) -> Iterator[bytes]:
        text, starts = self._text, self._starts.tolist()
        for start, end in itertools.pairwise(starts):
            yield text[start : end - 1]
