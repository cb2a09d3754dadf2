"""Run one command, keep its output, pass signals on and write down how it ended.

    python -I supervisor.py --log FILE --exit FILE [--umask 022] [--pty COLSxROWS] [--stdin] -- COMMAND [ARGUMENT …]

One file, standard library only: it is mounted into containers from the host's installation, whatever Python is inside.

    start COMMAND in a session of its own, stdin /dev/null, both streams on one pipe (or a pty)
    as output comes: the raw bytes to our stdout, at once; collapsed (see Collapser) to the end of LOG
    as a signal comes: to the command's process alone, which knows how to end its own workers
    when the command has ended: take what is still in the pipe, write EXIT, exit with the command's code

LOG and EXIT are written in place: both are bind-mounted files, which cannot be renamed. The exit code is the command's,
128 + n if signal n ended it, 127 if there is no such command, 126 if it cannot be executed.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False  # typing costs milliseconds
if TYPE_CHECKING:
    from typing import NoReturn

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
CHUNK = 1 << 16
DRAIN_S = 1.0
"""How long a process that outlives the command may keep our end of the pipe busy."""
DRAIN_READS = 32
"""Reads that certainly reach the end of what the command itself has left in the pipe or pty, however slow our stdout is."""
QUIET_S = 0.05
"""Silence after which nothing more is expected from such a process."""
ROW_LIMIT = 1 << 20
"""Bytes of one unfinished line that are held back; what is longer goes to the log as it comes."""
SCREEN_ROWS = 64
"""How many lines up the cursor can go in the log, if none is longer than:"""
LINE_LIMIT = 1 << 12
SOON_S = 0.001
"""A timer of 0 would never go off."""
USAGE = (
    "usage: supervisor.py --log FILE --exit FILE [--umask 022] [--pty COLSxROWS] [--timeout S [--grace S]] [--stdin] "
    "-- COMMAND [ARGUMENT ...]"
)


class Options:
    """The command line, parsed by hand: argparse alone would double the start-up time."""

    def __init__(self, words: list[str]) -> None:
        values: dict[str, str] = {}
        self.stdin = False
        words = list(words)
        while words and words[0] != "--":
            word = words.pop(0)
            if word == "--stdin":
                self.stdin = True
            elif word in ("--log", "--exit", "--pty", "--umask", "--timeout", "--grace") and words:
                values[word] = words.pop(0)
            else:
                raise SystemExit(f"supervisor: cannot use {word!r}; {USAGE}")
        self.argv = words[1:]
        if not self.argv or not {"--log", "--exit"} <= values.keys():
            raise SystemExit(f"supervisor: --log, --exit and a command are needed; {USAGE}")
        self.log, self.exit = values["--log"], values["--exit"]
        try:
            self.umask = int(values["--umask"], 8) if "--umask" in values else None
            self.timeout_s = float(values["--timeout"]) if "--timeout" in values else None
            self.grace_s = float(values.get("--grace", "0"))
            self.size: tuple[int, int] | None = None
            if "--pty" in values:
                columns, rows = values["--pty"].split("x")
                self.size = (int(columns), int(rows))
        except ValueError as error:
            raise SystemExit(f"supervisor: {error}; {USAGE}") from None


class Collapser:
    """Turns what a terminal would be sent into lines of text: of each line its last state.

    A carriage return starts a line over, an erase sequence empties it, cursor-up (nested progress bars) goes back to a
    line above; colours and window titles are dropped. `feed` returns what to do to the log: how many bytes to take back,
    and the bytes to append. Works on bytes, so that text of any encoding passes unharmed, wherever it is cut.
    """

    def __init__(self) -> None:
        import re  # costs milliseconds, which pass while the command starts

        self._special = re.compile(
            rb"(\r|\n|\x08|\x1b\[[0-?]{0,32}[ -/]{0,4}[@-~]"
            rb"|\x1b\][^\x07\x1b]{0,1024}(?:\x07|\x1b\\)|\x1b[()][A-Z0-9]|\x1b[=>78cM])"
        )
        self._needed = re.compile(rb"[\r\x08\x1b]")
        self._torn = re.compile(rb"\x1b(?:\[[0-?]{0,32}[ -/]{0,4}|\][^\x07\x1b]{0,1024}\x1b?|[()])?\Z")
        self._rest = b""
        self._rows = [bytearray()]
        self._redrawn = [False]
        self._at = 0
        self._restart = False
        self._history: list[bytes] = []
        """The last lines already in the log, which cursor-up may take back."""
        self._back = 0
        self._out = bytearray()

    def forget(self) -> None:
        """The log does not end in what was returned: nothing of it can be taken back."""
        self._history.clear()

    def feed(self, data: bytes) -> tuple[int, bytes]:
        """Take the next output."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        simple = not self._restart and len(self._rows) == 1 and not self._redrawn[0]
        if simple and not self._needed.search(data):
            return self._plain(data)
        torn = self._torn.search(data)
        if torn:
            data, self._rest = data[: torn.start()], data[torn.start() :]
        self._back, self._out = 0, bytearray()
        for number, part in enumerate(self._special.split(data)):
            if not part:
                continue
            if number % 2:
                self._control(part)
            else:
                self._text(part)
        return self._back, bytes(self._out)

    def finish(self) -> tuple[int, bytes]:
        """What is left: lines that the cursor has not passed, and a last one without an end."""
        self._back, self._out = 0, bytearray()
        if self._rest:
            self._text(self._rest)
            self._rest = b""
        for row, line in enumerate(self._rows[:-1]):
            self._out += self._shown(row, line) + b"\n"
        self._out += self._shown(len(self._rows) - 1, self._rows[-1])
        self._rows, self._redrawn, self._at = [bytearray()], [False], 0
        return 0, bytes(self._out)

    def _plain(self, data: bytes) -> tuple[int, bytes]:
        """The common case, without a look at each character: whole lines straight through."""
        row = self._rows[0]
        end = data.rfind(b"\n") + 1
        if not end:
            self._back, self._out = 0, bytearray()
            self._text(data)
            return 0, bytes(self._out)
        done = bytes(row) + data[:end]
        self._remember(done.splitlines(True)[-SCREEN_ROWS:])
        row[:] = data[end:]
        return 0, done

    def _text(self, text: bytes) -> None:
        if self._restart:
            self._rows[self._at].clear()
            self._restart, self._redrawn[self._at] = False, True
        row = self._rows[self._at]
        row += text
        if len(row) > ROW_LIMIT:
            if self._at == 0:  # otherwise the rows above would follow it
                self._out += row
                self._history.clear()
            row.clear()

    def _control(self, code: bytes) -> None:
        if code == b"\n":
            self._newline()
        elif code == b"\r":
            self._restart = True
        elif code == b"\x08":
            del self._rows[self._at][-1:]
        elif code[:2] == b"\x1b[":
            count = int(code[2:-1]) if code[2:-1].isdigit() else 1
            final = code[-1:]
            if final == b"A" or final == b"F":
                self._up(count)
                self._restart = self._restart or final == b"F"
            elif final == b"B" or final == b"E":
                self._at = min(self._at + count, len(self._rows) - 1)
                self._restart = self._restart or final == b"E"
            elif final == b"K" and (self._restart or code[2:-1] == b"2"):
                self._rows[self._at].clear()
                self._redrawn[self._at] = True
            elif final == b"G" and count <= 1:
                self._restart = True
            elif final == b"J":
                if self._restart:
                    self._rows[self._at].clear()
                del self._rows[self._at + 1 :], self._redrawn[self._at + 1 :]

    def _newline(self) -> None:
        self._restart = False
        if self._at < len(self._rows) - 1:
            self._at += 1
            return
        done = [self._shown(row, line) + b"\n" for row, line in enumerate(self._rows)]
        for line in done:
            self._out += line
        self._remember(done)
        self._rows, self._redrawn, self._at = [bytearray()], [False], 0

    def _up(self, count: int) -> None:
        for _ in range(min(count, SCREEN_ROWS)):
            if self._at > 0:
                self._at -= 1
            elif self._history:
                line = self._history.pop()
                if len(self._out) >= len(line):
                    del self._out[-len(line) :]
                else:  # it lies in the log already
                    self._back += len(line)
                self._rows.insert(0, bytearray(line[:-1]))
                self._redrawn.insert(0, False)

    def _shown(self, row: int, line: bytearray) -> bytes:
        return bytes(line).rstrip(b" ") if self._redrawn[row] else bytes(line)

    def _remember(self, lines: list[bytes]) -> None:
        for line in lines:
            if len(line) > LINE_LIMIT:
                self._history.clear()
            else:
                self._history.append(line)
        del self._history[:-SCREEN_ROWS]


class Log:
    """The end of the log file. Trouble with it (disk full, read-only) never stops the command; it is said once."""

    def __init__(self, path: str) -> None:
        self.error: str | None = None
        self._path = path
        self._collapser = Collapser()
        self._descriptor: int | None = None
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            self._regular = os.fstat(self._descriptor).st_mode & 0o170000 == 0o100000
        except OSError as error:
            self._failed(error)

    def write(self, data: bytes) -> None:
        """Take output."""
        self._apply(*self._collapser.feed(data))

    def finish(self) -> None:
        """Write what was held back."""
        self._apply(*self._collapser.finish())
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _apply(self, back: int, data: bytes) -> None:
        if self._descriptor is None:
            return
        try:
            if back and self._regular:
                os.ftruncate(self._descriptor, max(0, os.fstat(self._descriptor).st_size - back))
            write_all(self._descriptor, data)
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        self._collapser.forget()
        if self.error is None:
            self.error = f"{self._path}: {error.strerror}"
            complain("the log misses output from here on: " + self.error)


class Child:
    """The command: a process in a session of its own, and our end of its output."""

    def __init__(self, options: Options) -> None:
        self.pid: int | None = None
        self.code: int | None = None
        self.signal: str | None = None
        self.received: list[str] = []
        self.failure: str | None = None
        self.timed_out = False
        self.started = time.time()
        self.output = -1
        self._options = options
        for number in FORWARDED:
            signal.signal(number, self._forward)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGALRM, self._time_is_up)

    def start(self) -> None:
        """Start it. What cannot be started has ended at once, with 127 or 126, and `failure` says why."""
        options = self._options
        if options.size is None:
            self.output, slave = os.pipe()
        else:
            self.output, slave = open_pty(*options.size)
        told, tell = os.pipe()
        self.started = time.time()
        # A signal that comes before the command has begun waits until it has.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
        pid = os.fork()
        if pid == 0:
            become(options, slave, tell, before)
        self.pid = pid
        os.close(slave)
        os.close(tell)
        problem = os.read(told, 16)
        os.close(told)
        if problem:
            os.waitpid(pid, 0)
            self.code, self.failure = why_not(options.argv[0], int(problem))
        elif options.timeout_s is not None:
            signal.setitimer(signal.ITIMER_REAL, max(options.timeout_s, SOON_S))
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def ended(self) -> bool:
        """Whether it has ended; if so `code` and `signal` are set."""
        if self.code is None and self.pid is not None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                if os.WIFSIGNALED(status):
                    self.signal = signal_name(os.WTERMSIG(status))
                    self.code = 128 + os.WTERMSIG(status)
                else:
                    self.code = os.WEXITSTATUS(status)
        return self.code is not None

    def _time_is_up(self, number: int, frame: object) -> None:
        """The time limit is over: ask it to end. The grace time after that is over too: kill it."""
        if self.pid is None or self.code is not None:
            return
        try:
            if self.timed_out:
                os.kill(self.pid, signal.SIGKILL)
                return
            self.timed_out = True
            complain("its time limit is over: asked it to stop")
            os.kill(self.pid, signal.SIGTERM)
            signal.setitimer(signal.ITIMER_REAL, max(self._options.grace_s, SOON_S))
        except ProcessLookupError:
            return

    def _forward(self, number: int, frame: object) -> None:
        self.received.append(signal_name(number))
        if self.pid is not None and self.code is None:
            try:  # contextlib costs milliseconds
                os.kill(self.pid, number)
            except ProcessLookupError:
                return


def become(options: Options, output: int, tell: int, mask: set[int | signal.Signals]) -> NoReturn:
    """In the forked process: become the command. Never returns; trouble goes to `tell` as an errno."""
    try:
        os.setsid()
        if options.size is not None:
            import fcntl
            import termios

            fcntl.ioctl(output, termios.TIOCSCTTY, 0)
        if not options.stdin:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for number in (*FORWARDED, signal.SIGCHLD, signal.SIGALRM, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execvp(options.argv[0], options.argv)
    except OSError as error:
        os.write(tell, str(error.errno).encode())
    except ValueError:  # a NUL in the command line
        os.write(tell, str(errno.EINVAL).encode())
    finally:
        os._exit(126)


def open_pty(columns: int, rows: int) -> tuple[int, int]:
    """A new pseudo-terminal that passes output on as it is, as (our end, the command's end)."""
    import fcntl
    import struct
    import termios

    master, slave = os.openpty()
    mode = termios.tcgetattr(slave)
    mode[1] &= ~termios.OPOST
    mode[3] &= ~termios.ECHO
    termios.tcsetattr(slave, termios.TCSANOW, mode)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    return master, slave


def why_not(command: str, number: int) -> tuple[int, str]:
    """Exit code and words for a command that could not be started, as shells have it."""
    if number in (errno.ENOENT, errno.ENOTDIR):
        if os.path.exists(command):
            return 126, f"{command}: cannot run it: the interpreter that its first line names does not exist"
        return 127, f"{command}: command not found"
    return 126, f"{command}: cannot run it: {os.strerror(number)}"


def pump(child: Child, log: Log) -> None:
    """Pass output on until the command has ended and its output is at its end, or somebody else keeps it open."""
    reading, waking = os.pipe()
    os.set_blocking(waking, False)
    signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
    poll = select.poll()
    poll.register(child.output, select.POLLIN)
    poll.register(reading, select.POLLIN)
    stdout_open = output_open = True
    deadline: float | None = None
    reads = 0  # after the command has ended
    while not child.ended() or output_open:
        if child.ended() and deadline is None:
            deadline = time.monotonic() + DRAIN_S
        ready = [pair[0] for pair in poll.poll(None if deadline is None else int(QUIET_S * 1000))]
        if reading in ready:
            os.read(reading, 4096)
        if child.output in ready:
            data = read_some(child.output)
            if data:
                reads += deadline is not None
                stdout_open = stdout_open and show(data)
                log.write(data)
            else:
                poll.unregister(child.output)
                output_open = False
        elif deadline is not None and not ready:
            break
        if deadline is not None and time.monotonic() > deadline and reads >= DRAIN_READS:
            break
    signal.set_wakeup_fd(-1)


def read_some(descriptor: int) -> bytes:
    """What can be read now; b"" at the end (a pty says EIO where a pipe says nothing)."""
    try:
        return os.read(descriptor, CHUNK)
    except OSError as error:
        if error.errno == errno.EIO:
            return b""
        raise


def show(data: bytes) -> bool:
    """Write to our stdout. False once nobody reads it any more: the command goes on, and so does the log."""
    try:
        write_all(1, data)
    except OSError:
        return False
    return True


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def complain(message: str) -> None:
    """One line on stderr, if there still is one."""
    try:
        os.write(2, f"supervisor: {message}\n".encode("utf-8", "surrogateescape"))
    except OSError:
        return


def signal_name(number: int) -> str:
    """SIGTERM for 15."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def utc(seconds: float) -> str:
    """A time as ISO 8601, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1e6):06d}Z"


def write_exit(descriptor: int, child: Child, log: Log) -> None:
    """Write exit.json: one write, then to the disk."""
    import json

    record: dict[str, object] = {
        "schema_version": 1,
        "exit_code": child.code,
        "signal": child.signal,
        "received": child.received,
        "timed_out": child.timed_out,
        "started": utc(child.started),
        "finished": utc(time.time()),
    }
    if child.failure is not None:
        record["error"] = child.failure
    if log.error is not None:
        record["log_error"] = log.error
    text = (json.dumps(record, indent=2) + "\n").encode()
    os.ftruncate(descriptor, 0)
    os.write(descriptor, text)
    os.fsync(descriptor)


def make_home(folder: str) -> None:
    """Make HOME, which lies in a fresh /tmp; where that fails the command will say what it needs it for."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError:
        return


def main(words: list[str]) -> int:
    """Supervise one command; returns the exit code."""
    options = Options(words)
    if options.umask is not None:
        os.umask(options.umask)
    home = os.environ.get("HOME")
    if home:
        make_home(home)
    child = Child(options)
    try:
        record = os.open(options.exit, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        record = None
        complain(f"{options.exit}: how the command ends cannot be recorded: {error.strerror}")
    child.start()
    log = Log(options.log)
    if child.failure is not None:
        line = f"supervisor: {child.failure}\n".encode("utf-8", "surrogateescape")
        show(line)
        log.write(line)
    else:
        import json  # noqa: F401  loaded while the command starts

        pump(child, log)
    log.finish()
    if record is not None:
        try:
            write_exit(record, child, log)
        except OSError as error:
            complain(f"{options.exit}: how the command ended cannot be recorded: {error.strerror}")
    return 126 if child.code is None else child.code


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))  # at once: nothing of ours is left to tidy up
