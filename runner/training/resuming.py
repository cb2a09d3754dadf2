"""Continue a run where its newest valid checkpoint stands, if it is still the same run."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from runner.contract.config import Config, differences, snapshot
from runner.contract.errors import RunnerError
from runner.contract.schema import overlay
from runner.contract.trainer_keys import FIXED, FREE, HORIZON, ON_RESUME
from runner.training.checkpoints import PASSED_OVER, CheckpointStore, Saved
from runner.training.horizon import first_difference, keys_read
from runner.training.trainer_state import config_part, load_state, stream_workers_of

if TYPE_CHECKING:
    from runner.training.trainer import Trainer


def resume(trainer: "Trainer", *, force: bool) -> int:
    """Restore `trainer`, cut its logs to match, and say what was done; the restored step.

    Raises:
        RunnerError: this would be another run (see `refuse`), or there are checkpoints but none is whole.
    """
    saved = trainer.processes.agree(_find(trainer, force=force) if trainer.processes.first else None)
    if saved is None:
        trainer.logger.say("No checkpoint was completed: starting from the beginning.")
        trainer._rewind_logs(0)
        return 0
    changes = list(differences(saved.facts.get("config", {}), config_part(trainer.config)))
    refuse(trainer, saved, changes, force=force)
    load_state(trainer, saved.state)
    trainer.elapsed_s = float(saved.facts.get("elapsed_s", 0.0))
    trainer._rewind_logs(trainer.progress.step)
    trainer.logger.say(f"Loaded model and optimiser weights from {saved.path} (step {trainer.progress.step})")
    for name, before, after in changes:
        trainer.logger.say(f"Changed since: {name}: {before!r} -> {after!r}")
    return trainer.progress.step


def _find(trainer: "Trainer", *, force: bool) -> Saved | None:
    """The checkpoint to continue from; damaged ones are named and set aside."""
    store = trainer.store
    if store is None:
        raise RunnerError("resume: this Trainer has no run folder; give it the session to resume")
    store.clean()
    search = store.newest_valid(accept=lambda facts: force or _is_on_the_way(trainer, facts))
    for line in search.damaged:
        trainer.logger.say(f"Damaged: {line}")
    for line in search.passed_over:
        trainer.logger.say(f"Passed over: {line}")
    store.set_aside(search.damaged_paths)
    if search.saved is None and (search.damaged or search.passed_over):
        _nothing_left(store, [*search.damaged, *search.passed_over])
    return search.saved


def _nothing_left(store: CheckpointStore, lines: list[str]) -> None:
    raise RunnerError(
        f"{store.folder}: no checkpoint can be continued from ({'; '.join(lines)}); start a new run, or FORCE=1 to continue "
        "from the end of a shorter one"
    )


def _is_on_the_way(trainer: "Trainer", facts: Mapping[str, Any]) -> bool:
    """Whether a run of today's length would have passed through this state.

    The end of a shorter run is followed by a validation and a log line that a longer run might not have there.
    """
    step, schedule = int(facts["step"]), trainer.schedule
    if step != facts.get("n_iterations") or step == schedule.n_iterations:
        return True
    return schedule.validates(step) and schedule.prints(step)


def refuse(trainer: "Trainer", saved: Saved, changes: list[tuple[str, Any, Any]], *, force: bool) -> None:
    """Refuse to continue what would be another run.

    Raises:
        RunnerError: names every change that is not allowed, and why.
    """
    problems = [
        f"{name} was {before!r} and is {after!r}"
        for name, before, after in changes
        if _rule(name) not in (FREE, HORIZON)
    ]
    problems += _other_processes(trainer, saved.facts)
    if trainer.schedule.n_iterations < saved.facts["step"]:
        problems.append(f"n_iterations is {trainer.schedule.n_iterations}, but step {saved.facts['step']} is done")
    else:
        if not problems and any(_rule(name) == HORIZON for name, _, _ in changes):
            problems += _depends_on_the_horizon(trainer, saved.facts, changes)
        if not _is_on_the_way(trainer, saved.facts):
            problems.append(f"step {saved.facts['step']} {PASSED_OVER}")
    if problems and force:
        trainer.logger.say(f"FORCED, not reproducible as one run: {'; '.join(problems)}")
    elif problems:
        raise RunnerError(
            f"resume: this would be another run: {'; '.join(problems)}; start a new run, or continue all the same with FORCE=1"
        )


def _rule(name: str) -> str:
    return ON_RESUME.get(name.split(".")[0], FIXED)


def _other_processes(trainer: "Trainer", facts: Mapping[str, Any]) -> list[str]:
    """Numbers of processes that the results depend on, and that are others now."""
    world = facts.get("processes", 1)
    problems = [f"processes were {world} and are {trainer.processes.world}"] if world != trainer.processes.world else []
    before, now = facts.get("stream_workers"), stream_workers_of(trainer)
    if before is not None and before != now:
        problems.append(f"the workers that read a stream, on which its order depends, were {before} and are {now}")
    return problems


def _depends_on_the_horizon(
    trainer: "Trainer", facts: Mapping[str, Any], changes: list[tuple[str, Any, Any]]
) -> list[str]:
    """What was computed otherwise because the training was to end elsewhere."""
    problems = []
    read = sorted({*facts.get("horizon_read", ()), *keys_read(trainer.config)})
    if read:
        problems.append(
            f"the project's code reads {' and '.join(read)} outside create_optimiser and create_scheduler, so that what "
            "was computed may depend on where the training ends"
        )
    old = Config(overlay(snapshot(trainer.config), {name: before for name, before, _ in changes if "." not in name}))
    different = first_difference(trainer, old, int(facts["n_iterations"]))
    if different is not None:
        step, name = different
        what = "learning rate" if name in ("lr", "initial_lr") else f"optimiser's {name}"
        problems.append(f"the {what} depends on where the training ends (step {step} would have had another)")
    return problems
