"""Fetches one file over HTTP: goes on where it stopped, and is complete and checked or not there.

Standard library only. urllib takes proxies from http_proxy, https_proxy and no_proxy, and its certificates from
SSL_CERT_FILE and SSL_CERT_DIR; the bundle variables of other tools are honoured too.
"""

import errno
import fcntl
import http.client
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from runner.contract.checksum import Checksum
from runner.contract.errors import RunnerError
from runner.contract.jsonio import sync_folder

Progress = Callable[[int, int | None], None]
"""Called with the bytes there are and the bytes there will be, None where the server does not say."""

BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
_CHUNK = 1 << 18


class DownloadError(RunnerError):
    """The file could not be fetched, or is not the one that was expected."""


class _Cut(Exception):
    """The connection ended early; what came stays and the next request goes on from there."""


def download(
    url: str,
    target: Path,
    *,
    checksum: Checksum | None = None,
    progress: Progress = lambda have, total: None,
    attempts: int = 5,
    pause_s: float = 1.0,
    timeout_s: float = 60.0,
) -> Path:
    """Fetch `url` to `target`; at once if it is there with the right checksum. Returns `target`.

    What has come lies in `<target>.partial`, and the same call goes on from there, also after a kill. A second process
    that wants the same file waits for the first.

    Raises:
        DownloadError: the server refuses, keeps cutting off, or sends other bytes than the checksum names.
    """
    if not url.startswith(("http://", "https://")):
        raise DownloadError(f"{url}: expected an address that begins with https:// or http://")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    with _locked(target.with_name(f".{target.name}.lock")):
        if target.exists() and (checksum is None or checksum.of(target) == checksum.digest):
            return target
        if checksum is None and not _validator(partial).exists():
            partial.unlink(missing_ok=True)  # nothing could tell whether the rest belongs to the same file
        resumed = partial.exists() and partial.stat().st_size > 0
        try:
            _fetch(url, partial, progress, attempts, pause_s, timeout_s)
            if resumed and checksum is not None and checksum.of(partial) != checksum.digest:
                partial.unlink()  # the file on the server has changed since the first part came
                _fetch(url, partial, progress, attempts, pause_s, timeout_s)
        except OSError as error:
            raise DownloadError(f"{partial}: {error.strerror or error}; {_next_step(error)}") from error
        _accept(url, partial, target, checksum)
    return target


def _accept(url: str, partial: Path, target: Path, checksum: Checksum | None) -> None:
    if checksum is not None:
        found = checksum.of(partial)
        if found != checksum.digest:
            size = partial.stat().st_size
            partial.unlink()
            _validator(partial).unlink(missing_ok=True)
            raise DownloadError(
                f"{url}: {checksum.algorithm} of the {size} bytes that came is {found}, expected {checksum.digest}; "
                f"nothing was kept, try again or give the file with SOURCE="
            )
    with partial.open("rb+") as handle:
        os.fsync(handle.fileno())
    os.replace(partial, target)
    _validator(partial).unlink(missing_ok=True)
    sync_folder(target.parent)


def _fetch(url: str, partial: Path, progress: Progress, attempts: int, pause_s: float, timeout_s: float) -> None:
    """Request after request until the whole file has come. An attempt that brought something does not count."""
    left, before = attempts, -1
    while True:
        try:
            _request(url, partial, progress, timeout_s)
            return
        except _Cut as cut:
            have = partial.stat().st_size if partial.exists() else 0
            left = left - 1 if have <= before else attempts - 1
            before = max(have, before)
            if left <= 0:
                raise DownloadError(
                    f"{url}: {cut}; {have} bytes are kept, the same command goes on from there, or give it with SOURCE="
                ) from None
            time.sleep(pause_s)


def _request(url: str, partial: Path, progress: Progress, timeout_s: float) -> None:
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"User-Agent": "runner", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if _validator(partial).exists():
            headers["If-Range"] = _validator(partial).read_text()
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=ssl_context(os.environ)))
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=timeout_s) as response:
            _receive(response, partial, have, progress)
    except urllib.error.HTTPError as error:
        error.close()
        _refused(url, error, partial, have)
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise DownloadError(
                f"{url}: its certificate is not trusted ({error.reason.verify_message}); name your authority's file "
                f"in SSL_CERT_FILE"
            ) from None
        raise _Cut(f"no connection ({error.reason})") from None
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise _Cut(f"the connection broke ({type(error).__name__}: {error})") from None


def _receive(response: http.client.HTTPResponse, partial: Path, have: int, progress: Progress) -> None:
    start = 0
    if response.status == 206:
        match = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != have:
            partial.unlink()
            raise _Cut(f"asked for bytes from {have}, got {response.headers.get('Content-Range')!r}")
        start = have
    length = response.headers.get("Content-Length")
    total = None if length is None else start + int(length)
    tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
    if start == 0:
        _validator(partial).unlink(missing_ok=True)
        if tag and not tag.startswith("W/"):
            _validator(partial).write_text(tag)
    with partial.open("ab" if start else "wb") as out:
        have = _copy(response, out, start, total, progress)
    if total is not None and have < total:
        raise _Cut(f"the connection ended after {have} of {total} bytes")


def _copy(response: http.client.HTTPResponse, out: IO[bytes], have: int, total: int | None, progress: Progress) -> int:
    progress(have, total)
    while chunk := response.read(_CHUNK):
        out.write(chunk)
        have += len(chunk)
        progress(have, total)
    return have


def _refused(url: str, error: urllib.error.HTTPError, partial: Path, have: int) -> None:
    if error.code == 416:
        total = error.headers.get("Content-Range", "").rpartition("/")[2]
        if total == str(have):
            return  # all of it had come before
        partial.unlink()
        raise _Cut(f"{have} bytes were here, the server has {total or 'fewer'}; beginning again")
    if error.code in (408, 425, 429, 500, 502, 503, 504):
        raise _Cut(f"the server answered {error.code} {error.reason}")
    raise DownloadError(
        f"{url}: the server answered {error.code} {error.reason}; get the file by other means and give it with SOURCE="
    )


def ssl_context(environment: Mapping[str, str]) -> ssl.SSLContext:
    """The system's authorities, and those of the first bundle that the environment names.

    Raises:
        DownloadError: the bundle it names cannot be read.
    """
    context = ssl.create_default_context()
    for name in BUNDLES:
        bundle = environment.get(name)
        if bundle:
            try:
                context.load_verify_locations(cafile=bundle)
            except OSError as error:  # ssl.SSLError is one
                raise DownloadError(
                    f"{name}={bundle}: cannot be read as certificates ({error}); expected a PEM file"
                ) from None
            break
    return context


def _validator(partial: Path) -> Path:
    """Holds the ETag or date of the version that the partial file belongs to."""
    return partial.with_name(f"{partial.name}.version")


def _next_step(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "make room and run the same command, it goes on from there"
    return "run the same command again"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
