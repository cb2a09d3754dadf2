"""How a training ends: the last save, the best checkpoint on the test set, the summary."""

from typing import TYPE_CHECKING, Any

from runner.contract.checkpoints import BEST, pointed
from runner.contract.config import unread
from runner.contract.errors import RunnerError
from runner.contract.trainer_keys import DEFAULTS
from runner.training import text
from runner.training.split import evaluate_split

if TYPE_CHECKING:
    from runner.training.trainer import Trainer


def finish(trainer: "Trainer") -> None:
    """Evaluate the best checkpoint on the test set, if there is one, and sum up. Everything is saved already."""
    tested = trainer.test_dataloader is not None and trainer.settings.final_evaluation
    test = evaluate_best(trainer) if tested else {}
    say, monitor, schedule, step = trainer.logger.say, trainer.monitor, trainer.schedule, trainer.progress.step
    cause = "complete"
    if step < schedule.n_iterations:
        cause = f"stopped early after {monitor.n_without_better} validations without a better score"
    say(text.heading("Summary"))
    say(f"Steps: {schedule.in_epochs(step)} of {schedule.n_iterations}, {cause}")
    say(f"Time: {text.duration(trainer.clock.elapsed_s)}, examples: {trainer.progress.examples}")
    if monitor.best_step is not None:
        say(f"Best {monitor.name}: {monitor.best_score:.4f} after step {schedule.in_epochs(monitor.best_step)}")
    for name, value in test.items():
        say(f"Test {name}: {value:.4f}")
    never = [name for name in unread(trainer.config) if name not in DEFAULTS]
    if never:
        say(f"Config keys that nothing read: {', '.join(never)}")
    say(text.LINE)


def evaluate_best(trainer: "Trainer") -> dict[str, float]:
    """The scores of the best checkpoint on the test set; the weights are as before after."""
    found = trainer.processes.agree(_best(trainer) if trainer.processes.first else None)
    own = {name: tensor.clone() for name, tensor in trainer.bare_model.state_dict().items()}
    step = trainer.progress.step
    if found is not None:
        step, weights = found
        trainer.bare_model.load_state_dict(weights)
    metrics = trainer.test_metrics or trainer.val_metrics
    scores = evaluate_split(trainer, trainer.test_dataloader, metrics, "test", averaged=found is None)
    trainer.bare_model.load_state_dict(own)
    trainer.logger.record(step, trainer.epoch, "test", scores)
    return scores


def _best(trainer: "Trainer") -> tuple[int, dict[str, Any]] | None:
    """Step and weights of the best checkpoint; of the best one before where that could not be written; None without any."""
    store, best = trainer.store, trainer.monitor.best_step
    if store is None or best is None:
        return None
    pointer = pointed(store.folder, BEST)
    for path in dict.fromkeys([store.path(best), *([pointer] if pointer is not None else [])]):
        try:
            saved = store.read(path)
        except RunnerError as error:
            trainer.logger.say(f"WARNING: the best checkpoint cannot be evaluated ({error})")
            continue
        if path != store.path(best):
            trainer.logger.say(f"WARNING: {path.name}, the best one before, is evaluated instead")
        return int(saved.facts["step"]), saved.state["ema"] or saved.state["model"]
    trainer.logger.say(f"WARNING: the last weights, after step {trainer.progress.step}, are evaluated instead")
    return None
