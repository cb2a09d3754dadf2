"""What a command left in its run folder is read without trust: a value or None, never an exception, never a wait."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.contract import checkpoints, foreign


def leave_pipe(path: Path) -> None:
    os.mkfifo(path)


def leave_link(path: Path) -> None:
    path.with_name("other").write_text('{"score": 1.0}')
    path.symlink_to("other")


STRANGE: dict[str, Callable[[Path], object]] = {
    "absent": lambda path: None,
    "a pipe": leave_pipe,
    "a link": leave_link,
    "a folder": Path.mkdir,
    "bytes": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "brackets": lambda path: path.write_text("[" * 200_000),
    "a list": lambda path: path.write_text("[1]"),
    "half": lambda path: path.write_text('{"score": 1'),
}


@pytest.mark.parametrize("what", STRANGE)
def test_strange_files_hold_no_object(tmp_path: Path, what: str) -> None:
    STRANGE[what](tmp_path / "a.json")
    assert foreign.object_in(tmp_path / "a.json") == {}


@pytest.mark.parametrize("what", [*STRANGE, "a long name", "a path", "nul"])
def test_strange_pointers_point_nowhere(tmp_path: Path, what: str) -> None:
    texts = {"a long name": "x" * 5000, "a path": "../a", "nul": "a\0b"}
    leave = STRANGE.get(what, lambda path: path.write_text(texts[what]))
    leave(tmp_path / "best")
    assert checkpoints.pointed(tmp_path, "best") is None


def test_a_sidecar_says_what_it_can(tmp_path: Path) -> None:
    """NaN, infinities and other types are nothing that a record could hold."""
    sidecar = tmp_path / "a_1.json"
    for text in ('{"score": NaN, "step": "3", "sha256": 7}', '{"score": 1e999}', '{"score": 1' + "0" * 400 + "}"):
        sidecar.write_text(text)
        assert set(checkpoints.facts(tmp_path / "a_1.pt").values()) == {None}
    sidecar.write_text('{"score": 1, "step": 3, "more": true}')
    assert checkpoints.facts(tmp_path / "a_1.pt") == {
        "step": 3,
        "score": 1.0,
        "sha256": None,
        "state_sha256": None,
        "size": None,
    }
