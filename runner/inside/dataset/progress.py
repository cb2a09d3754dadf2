"""How far a long piece of work is, said now and then."""

import time


class Progress:
    """Says how far a long piece of work is, every two seconds at most."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._said = what, total, time.monotonic()

    def __call__(self, done: int) -> None:
        """So many are done."""
        now = time.monotonic()
        if now - self._said > 2:
            self._said = now
            print(f"{self._what}: {done} of {self._total} examples", flush=True)
