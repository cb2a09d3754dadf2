"""Everything that a resumed training needs, taken from a Trainer and put back."""

from typing import TYPE_CHECKING, Any

from torch import nn

from runner.contract.config import NOT_IDENTITY, Config, snapshot
from runner.contract.errors import RunnerError
from runner.training.checkpoints import write_state
from runner.training.data import is_stream
from runner.training.horizon import keys_read
from runner.training.metrics import metrics_state, restore_metrics
from runner.training.seeding import restore_rng, rng_state
from runner.training.state import Staging
from runner.training.watch import NotFinite

if TYPE_CHECKING:
    from runner.training.trainer import Trainer


def state_of(trainer: "Trainer", rngs: list[Any]) -> dict[str, Any]:
    """Every piece of state after the last completed step; `rngs` are the random generators' of all processes.

    No clock, name or path is in it, so that equal trainings have equal states.
    """
    update, loss_fn = trainer.update, trainer.loss_fn
    return {
        "progress": trainer.progress.state_dict(),
        "model": trainer.bare_model.state_dict(),
        "optimiser": trainer.optimiser.state_dict(),
        "scheduler": trainer.scheduler.state_dict() if trainer.scheduler is not None else None,
        "scaler": update.scaler.state_dict() if update.scaler is not None else None,
        "ema": update.ema.state_dict() if update.ema is not None else None,
        "rng": rngs,
        "monitor": trainer.monitor.state_dict(),
        "metrics": {"train": metrics_state(trainer.train_metrics), "val": metrics_state(trainer.val_metrics)},
        "loss": loss_fn.state_dict() if isinstance(loss_fn, nn.Module) else None,
        "registered": {name: thing.state_dict() for name, thing in trainer.registered.items()},
    }


def load_state(trainer: "Trainer", state: dict[str, Any]) -> None:
    """Continue from a state that `state_of` gave.

    Raises:
        RunnerError: something is registered whose state the checkpoint has not.
    """
    missing = [name for name in trainer.registered if name not in state["registered"]]
    if missing:
        raise RunnerError(
            f"resume: the checkpoint holds no state of {', '.join(missing)} (it holds: {', '.join(state['registered']) or 'none'}), "
            "which register_state names: the project's code is another now; start a new run"
        )
    update, loss_fn, progress = trainer.update, trainer.loss_fn, trainer.progress
    progress.load_state_dict(state["progress"])
    trainer.bare_model.load_state_dict(state["model"])
    trainer.optimiser.load_state_dict(state["optimiser"])
    for part, name in ((trainer.scheduler, "scheduler"), (update.scaler, "scaler"), (update.ema, "ema")):
        if part is not None and state[name] is not None:
            part.load_state_dict(state[name])
    if isinstance(loss_fn, nn.Module) and state["loss"] is not None:
        loss_fn.load_state_dict(state["loss"])
    trainer.monitor.load_state_dict(state["monitor"])
    restore_metrics(trainer.train_metrics, state["metrics"]["train"], trainer.device)
    restore_metrics(trainer.val_metrics, state["metrics"]["val"], trainer.device)
    for name, thing in trainer.registered.items():
        thing.load_state_dict(state["registered"][name])
    trainer.global_step = progress.step
    trainer.epoch_before = progress.epoch - 1 if progress.batch == 0 and progress.epoch else progress.epoch
    restore_rng(state["rng"][trainer.processes.rank], trainer.device)


def facts_of(trainer: "Trainer") -> dict[str, Any]:
    """What the sidecar says besides sizes and hashes: what may differ between equal states, and what a reader asks first."""
    progress, monitor = trainer.progress, trainer.monitor
    return {
        "step": progress.step,
        "epoch": trainer.epoch,
        "score": monitor.last_score if progress.validated_step == progress.step else None,
        "score_name": monitor.name,
        "elapsed_s": round(trainer.clock.elapsed_s, 3),
        "processes": trainer.processes.world,
        "n_iterations": trainer.schedule.n_iterations,
        "horizon_read": keys_read(trainer.config),
        "stream_workers": stream_workers_of(trainer),
        "config": config_part(trainer.config),
    }


def stream_workers_of(trainer: "Trainer") -> dict[str, int]:
    """By split, the number of workers where the data are a stream, whose order depends on it."""
    loaders = {"train": trainer.train_dataloader, "val": trainer.val_dataloader}
    return {split: getattr(loader, "num_workers", 0) for split, loader in loaders.items() if is_stream(loader)}


def config_part(config: Config) -> dict[str, Any]:
    """The part of a config that says what is computed."""
    return {key: value for key, value in snapshot(config).items() if key not in NOT_IDENTITY}


def save_not_finite(trainer: "Trainer", error: NotFinite) -> str:
    """Save the state that a bad loss came from into debug/, and say so. The checkpoints are not touched."""
    advice = "lower the learning rate, clip the gradient (clip_norm), or let it pass with nan_policy: ignore"
    return f"{error}; {_saved_for_debugging(trainer, error.step)}; {advice}"


def _saved_for_debugging(trainer: "Trainer", step: int) -> str:
    """Where the state is, in words."""
    if not trainer.processes.first:
        return f"that is the loss of process {trainer.processes.rank}, and only process 0 saves"
    if trainer.session.paths is None:
        return "nothing is saved, there is no run folder"
    path = trainer.session.paths.debug / f"not_finite_step_{step:08d}.pt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_state(path, Staging().copy(state_of(trainer, [rng_state(trainer.device)])))
    except OSError as error:
        return f"the state could not be saved in {path} ({error.strerror})"
    return f"the state after step {trainer.progress.step} is saved in {path}"
