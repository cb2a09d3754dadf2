"""sha256 of many files. Also a program, of which several run at once: `python -I -S hashing.py`.

Hashing small files is bound by Python itself, so threads do not help. Each process is sent runs of paths and answers
with columns, so that this process does nothing for a single file. Standard library only, and nothing of ours: a process
starts in 20 ms.
"""

import errno
import hashlib
import os
import struct
import subprocess
import sys
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

CHANGED = -1
"""In place of an errno: the file changed while it was being read."""

_BLOCK = 2**20
_RUN = 256
"""At most so many files are sent at once."""
_ALONE = 1500
_ALONE_BYTES = 64 * 2**20
"""Up to so much is hashed in this process: starting others would take longer."""
_MAX_PROCESSES = 16
_LENGTH = struct.Struct("<q")

Note = Callable[[int], None]
"""Called with the bytes of files that are done, from any thread."""


@dataclass
class Hashed:
    """What was found, in columns: one item a file."""

    problems: "array[int]" = field(default_factory=lambda: array("i"))
    """0, an errno, or CHANGED."""
    digests: bytearray = field(default_factory=bytearray)
    """32 bytes a file."""
    keys: "array[int]" = field(default_factory=lambda: array("q"))
    """Device, inode, size, mtime_ns, ctime_ns of a file, the same before and after its bytes were read."""
    modes: "array[int]" = field(default_factory=lambda: array("I"))
    """Permission bits."""

    def add(self, path: bytes) -> None:
        """Hash one file."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                before = os.fstat(descriptor)
                digest = _digest(descriptor, before.st_size)
                after = os.fstat(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            self._append(error.errno or errno.EIO, bytes(32), (0, 0, 0, 0, 0), 0)
            return
        key = _key(after)
        self._append(0 if key == _key(before) else CHANGED, digest, key, after.st_mode & 0o7777)

    def _append(self, problem: int, digest: bytes, key: tuple[int, ...], mode: int) -> None:
        self.problems.append(problem)
        self.digests += digest
        self.keys.extend(key)
        self.modes.append(mode)

    def extend(self, other: "Hashed") -> None:
        """Add the columns of `other` behind these."""
        self.problems.extend(other.problems)
        self.digests += other.digests
        self.keys.extend(other.keys)
        self.modes.extend(other.modes)

    def to_bytes(self) -> bytes:
        """The columns one behind the other."""
        return b"".join((self.problems.tobytes(), self.digests, self.keys.tobytes(), self.modes.tobytes()))

    @classmethod
    def from_bytes(cls, content: bytes, count: int) -> "Hashed":
        """The columns that `to_bytes` made of `count` files."""
        found, start = cls(), 0
        for column, size in ((found.problems, 4), (found.digests, 32), (found.keys, 40), (found.modes, 4)):
            part = content[start : start + size * count]
            if isinstance(column, bytearray):
                column += part
            else:
                column.frombytes(part)
            start += len(part)
        return found


def hash_files(paths: Sequence[bytes], note: Note) -> Hashed:
    """The checksum of each path, in order.

    Raises:
        OSError: a hashing process could not be started or ended early. (What is wrong with a file is in `problems`.)
    """
    workers = min(len(os.sched_getaffinity(0)), _MAX_PROCESSES, len(paths))
    if workers < 2 or (len(paths) <= _ALONE and sum(map(_size, paths)) <= _ALONE_BYTES):
        return _hash_run(paths, note)
    length = max(1, min(_RUN, len(paths) // (workers * 16)))
    runs = [paths[start : start + length] for start in range(0, len(paths), length)]
    results: list[Hashed | None] = [None] * len(runs)
    waiting = iter(range(len(runs)))
    errors: list[BaseException] = []

    def work() -> None:
        try:
            _feed(waiting, runs, results, note)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    found = Hashed()
    for result in results:
        assert result is not None
        found.extend(result)
    return found


def _size(path: bytes) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _hash_run(paths: Sequence[bytes], note: Note) -> Hashed:
    found = Hashed()
    for path in paths:
        found.add(path)
        note(found.keys[-3])
    return found


def _feed(waiting: Iterator[int], runs: list[Sequence[bytes]], results: list[Hashed | None], note: Note) -> None:
    """Start one process and send it one run after another until none is left."""
    command = [sys.executable, "-I", "-S", __file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            for number in waiting:
                request = b"\0".join(runs[number])
                process.stdin.write(_LENGTH.pack(len(request)) + request)
                process.stdin.flush()
                size = len(runs[number]) * 80
                answer = process.stdout.read(size)
                if len(answer) < size:
                    raise OSError(errno.EPIPE, "a hashing process ended early")
                found = results[number] = Hashed.from_bytes(answer, len(runs[number]))
                note(sum(found.keys[2::5]))
        except BaseException:
            process.kill()
            raise


def _digest(descriptor: int, size: int) -> bytes:
    block = os.read(descriptor, min(size + 1, _BLOCK))
    if len(block) == size < _BLOCK:
        return hashlib.sha256(block).digest()
    found = hashlib.sha256(block)
    while block := os.read(descriptor, _BLOCK):
        found.update(block)
    return found.digest()


def _key(status: os.stat_result) -> tuple[int, int, int, int, int]:
    return status.st_dev, status.st_ino & (2**63 - 1), status.st_size, status.st_mtime_ns, status.st_ctime_ns


def main() -> None:
    """Answer each run of NUL-separated paths, its length before it, with its columns."""
    while head := sys.stdin.buffer.read(_LENGTH.size):
        request = sys.stdin.buffer.read(_LENGTH.unpack(head)[0])
        answer = _hash_run(request.split(b"\0"), lambda size: None).to_bytes()
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(1)
