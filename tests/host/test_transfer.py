"""How a download is shown: real bytes from a real server, on a real terminal and in a pipe."""

import io
import os
import pty
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any, TextIO

import pytest

from runner.host.data.download import download
from runner.host.images.pins import parse_pins
from runner.host.images.wheels import wheelhouse
from runner.host.pages.transfer import TransferLine, shown
from tests.host.images.conftest import pin_text, write_wheel


class Slow(SimpleHTTPRequestHandler):
    """Sends a file in ten parts, with time to look at it in between."""

    pause_s = 0.0

    def copyfile(self, source: Any, outputfile: Any) -> None:
        data = source.read()
        for start in range(0, len(data), max(1, len(data) // 10)):
            threading.Event().wait(self.pause_s)
            outputfile.write(data[start : start + max(1, len(data) // 10)])

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path, pause_s: float) -> Iterator[str]:
    handler = type("Handler", (Slow,), {"pause_s": pause_s})
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def terminal() -> Iterator[tuple[TextIO, IO[bytes]]]:
    """A terminal to write to, and what appears on it."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as reader, os.fdopen(theirs, "w") as writer:
        yield writer, reader


def read(reader: IO[bytes]) -> str:
    return os.read(reader.fileno(), 1 << 16).decode()


def test_a_terminal_has_one_line_with_size_rate_and_time_left(
    terminal: tuple[TextIO, IO[bytes]], tmp_path: Path
) -> None:
    (tmp_path / "data").write_bytes(bytes(5_000_000))
    with served(tmp_path, 0.05) as address, shown("birds", pytest.fail, terminal[0]) as progress:
        download(f"{address}/data", tmp_path / "got", progress=progress)
    text = read(terminal[1])
    drawn = text.split("\r\x1b[K")[1:]
    assert len(drawn) > 2 and text.count("\n") == 1
    assert all(re.fullmatch(r"birds: \d\.\d of 5\.0 MB(, \d+\.\d MB/s, 0:0\d left)?\s*", line) for line in drawn), drawn
    assert drawn[-1].startswith("birds: 5.0 of 5.0 MB, ") and drawn[-1].endswith("0:00 left\r\n")


def test_rate_and_time_left_are_of_what_comes_now() -> None:
    """What was there before a download went on tells nothing about its speed."""
    stream, now = io.StringIO(), iter([0.0, 10.0])
    line = TransferLine("birds", stream, lambda: next(now))
    line(60_000_000, 200_000_000)
    line(80_000_000, 200_000_000)
    line.end()
    assert stream.getvalue() == (
        "\r\x1b[Kbirds: 60.0 of 200.0 MB\r\x1b[Kbirds: 80.0 of 200.0 MB, 2.0 MB/s, 1:00 left\n"
    )


def test_a_pipe_has_a_line_at_every_tenth() -> None:
    said: list[str] = []
    with shown("birds", said.append, io.StringIO()) as progress:
        for have in range(0, 200_000_001, 1_000_000):
            progress(have, 200_000_000)
    assert said == [f"birds: downloaded {tenth * 20} of 200 MB" for tenth in range(11)]
    said.clear()
    with shown("birds", said.append, io.StringIO()) as progress:
        for have in range(0, 120_000_000, 1_000_000):
            progress(have, None)
    assert said == ["birds: downloaded 0 MB", "birds: downloaded 50 MB", "birds: downloaded 100 MB"]


def test_the_bytes_of_a_large_wheel_are_seen_as_they_come(
    terminal: tuple[TextIO, IO[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip says nothing while one comes; the line is gone when it has."""
    (tmp_path / "index").mkdir()
    wheel = write_wheel(tmp_path / "index", "large", "1.0", text="#" + "x" * 3_000_000)
    monkeypatch.setattr("sys.stderr", terminal[0])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "pip"))
    said: list[str] = []
    with served(tmp_path / "index", 0.1) as address, (tmp_path / "log").open("w") as log:
        monkeypatch.setenv("PIP_FIND_LINKS", f"{address}/")
        folder = wheelhouse(parse_pins(pin_text(wheel), "test"), "linux/amd64", tmp_path, said.append, log)
    assert [path.name for path in folder.iterdir()] == [wheel.name]
    assert said[-1] == f"  {wheel.name} 3.0 MB"
    text = read(terminal[1])
    shares = [float(share) for share in re.findall(r"  large: (\d\.\d) of 3\.0 MB", text)]
    assert len([share for share in shares if share < 3]) > 2 and shares == sorted(
        shares
    )  # not counting a copy of pip's
    assert text.endswith("\r\x1b[K")
