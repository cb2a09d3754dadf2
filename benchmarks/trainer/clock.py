"""Time on a machine that is not ours alone."""

import time


class Moment:
    """A point in time, to count from.

    Counted is the wall clock less the time in which this thread was ready to run and others had the processors (the
    second number of /proc/thread-self/schedstat): on a quiet machine nothing, on a shared one most of the noise. Waiting
    for a disk, a lock or a thread of one's own stays in.
    """

    def __init__(self) -> None:
        self._start, self._waited = _now()

    def seconds(self) -> float:
        """Since then."""
        now, waited = _now()
        return now - self._start - (waited - self._waited)


def _now() -> tuple[float, float]:
    """The clock, and what this thread has waited by then: read anew if it had to wait in between."""
    before = _waited_s()
    while True:
        now, waited = time.perf_counter(), _waited_s()
        if waited == before:
            return now, waited
        before = waited


def _waited_s() -> float:
    """How long this thread has waited for a processor so far; 0 where the kernel does not say."""
    try:
        with open("/proc/thread-self/schedstat") as handle:
            return int(handle.read().split()[1]) / 1e9
    except OSError:
        return 0.0
