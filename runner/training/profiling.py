"""A trace of the first steps, for tensorboard or Perfetto (https://ui.perfetto.dev)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

_WARM_UP = 5
"""Steps before the trace begins: the first ones are never typical."""


class Profile:
    """While entered, traces `n_steps` steps into debug/trace.json; does nothing for 0."""

    def __init__(self, n_steps: int, folder: Path | None, say: Callable[[str], None]) -> None:
        self.on = n_steps > 0 and folder is not None
        self._n_steps, self._folder, self._say = n_steps, folder, say
        self._n_ended = 0
        self._profiler: Any = None

    def __enter__(self) -> "Profile":
        if self.on:
            from torch import profiler

            self._profiler = profiler.profile(
                schedule=profiler.schedule(wait=0, warmup=_WARM_UP, active=self._n_steps, repeat=1),
                on_trace_ready=self._write,
                record_shapes=True,
            )
            self._profiler.__enter__()
        return self

    def step(self) -> None:
        """A step has ended."""
        self._n_ended += 1
        self._profiler.step()

    def __exit__(self, *error: Any) -> None:
        if self._profiler is not None:
            self._profiler.__exit__(*error)
        if self.on:
            self._say(f"profile: no trace, {self._n_ended} steps were made and it begins after {_WARM_UP}")

    def _write(self, profiler: Any) -> None:
        assert self._folder is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / "trace.json"
        profiler.export_chrome_trace(str(path))
        self.on = False
        n_steps = self._n_ended - _WARM_UP
        few = "" if n_steps == self._n_steps else f", not {self._n_steps}, for the training ended"
        self._say(f"Trace of {n_steps} steps{few}: {path} (open it at https://ui.perfetto.dev)")
