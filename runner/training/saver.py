"""Saves while the training goes on."""

import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any

from runner.training.checkpoints import CheckpointStore
from runner.training.state import Staging


class Saver:
    """Copies a state aside, then writes it in a thread. One save at a time: the next waits for the one before.

    A save that fails (disk full …) is told through `on_failure` and does not end the training; the checkpoints before
    it are untouched. `wait` raises what the last save failed with.
    """

    def __init__(
        self, store: CheckpointStore, *, before_publish: Callable[[], None], on_failure: Callable[[OSError], None]
    ) -> None:
        self._store = store
        self._before_publish, self._on_failure = before_publish, on_failure
        self._staging = Staging()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = threading.Event()
        self._idle.set()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self.last_saved: int | None = None
        """Step of the last checkpoint that is durable."""

    def prepare(self, state: Any) -> None:
        """Make the buffers before the first save; also finds what cannot be stored while nothing is lost yet."""
        self._staging.prepare(state)

    def save(self, state: dict[str, Any], facts: Mapping[str, Any], *, best_step: int | None) -> None:
        """Return as soon as `state` may change again."""
        self._idle.wait()
        error, self._error = self._error, None
        if error is not None and not isinstance(error, OSError):
            raise error
        copied = self._staging.copy(state)
        self._idle.clear()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
            self._thread.start()
        self._jobs.put(lambda: self._write(copied, dict(facts), best_step))

    def wait(self) -> None:
        """Wait until the last save is durable; raises what it failed with."""
        self._idle.wait()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Wait, and end the thread. Errors stay where they were told."""
        self._idle.wait()
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except OSError as error:
                self._error = error
                self._on_failure(error)
            except BaseException as error:
                self._error = error
            finally:
                self._idle.set()

    def _write(self, state: dict[str, Any], facts: Mapping[str, Any], best_step: int | None) -> None:
        self._staging.ready()
        self._before_publish()
        self._store.write(state, facts, best_step=best_step)
        self.last_saved = int(facts["step"])
