"""Several processes on this machine, with the variables that torchrun would give them, answered for as if they were one."""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from torch import distributed as dist

from runner.contract.errors import RunnerError

_ERRORS, _PARENT = "RUNNER_SPREAD_ERRORS", "RUNNER_SPREAD_PARENT"
_KILL_AFTER_S = 10.0
"""How long the others have once one has failed: they wait for it in vain, or save what they can."""
_DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG (prctl(2))."""


def spread(n: int, arguments: Sequence[str]) -> int:
    """Run `python -m runner.training ARGUMENTS` in `n` processes; the exit code of what ended them.

    SIGINT and SIGTERM go to each once: they are in process groups of their own, which a terminal does not reach. When one
    fails the others are ended. The last line on stderr says why.
    """
    store: Any = dist.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", 0, is_master=True, wait_for_workers=False
    )
    with tempfile.TemporaryDirectory(prefix="runner-spread-") as errors:
        common = {
            "OMP_NUM_THREADS": "1",  # unless it is set: all of them would take every core
            **os.environ,
            "WORLD_SIZE": str(n),
            "LOCAL_WORLD_SIZE": str(n),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store is ours, not the first process's
            _ERRORS: errors,
            _PARENT: str(os.getpid()),
        }
        group = _Group([sys.executable, "-m", "runner.training", *arguments], common, n)
        code = group.wait()
        said = [path.read_text() for path in sorted(Path(errors).iterdir())]
    if said:
        exit_code, _, text = said[0].partition(" ")
        print(f"error: {text}", file=sys.stderr, flush=True)
        return int(exit_code)
    if code and code != group.stopped_by:
        rank = group.first_failed
        print(f"error: process {rank} of {n} ended with exit code {code}; see above", file=sys.stderr, flush=True)
    return code


def begin_as_one_of_several() -> None:
    """In a process that `spread` started: end when it is killed."""
    parent = os.environ.get(_PARENT)
    if parent is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != int(parent):
        raise SystemExit(1)


def tell(error: RunnerError) -> None:
    """Say an error in one line: here, or through the process that `spread` these."""
    folder = os.environ.get(_ERRORS)
    if folder is None:
        print(f"error: {error}", file=sys.stderr, flush=True)
    else:
        Path(folder, f"{int(os.environ['RANK']):06d}").write_text(f"{error.exit_code} {error}")


class _Group:
    """The processes, and what became of them."""

    def __init__(self, command: Sequence[str], common: dict[str, str], n: int) -> None:
        self.stopped_by: int | None = None
        """The exit code of processes that a signal stopped."""
        self.first_failed: int | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        self._before: dict[int, Any] = {
            number: signal.signal(number, self._pass_on) for number in (signal.SIGINT, signal.SIGTERM)
        }
        for rank in range(n):
            variables = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            self._processes.append(subprocess.Popen(command, env=variables, process_group=0))
            if self.stopped_by is not None:
                self._processes[-1].send_signal(self.stopped_by - 128)

    def wait(self) -> int:
        """Until all have ended; 0, or the code of the first that failed."""
        result, timer = 0, threading.Timer(_KILL_AFTER_S, self._end, [signal.SIGKILL])
        for rank, code in self._ended():
            if code and not result:
                result, self.first_failed = code, rank
                if code != self.stopped_by:
                    self._end(signal.SIGTERM)
                    timer.start()
        timer.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        return result

    def _ended(self) -> Iterator[tuple[int, int]]:
        """Rank and exit code of each process, as they end."""
        ranks = {process.pid: rank for rank, process in enumerate(self._processes)}
        while ranks:
            pid, status = os.wait()
            if pid in ranks:
                rank, code = ranks.pop(pid), os.waitstatus_to_exitcode(status)
                self._processes[rank].returncode = code
                yield rank, code if code >= 0 else 128 - code

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.stopped_by = 128 + number
        self._end(number)

    def _end(self, number: int) -> None:
        for process in self._processes:
            if process.returncode is None:
                process.send_signal(number)
