"""Stands in for an engine's daemon: starts one command, outlives whoever launched it, writes down how it ended.

    python -I -S local_keeper.py FOLDER WORKDIR UMASK COMMAND [ARGUMENT …]        in the command's environment

Descriptor 3     FOLDER/alive, locked; the command does not get it
FOLDER/process   the command's pid and its start time
FOLDER/output    everything it prints (our own stdout already is this file); emptied when it grows beyond a limit
FOLDER/exit      exit code, start, end; published by a rename. Without it the keeper itself was killed, or the machine

The keeper adopts what the command leaves behind (it is a subreaper) and ends it, as the end of a container would.
Standard library only, in few imports: it starts with every launch.
"""

import ctypes
import os
import signal
import sys
import time

SUBREAPER, DEATH_SIGNAL = 36, 1  # prctl(2)
OUTPUT_LIMIT = 256 << 20
"""Bytes of raw output that are kept for somebody who attaches; logs.txt is the record."""
LOOK_S = 5.0
LOCK = 3


def main(folder: str, workdir: str, umask: str, *argv: str) -> None:
    """Run one command to its end."""
    os.set_inheritable(LOCK, False)
    os.chdir(workdir)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # meant for the command, never for its keeper
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    os.umask(int(umask, 8))
    started = time.time()
    pid = os.fork()
    if pid == 0:
        prctl(DEATH_SIGNAL, int(signal.SIGKILL), 0, 0, 0)
        become(argv)
    publish(folder, "process", f"{pid} {start_time(pid)}")
    code = wait(pid, folder)
    end_descendants()
    publish(folder, "exit", f'{{"code": {code}, "started": "{utc(started)}", "finished": "{utc(time.time())}"}}\n')


def become(argv: tuple[str, ...]) -> None:
    """In the forked process: become the command, in a session of its own. Never returns."""
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.execvp(argv[0], argv)
    except OSError as error:
        os.write(2, f"{argv[0]}: cannot run it: {error.strerror}\n".encode("utf-8", "surrogateescape"))
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)
    finally:
        os._exit(126)


def wait(pid: int, folder: str) -> int:
    """Wait for `pid`, reaping what else ends meanwhile; returns its exit code, 128 + n for signal n."""
    output = os.path.join(folder, "output")
    while True:
        signal.sigtimedwait([signal.SIGCHLD], LOOK_S)
        while True:
            try:
                ended, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return 255  # somebody else has reaped it: cannot be
            if ended == pid:
                return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            if not ended:
                break
        if os.stat(output).st_size > OUTPUT_LIMIT:
            os.truncate(output, 0)  # it is written to its end, wherever that is


def end_descendants(patience_s: float = 5.0) -> None:
    """Kill what the command has left, and what that starts meanwhile."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return  # nobody is left
        for pid in descendants(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        signal.sigtimedwait([signal.SIGCHLD], 0.05)


def descendants(ancestor: int) -> list[int]:
    """The pids below `ancestor`, nearest first."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := stat_fields(int(name))):
            children.setdefault(int(fields[1]), []).append(int(name))
    found = list(children.get(ancestor, []))
    for pid in found:
        found += children.get(pid, [])
    return found


def start_time(pid: int) -> str:
    """When `pid` began, in clock ticks since boot: with the pid it names one process; "" if it is gone."""
    fields = stat_fields(pid)
    return fields[19] if fields else ""


def stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the second, a name that may hold anything; [] if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as handle:
            return handle.read().rpartition(b")")[2].decode().split()
    except OSError:
        return []


def publish(folder: str, name: str, text: str) -> None:
    """Write a file whole: readers see it complete or not at all."""
    temporary = os.path.join(folder, f".{name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.write(descriptor, text.encode())
    os.fsync(descriptor)
    os.close(descriptor)
    os.rename(temporary, os.path.join(folder, name))


def utc(seconds: float) -> str:
    """A time as ISO 8601, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1e6):06d}Z"


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)
