"""A request to stop ends the step that is under way, not the process."""

import signal
import threading
from types import FrameType
from typing import Any


class Interrupted(SystemExit):
    """The training was asked to stop and has saved. A process that does not catch it exits with 128 + the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class Interrupts:
    """While entered, SIGINT and SIGTERM are noted. A second SIGINT is a KeyboardInterrupt at once."""

    def __init__(self) -> None:
        self.requested: int | None = None
        """The signal that asked to stop."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = number
