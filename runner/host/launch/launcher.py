"""Carry out one plan through one engine, to one outcome.

    prepare(plan)                  folders, inputs, config, manifest; the folder is locked meanwhile (CREATED)
    create, attach, start          RUNNING
    follow                         its output to our terminal; signals to it
    wait, publish outcome, remove  final, whatever the command did

If this process dies on the way, `reconcile` finishes the record from what the engine still knows.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import IO

from runner.contract.errors import EngineError, RunnerError
from runner.contract.jsonio import write_atomic
from runner.contract.records import Outcome
from runner.host.engines.engine import Engine
from runner.host.launch.outcomes import Ending, publish_outcome, record_end
from runner.host.launch.plan import MANIFEST_LABEL, LaunchPlan
from runner.host.source.exports import link_or_copy

Say = Callable[[str], None]


def launch(plan: LaunchPlan, engine: Engine, say: Say, to: IO[bytes] | None = None) -> Outcome:
    """Launch `plan` and follow it to its end. Its output goes `to` a stream, else to our stdout.

    Raises:
        RunnerError: nothing was started, and the record says why; or the engine stopped answering on the way.
    """
    container, output = start(plan, engine, attach=True)
    return follow(plan, engine, container, output, say, to or sys.stdout.buffer)


def start(plan: LaunchPlan, engine: Engine, *, attach: bool) -> tuple[str, Iterator[bytes]]:
    """Prepare and start a launch; its container and, with `attach`, its output from the first byte.

    Raises:
        RunnerError: nothing was started; the record says why.
    """
    with _whole_or_absent(plan), _being_prepared(plan):
        prepare(plan)
        try:
            container = engine.create(plan.spec)
            output = engine.attach(container) if attach else iter(())
            engine.start(container)
        except EngineError as error:
            _give_up(plan, engine, str(error))
            raise
        except KeyboardInterrupt:
            _give_up(plan, engine, "Ctrl-C before it had started")
            raise
    return container, output


def _give_up(plan: LaunchPlan, engine: Engine, reason: str) -> None:
    """Record that nothing was started, and see to it. An engine that no longer answers may have started it all the same:
    then nothing is recorded here, and whoever looks next asks the engine."""
    label = plan.spec.labels[MANIFEST_LABEL]
    with contextlib.suppress(EngineError, OSError):
        left = engine.find(plan.spec.name)
        if left is not None and left.labels.get(MANIFEST_LABEL) == label:  # else the name is another launch's
            if left.running:
                engine.kill(left.id)
                engine.wait(left.id)
            engine.remove(left.id)
        publish_outcome(plan.place, Ending(reason=reason), manifest_sha256=label)


def prepare(plan: LaunchPlan) -> None:
    """Write everything that stands before the start. The manifest comes last: what it names is there."""
    try:
        for folder in plan.folders:
            folder.mkdir(parents=True, exist_ok=True)
        for path in plan.empty_files:
            path.touch()
        for target, source in plan.inputs.items():
            keep(source, target, plan.spec.user.umask)
        for path, content in plan.files.items():
            write_atomic(path, content)
        write_atomic(plan.place.launch.manifest, plan.manifest_bytes)
    except OSError as error:
        raise RunnerError(f"{plan.place.folder}: cannot prepare the launch: {_plain(error)}") from None


def keep(source: Path | bytes, target: Path, umask: int = 0) -> None:
    """Put a file into inputs/: bytes, or a hard link where both lie on one device and the caller's umask allows the cache's
    mode, else a copy. One that is there stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return
    if isinstance(source, bytes):
        write_atomic(target, source)
        return
    if source.stat().st_mode & umask:
        shutil.copyfile(source, target)
    else:
        link_or_copy(source, target)


def follow(
    plan: LaunchPlan, engine: Engine, container: str, output: Iterator[bytes], say: Say, to: IO[bytes]
) -> Outcome:
    """Pass output on until the container ends, then record how."""
    watch = Watch(engine, container, plan.spec.limits.grace_s, say)
    with watch.signals():
        try:
            pass_on(output, to)
            exit_ = engine.wait(container)
        except EngineError as error:
            raise EngineError(
                f"{error}; the run may still be going: `make show RUN={plan.manifest.run}` tells once the engine answers"
            ) from None
    ending = Ending(exit=exit_, killed=watch.killed)
    outcome, unwritten = record_end(plan.place, ending, manifest_sha256=plan.spec.labels[MANIFEST_LABEL])
    if unwritten is None:
        with contextlib.suppress(EngineError):  # what came of the run does not depend on it
            engine.remove(container)
    else:
        say(
            f"note: {plan.place.folder}: its end cannot be written ({os.strerror(unwritten.errno or 0)}); "
            f"once it can, `make ls` writes it"
        )
    return outcome


def pass_on(output: Iterator[bytes], terminal: IO[bytes]) -> None:
    """Write output on as it comes. A reader that goes away (`| head`) does not end the run."""
    listening = True
    for chunk in output:
        if listening:
            try:
                terminal.write(chunk)
                terminal.flush()
            except (BrokenPipeError, OSError):
                listening = False
    if not listening:  # the interpreter would complain about the broken pipe again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), terminal.fileno())


class Watch:
    """Turns what happens to this process into what happens to the container.

    Ctrl-C or SIGTERM once: the same signal goes in, and it has its grace time; twice, or when that is over: it is killed.
    A lost terminal (SIGHUP) changes nothing: the run goes on and its end is still recorded.
    """

    def __init__(self, engine: Engine, container: str, grace_s: float, say: Say) -> None:
        self.engine, self.container, self.grace_s, self.say = engine, container, grace_s, say
        self.killed = False
        self._asked = False
        self._timers: list[threading.Timer] = []

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Handle SIGINT, SIGTERM and SIGHUP so while the container runs."""
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            for timer in self._timers:
                timer.cancel()

    def stop(self, number: int) -> None:
        """Ask the container to end with signal `number`; kill it when its grace time is over, or if asked again."""
        if self._asked:
            self._kill()
            return
        self._asked = True
        self.engine.signal(self.container, number)
        self._later(self.grace_s, self._kill)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self._asked:
            self.say(f"{name} again: killing it")
        else:
            self.say(f"{name}: asked the run to stop; it has {self.grace_s:g} s (once more: it is killed at once)")
        # Not in the handler itself: it interrupts a read on the engine's connection.
        threading.Thread(target=self._quietly, args=(lambda: self.stop(number),), daemon=True).start()

    def _kill(self) -> None:
        self.killed = True
        self._quietly(lambda: self.engine.kill(self.container))

    def _quietly(self, action: Callable[[], None]) -> None:
        try:
            action()
        except EngineError as error:
            self.say(str(error))

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        timer = threading.Timer(delay_s, action)
        timer.daemon = True
        timer.start()
        self._timers.append(timer)


@contextlib.contextmanager
def _whole_or_absent(plan: LaunchPlan) -> Iterator[None]:
    """Remove what was made of a launch whose record could not be written: a disk is full, or somebody pressed Ctrl-C."""
    try:
        yield
    except BaseException:
        if not plan.place.launch.manifest.exists():
            own = plan.place.folder if plan.manifest.attempt == 1 else plan.place.launch.folder
            shutil.rmtree(own, ignore_errors=True)
        raise


@contextlib.contextmanager
def _being_prepared(plan: LaunchPlan) -> Iterator[None]:
    """Hold the lock that tells everybody that this launch is being prepared by a living process.

    Raises:
        RunnerError: somebody else was quicker to prepare this very launch.
    """
    launch = plan.place.launch
    launch.folder.mkdir(parents=True, exist_ok=True)
    with launch.lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            if launch.manifest.exists():
                raise RunnerError(
                    f"{plan.place.folder.name}: attempt {plan.manifest.attempt} was just started by somebody else; "
                    f"see `make show RUN={plan.manifest.run}`"
                )
            yield
        finally:
            launch.lock.unlink(missing_ok=True)


def _plain(error: OSError) -> str:
    """The error as people say it, with the file that it is about; a full disk is not about a file."""
    what = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return f"{what}; make room there, or choose another root in runner.yml"
    return f"{what}: {error.filename}" if error.filename else what
