"""Downloads from a real HTTP server on this machine that can refuse ranges, cut off, and send other bytes."""

import errno
import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from runner.contract.checksum import Checksum
from runner.contract.errors import RunnerError
from runner.host.data.download import download, ssl_context

CONTENT = bytes(range(256)) * 4096
MD5 = Checksum("md5", hashlib.md5(CONTENT).hexdigest())


@dataclass
class Behaviour:
    """What the server does; each test sets its own."""

    content: bytes = CONTENT
    etag: str | None = '"one"'
    ranges: bool = True
    length: bool = True
    cut_after: list[int] = field(default_factory=list)
    """Bytes after which each next answer is cut off; when the list is empty answers are whole."""
    statuses: list[int] = field(default_factory=list)
    """Status of each next answer, before any content."""
    seen: list[tuple[str | None, str]] = field(default_factory=list)
    """Range header and path of each request."""


class Handler(BaseHTTPRequestHandler):
    behaviour: Behaviour

    def do_GET(self) -> None:
        it = self.behaviour
        wanted = self.headers.get("Range")
        it.seen.append((wanted, self.path))
        if it.statuses:
            self.send_error(it.statuses.pop(0))
            return
        match = re.fullmatch(r"bytes=(\d+)-", wanted or "")
        condition = self.headers.get("If-Range")
        start = int(match[1]) if match and it.ranges and condition in (None, it.etag) else 0
        if start >= len(it.content) > 0 and match and it.ranges:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(it.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = it.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(it.content) - 1}/{len(it.content)}")
        if it.etag:
            self.send_header("ETag", it.etag)
        if it.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: it.cut_after.pop(0)] if it.cut_after else body)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, Behaviour]]:
    behaviour = Behaviour()
    handler = type("BoundHandler", (Handler,), {"behaviour": behaviour})
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}/data.tar.gz", behaviour
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def fetch(url: str, target: Path, checksum: Checksum | None = MD5, **options: object) -> Path:
    return download(url, target, checksum=checksum, pause_s=0.01, **options)  # type: ignore[arg-type]


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_whole_file_with_progress(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, _ = server
    calls: list[tuple[int, int | None]] = []
    target = fetch(url, tmp_path / "deep" / "data", progress=lambda have, total: calls.append((have, total)))
    assert target.read_bytes() == CONTENT
    assert calls[0] == (0, len(CONTENT))
    assert calls[-1] == (len(CONTENT), len(CONTENT))
    assert [have for have, _ in calls] == sorted(have for have, _ in calls)
    assert left_in(tmp_path / "deep") == ["data"]


def test_what_is_there_is_not_fetched_again(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, it = server
    fetch(url, tmp_path / "data")
    fetch(url, tmp_path / "data")
    assert len(it.seen) == 1


def test_a_wrong_file_that_is_there_is_replaced(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"something else")
    assert fetch(server[0], tmp_path / "data").read_bytes() == CONTENT


def test_goes_on_after_each_cut(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, it = server
    it.cut_after = [300_000, 300_000, 0, 0]
    assert fetch(url, tmp_path / "data").read_bytes() == CONTENT
    assert [wanted for wanted, _ in it.seen] == [None, "bytes=300000-", *["bytes=600000-"] * 3]


def test_gives_up_and_the_next_call_goes_on(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, it = server
    it.cut_after = [500_000, 0, 0, 0]
    with pytest.raises(
        RunnerError, match=r"ended after 500000 of 1048576 bytes; 500000 bytes are kept, the same command"
    ):
        fetch(url, tmp_path / "data", attempts=3)
    assert not (tmp_path / "data").exists()
    it.cut_after.clear()
    it.seen.clear()
    assert fetch(url, tmp_path / "data").read_bytes() == CONTENT
    assert it.seen == [("bytes=500000-", "/data.tar.gz")]


def test_goes_on_after_sigkill(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, it = server
    it.cut_after = [400_000]
    code = (
        "import os, sys; from pathlib import Path; from runner.host.data.download import download\n"
        "die = lambda have, total: have >= 400_000 and os.kill(os.getpid(), 9)\n"
        "download(sys.argv[1], Path(sys.argv[2]), progress=die)"
    )
    killed = subprocess.run([sys.executable, "-c", code, url, str(tmp_path / "data")], check=False)
    assert killed.returncode == -9
    assert (tmp_path / "data.partial").exists()
    assert fetch(url, tmp_path / "data").read_bytes() == CONTENT
    assert it.seen[-1][0] is not None


def test_a_server_without_ranges_begins_again(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, it = server
    it.ranges, it.etag, it.cut_after = False, None, [300_000, 400_000]
    assert fetch(url, tmp_path / "data").read_bytes() == CONTENT


def test_a_file_that_changed_in_between_begins_again(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, it = server
    it.content, it.etag, it.cut_after = b"old" * 100_000, '"old"', [1000, 0]
    with pytest.raises(RunnerError, match="1000 bytes are kept"):
        fetch(url, tmp_path / "data", attempts=1)
    it.content, it.etag, it.cut_after = CONTENT, '"one"', []
    assert fetch(url, tmp_path / "data").read_bytes() == CONTENT


def test_a_changed_file_without_etag_is_caught_by_the_checksum(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, it = server
    it.etag = None
    (tmp_path / "data.partial").write_bytes(b"x" * 1000)
    assert fetch(url, tmp_path / "data").read_bytes() == CONTENT
    assert [wanted for wanted, _ in it.seen] == ["bytes=1000-", None]


def test_without_checksum_and_version_nothing_is_resumed(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    (tmp_path / "data.partial").write_bytes(b"x" * 1000)
    assert fetch(server[0], tmp_path / "data", checksum=None).read_bytes() == CONTENT


def test_a_partial_file_that_is_whole_or_too_long(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    for size in (len(CONTENT), len(CONTENT) + 5):
        (tmp_path / "data.partial").write_bytes((CONTENT + b"extra")[:size])
        assert fetch(server[0], tmp_path / "data").read_bytes() == CONTENT
        (tmp_path / "data").unlink()


def test_a_wrong_checksum_keeps_nothing(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, it = server
    it.content = b"another file"
    with pytest.raises(
        RunnerError, match=f"md5 of the 12 bytes that came is [0-9a-f]{{32}}, expected {MD5.digest}; nothing"
    ):
        fetch(url, tmp_path / "data")
    assert left_in(tmp_path) == []


def test_a_length_that_is_not_said(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, it = server
    it.length = False
    totals: set[int | None] = set()
    assert fetch(url, tmp_path / "data", progress=lambda have, total: totals.add(total)).read_bytes() == CONTENT
    assert totals == {None}


def test_an_empty_file(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, it = server
    it.content = b""
    assert fetch(url, tmp_path / "data", checksum=None).read_bytes() == b""


def test_a_busy_server_is_asked_again(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, it = server
    it.statuses = [503, 429]
    assert fetch(url, tmp_path / "data").read_bytes() == CONTENT


def test_a_refusal_says_what_to_do(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, it = server
    it.statuses = [404]
    with pytest.raises(RunnerError, match=r"the server answered 404 Not Found; get the file by other means .* SOURCE="):
        fetch(url, tmp_path / "data")


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match=r"no connection \(.*refused.*\); 0 bytes are kept"):
        fetch("http://127.0.0.1:9/data", tmp_path / "data", attempts=2)


def test_only_http(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="expected an address that begins with https"):
        fetch("file:///etc/hostname", tmp_path / "data")


def test_the_environments_proxy_is_asked(
    server: tuple[str, Behaviour], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, it = server
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", url.removesuffix("/data.tar.gz"))
    assert fetch("http://somewhere.invalid/file", tmp_path / "data").read_bytes() == CONTENT
    assert it.seen == [(None, "http://somewhere.invalid/file")]


def test_a_bundle_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for bundle in (tmp_path / "ca.pem", tmp_path / "absent.pem"):
        with pytest.raises(
            RunnerError, match=rf"REQUESTS_CA_BUNDLE={re.escape(str(bundle))}: cannot be read as certif"
        ):
            ssl_context({"REQUESTS_CA_BUNDLE": str(bundle)})


def test_two_at_once_fetch_it_once(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, it = server
    code = "import sys; from pathlib import Path; from runner.host.data.download import *\n" + (
        "download(sys.argv[1], Path(sys.argv[2]), checksum=Checksum('md5', sys.argv[3]))"
    )
    command = [sys.executable, "-c", code, url, str(tmp_path / "data"), MD5.digest]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert len(it.seen) == 1
    assert (tmp_path / "data").read_bytes() == CONTENT


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_in_one_line(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    (tmp_path / "data.partial").symlink_to("/dev/full")
    with pytest.raises(RunnerError, match=rf"{os.strerror(errno.ENOSPC)}; make room and run the same command"):
        fetch(server[0], tmp_path / "data")
