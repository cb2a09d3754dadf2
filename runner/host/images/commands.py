"""Run a long command: every line goes to a log and to a listener, the last ones are kept for an error."""

import os
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_KEPT = 400


@dataclass(frozen=True, kw_only=True)
class Done:
    """A command that has ended."""

    code: int
    lines: tuple[str, ...]
    """The last lines of its output, both streams."""

    @property
    def disk_full(self) -> bool:
        """Whether it died of a full disk."""
        return any("No space left on device" in line or "os error 28" in line for line in self.lines)

    def last(self, *signs: str) -> str:
        """The last line that holds one of `signs`, else the last line that is not empty."""
        marked = [line for line in self.lines if any(sign in line for sign in signs)]
        plain = [line for line in self.lines if line.strip()]
        return (marked or plain or ["no output"])[-1].strip()


def run_command(
    argv: Sequence[str],
    *,
    log: IO[str],
    on_line: Callable[[str], None] = lambda line: None,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Done:
    """Run `argv` with no input. `environment` is added to the caller's."""
    lines: deque[str] = deque(maxlen=_KEPT)
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=cwd,
        env={**os.environ, **(environment or {})},
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append(line.rstrip("\n"))
                on_line(lines[-1])
                log.write(line)
            log.flush()
        except OSError as error:  # the log shares a disk with what is being made: its trouble is the command's
            process.kill()
            lines.append(os.strerror(error.errno or 0))
        except BaseException:
            process.terminate()
            raise
    return Done(code=process.returncode, lines=tuple(lines))
