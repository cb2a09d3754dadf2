"""What the loop does: schedules, scores, precision, stops, and the settings that make no sense."""

import json
import math
import os
import re
import shutil
import signal
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import N_FEATURES, NoisyDataset, TinyTrainer, base_config
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from runner.contract.errors import RunnerError
from runner.contract.trainer_keys import DEFAULTS, KEYS, ON_RESUME
from runner.training import AccuracyMetrics, ArrayDataset, Interrupted, MeanMetrics
from runner.training.placement import refuse_crowd
from runner.training.session import Session
from runner.training.settings import Settings
from runner.training.watch import Clock


def trained(folder: Path, kind: type[TinyTrainer] = TinyTrainer, **changes: Any) -> TinyTrainer:
    trainer = kind(base_config(output_path=str(folder), **changes))
    trainer.train()
    return trainer


def lines(trainer: TinyTrainer, split: str, name: str) -> list[tuple[int, Any]]:
    """The points of one number in metrics.jsonl."""
    text = (Path(trainer.session_name) / "metrics.jsonl").read_text()
    entries = [json.loads(line) for line in text.splitlines()]
    return [(entry["step"], entry[name]) for entry in entries if entry["split"] == split and name in entry]


def weights(trainer: TinyTrainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.bare_model.parameters()])


# Data, loss, rate -------------------------------------------------------------------------------------------------------


def test_the_same_for_any_number_of_workers_and_threads_of_logging(tmp_path: Path) -> None:
    runs = [
        trained(tmp_path, n_workers=0),
        trained(tmp_path, n_workers=2),
        trained(tmp_path, print_iterations=5, write_tb=False),
    ]
    assert all(torch.equal(weights(runs[0]), weights(run)) for run in runs)
    assert not torch.equal(weights(runs[0]), weights(trained(tmp_path, seed=6)))


@pytest.mark.parametrize("unit", ["step", "epoch"])
def test_a_schedule_really_changes_the_rate(tmp_path: Path, unit: str) -> None:
    """StepLR halves it every 5 steps, or every 5 epochs of 7 steps."""
    options: dict[str, Any] = {"print_iterations": 1, "n_iterations": 37, "val_iterations": 37}
    trainer = trained(tmp_path, schedule="step", scheduler_unit=unit, **options)
    every = 5 if unit == "step" else 35
    expected = [(step, 0.05 * 0.5 ** ((step - 1) // every)) for step in range(1, 38)]
    assert lines(trainer, "train", "learning_rate") == expected
    plain = lines(trained(tmp_path, print_iterations=1, n_iterations=14), "train", "loss")
    scheduled = lines(trained(tmp_path, schedule="step", print_iterations=1, n_iterations=14), "train", "loss")
    assert plain[:6] == scheduled[:6] and plain[6:] != scheduled[6:]


def test_validation_means_are_weighted_by_examples(tmp_path: Path) -> None:
    class Exact(TinyTrainer):
        def create_data(self) -> None:
            super().create_data()
            self.val_dataset = ArrayDataset(x=torch.randn(19, N_FEATURES), label=torch.arange(19) % 3)
            self.val_dataloader = DataLoader(self.val_dataset, 8)

    trainer = trained(tmp_path, Exact, n_iterations=6)
    model = trainer.bare_model.eval()
    x, label = trainer.val_dataset.arrays["x"], trainer.val_dataset.arrays["label"]
    with torch.no_grad():
        expected = float(nn.functional.cross_entropy(model(x), label))
        accuracy = float((model(x).argmax(1) == label).double().mean())
    assert lines(trainer, "val", "loss")[-1][1] == pytest.approx(expected, rel=1e-6)
    assert lines(trainer, "val", "accuracy")[-1][1] == pytest.approx(accuracy)


def test_accumulation_equals_a_larger_batch(tmp_path: Path) -> None:
    class Plain(TinyTrainer):
        """No dropout, no noise, no batch norm: nothing that knows how large a batch is."""

        def create_data(self) -> None:
            self.train_dataset = ArrayDataset(x=torch.randn(53, N_FEATURES), label=torch.arange(53) % 3)
            self.val_dataset = self.train_dataset
            self.train_dataloader = DataLoader(self.train_dataset, self.config.batch_size, shuffle=True)
            self.val_dataloader = DataLoader(self.val_dataset, 8)

        def create_model(self) -> None:
            self.model = nn.Linear(N_FEATURES, 3).double()

        def forward_model(self, batch: Any) -> Any:
            return self.model(batch["x"].double())

        def create_optimiser(self) -> None:
            self.optimiser = torch.optim.SGD(self.model.parameters(), lr=0.1)

    options: dict[str, Any] = {"n_iterations": None, "n_epochs": 2, "print_iterations": 1, "val_iterations": None}
    one = trained(tmp_path, Plain, batch_size=16, **options)
    many = trained(tmp_path, Plain, batch_size=4, accumulate=4, **options)
    assert one.schedule.n_iterations == many.schedule.n_iterations == 8
    assert torch.allclose(weights(one), weights(many), rtol=0, atol=1e-12)
    for (_, a), (_, b) in zip(lines(one, "train", "loss"), lines(many, "train", "loss"), strict=True):
        assert a == pytest.approx(b)


def test_clipping_ema_and_precision_do_something(tmp_path: Path) -> None:
    plain = weights(trained(tmp_path))
    for change in ({"clip_norm": 0.01}, {"precision": "bf16"}):
        assert not torch.equal(plain, weights(trained(tmp_path, **change)))
    averaged = trained(tmp_path, ema=0.9)
    assert torch.equal(plain, weights(averaged)), "the average follows the weights, it does not change them"
    assert averaged.update.ema is not None
    assert lines(averaged, "val", "loss") != lines(trained(tmp_path), "val", "loss")


def test_the_loss_is_not_kept_on_the_graph(tmp_path: Path) -> None:
    import gc

    class Counting(TinyTrainer):
        counts: list[int]

        def train_step(self) -> Any:
            result = super().train_step()
            if self.global_step > 3:
                gc.collect()
                self.counts.append(
                    sum(issubclass(type(o), torch.Tensor) and o.grad_fn is not None for o in gc.get_objects())
                )
            return result.detach()

    Counting.counts = []
    trained(tmp_path, Counting, n_iterations=10, print_iterations=50, val_iterations=50)
    assert max(Counting.counts) <= Counting.counts[0] + 1


def test_a_not_finite_loss_is_named_and_stops_with_a_saved_state(tmp_path: Path) -> None:
    class Bad(TinyTrainer):
        def forward_loss(self, batch: Any, output: Any) -> Any:
            loss = super().forward_loss(batch, output)
            return loss * math.nan if self.global_step == 9 else loss

    trainer = Bad(base_config(output_path=str(tmp_path)))
    with pytest.raises(
        RunnerError,
        match=r"^step 9: the loss is nan; the state after step 8 is saved in .*not_finite_step_00000009.pt; lower",
    ):
        trainer.train()
    saved = torch.load(Path(trainer.session_name) / "debug" / "not_finite_step_00000009.pt", weights_only=True)
    assert saved["progress"]["step"] == 8
    assert all(bool(torch.isfinite(value).all()) for value in saved["model"].values()), (
        "noticed before it reached the weights"
    )
    assert trained(tmp_path, Bad, nan_policy="ignore").progress.step == 24


# Monitor ----------------------------------------------------------------------------------------------------------------


class Scripted(TinyTrainer):
    """Its validation scores are as written."""

    script: tuple[float, ...] = ()

    def validate(self) -> float:
        self.val_metrics.evaluate = lambda step: self.script[self.monitor.n_validations]
        return super().validate()


def _scripted(folder: Path, script: tuple[float, ...], **changes: Any) -> Scripted:
    kind = type("Scripted", (Scripted,), {"script": script})
    return trained(folder, kind, val_iterations=4, print_iterations=100, **changes)  # type: ignore[return-value]


def test_a_worse_score_does_not_move_best_and_zero_is_a_score(tmp_path: Path) -> None:
    trainer = _scripted(tmp_path, (-1.0, 0.0, -0.5, 0.0, -2.0, -3.0), keep_last=1)
    assert trainer.best_score == 0.0 and trainer.monitor.best_step == 8
    checkpoints = Path(trainer.session_name) / "checkpoints"
    assert (checkpoints / "best").read_text() == "step_00000008.pt\n"
    assert (checkpoints / "latest").read_text() == "step_00000024.pt\n"
    assert json.loads((checkpoints / "step_00000008.json").read_text())["score"] == 0.0


def test_nan_scores_are_never_best(tmp_path: Path) -> None:
    trainer = _scripted(tmp_path, (math.nan, 0.1, math.nan, 0.05, 0.1, 0.1))
    assert trainer.monitor.best_step == 8
    assert lines(trainer, "val", "accuracy")[0] == (4, None)


@pytest.mark.parametrize(("direction", "best"), [("min", 12), ("max", 4), (None, 4)])
def test_directions(tmp_path: Path, direction: str | None, best: int) -> None:
    assert _scripted(tmp_path, (3.0, 2.0, 1.0, 2.0, 2.5, 1.0), score_direction=direction).monitor.best_step == best


def test_early_stopping(tmp_path: Path) -> None:
    trainer = _scripted(tmp_path, (0.1, 0.3, 0.2, 0.3, 0.9, 0.9), patience=2)
    assert trainer.progress.step == 16
    log = (Path(trainer.session_name) / "logs.txt").read_text()
    assert "Early Stopping Counter: 1/2\n" in log and "Early Stopping Counter: 2/2\n" in log
    assert "stopped early after 2 validations without a better score" in log


def test_patience_that_ran_out_at_the_end_of_a_shorter_run_has_run_out(tmp_path: Path) -> None:
    """Which is what makes train(2N) equal train(N) and resume."""
    script = (0.1, 0.3, 0.2, 0.3, 0.9, 0.9)
    whole = _scripted(tmp_path, script, patience=2)
    short = _scripted(tmp_path, script, patience=2, n_iterations=16)
    assert "Steps: 16 (2.286 epochs) of 16, complete" in (Path(short.session_name) / "logs.txt").read_text()
    config = base_config(output_path=str(tmp_path), val_iterations=4, print_iterations=100, patience=2)
    again = type(whole)(config, session=Session.existing(Path(short.session_name)))
    again.resume()
    again.train()
    assert again.progress.step == whole.progress.step == 16
    facts = [
        json.loads((Path(t.session_name) / "checkpoints" / "step_00000016.json").read_text()) for t in (whole, again)
    ]
    assert facts[0]["state_sha256"] == facts[1]["state_sha256"]
    assert lines(whole, "val", "loss") == lines(again, "val", "loss")


def test_any_score_by_name(tmp_path: Path) -> None:
    trainer = trained(tmp_path, score="loss")
    assert trainer.best_score == min(value for _, value in lines(trainer, "val", "loss"))
    with pytest.raises(
        RunnerError, match=r"score: 'recall' is not among the scores of the validation \(loss, accuracy\)"
    ):
        trained(tmp_path, score="recall")


def test_the_tail_is_validated_and_epochs_are_converted(tmp_path: Path) -> None:
    trainer = trained(
        tmp_path, n_iterations=None, n_epochs=1.5, val_iterations=None, val_epochs=0.5, print_iterations=100
    )
    assert trainer.schedule.n_iterations == 10 and trainer.schedule.steps_per_epoch == 7
    assert [step for step, _ in lines(trainer, "val", "loss")] == [4, 8, 10]
    assert "Steps: 10 (1.429 epochs) of 10, complete" in (Path(trainer.session_name) / "logs.txt").read_text()


def test_the_best_checkpoint_is_what_the_test_set_sees(tmp_path: Path) -> None:
    class Tested(Scripted):
        script = (0.5, 0.9, 0.1, 0.1, 0.1, 0.1)

        def create_data(self) -> None:
            super().create_data()
            self.test_dataloader = DataLoader(NoisyDataset(11, 3), 4)

        def create_metrics(self) -> None:
            super().create_metrics()
            self.test_metrics = AccuracyMetrics()

    trainer = trained(tmp_path, Tested, val_iterations=4)
    after = weights(trainer)
    assert [step for step, _ in lines(trainer, "test", "loss")] == [8]
    state = torch.load(Path(trainer.session_name) / "checkpoints" / "step_00000024.pt", weights_only=True)
    trainer.bare_model.load_state_dict(state["model"])
    assert torch.equal(after, weights(trainer)), "the last weights are back after"


class _Judged(Scripted):
    """Best after step 8; its test set and its validation set are the same."""

    script = (0.5, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1)

    def create_data(self) -> None:
        super().create_data()
        self.test_dataloader = self.val_dataloader


def test_a_best_checkpoint_that_could_not_be_written_is_replaced_by_the_best_before(tmp_path: Path) -> None:
    class Blocked(_Judged):
        def save_checkpoint(self) -> None:
            blocked = Path(self.session_name) / "checkpoints" / "step_00000008.pt"
            if self.progress.step == 8:
                (blocked / "in the way").mkdir(parents=True)
            super().save_checkpoint()

    trainer = trained(tmp_path, Blocked, val_iterations=4)
    log = (Path(trainer.session_name) / "logs.txt").read_text()
    assert "step_00000008.pt: checkpoint not written (Is a directory); going on" in log
    assert (
        "WARNING: the best checkpoint cannot be evaluated (step_00000008.pt: a directory, not a checkpoint file)" in log
    )
    assert "WARNING: step_00000004.pt, the best one before, is evaluated instead" in log
    assert lines(trainer, "test", "loss") == lines(trainer, "val", "loss")[:1]


def test_without_any_best_checkpoint_the_last_weights_are_evaluated(tmp_path: Path) -> None:
    class Lost(_Judged):
        def validate(self) -> float:
            if self.global_step == 24:
                assert self._saver is not None
                self._saver.wait()
                (Path(self.session_name) / "checkpoints" / "step_00000008.pt").unlink()
            return super().validate()

    trainer = trained(tmp_path, Lost, val_iterations=4)
    log = (Path(trainer.session_name) / "logs.txt").read_text()
    assert (
        "WARNING: the best checkpoint cannot be evaluated (step_00000008.pt: not there, not a checkpoint file)" in log
    )
    assert "WARNING: the last weights, after step 24, are evaluated instead" in log
    assert lines(trainer, "test", "loss") == lines(trainer, "val", "loss")[-1:]


def test_no_final_evaluation_where_none_is_wanted(tmp_path: Path) -> None:
    assert lines(trained(tmp_path, _Judged, final_evaluation=False), "test", "loss") == []
    assert len(lines(trained(tmp_path, _Judged), "test", "loss")) == 1


def test_a_validation_that_is_not_finite_is_said_with_its_step(tmp_path: Path) -> None:
    class Infinite(TinyTrainer):
        def forward_loss(self, batch: Any, output: Any) -> Any:
            return super().forward_loss(batch, output) * (1 if self.model.training else math.inf)

    trainer = trained(tmp_path, Infinite, n_iterations=6)
    assert "WARNING: step 6: the validation's loss is inf\n" in (Path(trainer.session_name) / "logs.txt").read_text()


def test_a_validation_without_a_save_ends_with_a_line_too(tmp_path: Path) -> None:
    trainer = _scripted(tmp_path, (0.5, 0.4, 0.3), checkpoint_iterations=12, n_iterations=12)
    log = (Path(trainer.session_name) / "logs.txt").read_text()
    assert f"Val score: 0.400\n{'-' * 100}\n\n" in log


def test_several_scores(tmp_path: Path) -> None:
    class Several(TinyTrainer):
        def create_metrics(self) -> None:
            def compute(output: Any, label: Any) -> dict[str, torch.Tensor]:
                return {"right": (output.argmax(1) == label).float(), "margin": output.max(1).values}

            self.train_metrics, self.val_metrics = MeanMetrics(compute), MeanMetrics(compute)

    trainer = trained(tmp_path, Several, score="margin")
    assert set(json.loads((Path(trainer.session_name) / "metrics.jsonl").read_text().splitlines()[-1])) == {
        "step", "epoch", "split", "loss", "right", "margin", "time",
    }  # fmt: skip


def test_accuracy() -> None:
    metrics = AccuracyMetrics()
    assert math.isnan(metrics.evaluate())
    metrics.update(torch.eye(3), torch.tensor([0, 1, 1]))
    metrics.update(torch.eye(3)[:1], torch.tensor([0]))
    assert metrics.evaluate(5) == 0.75
    assert metrics.confusion().tolist() == [[2, 0, 0], [0, 1, 1], [0, 0, 0]]
    assert metrics.per_class()[:2] == [1.0, 0.5] and math.isnan(metrics.per_class()[2])
    other = AccuracyMetrics()
    other.load_state_dict(metrics.state_dict())
    assert other.evaluate() == 0.75
    metrics.reset()
    assert math.isnan(metrics.evaluate())


# Stops and resumes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_after_the_step(tmp_path: Path, number: int) -> None:
    class Stopped(TinyTrainer):
        def train_step(self) -> Any:
            if self.global_step == 8:
                os.kill(os.getpid(), number)
            return super().train_step()

    trainer = Stopped(base_config(output_path=str(tmp_path)))
    with pytest.raises(Interrupted) as caught:
        trainer.train()
    assert caught.value.code == 128 + number
    assert (Path(trainer.session_name) / "checkpoints" / "latest").read_text() == "step_00000008.pt\n"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_signal_in_a_validation_does_not_wait_for_it(tmp_path: Path) -> None:
    class Stopped(TinyTrainer):
        kill = True

        def visualise(self, batch: Any, output: Any, mode: str) -> None:
            if mode == "val" and self.global_step == 12 and self.kill:
                os.kill(os.getpid(), signal.SIGTERM)

    config = base_config(output_path=str(tmp_path))
    trainer = Stopped(config)
    with pytest.raises(Interrupted):
        trainer.train()
    folder = Path(trainer.session_name)
    assert [step for step, _ in lines(trainer, "val", "loss")] == [6]
    Stopped.kill = False
    again = Stopped(config, session=Session.existing(folder))
    assert again.resume() == 12
    again.train()
    whole = trained(tmp_path)
    for split, name in (("val", "loss"), ("val", "accuracy"), ("train", "accuracy"), ("train", "loss")):
        assert lines(again, split, name) == lines(whole, split, name)
    assert torch.equal(weights(again), weights(whole))


def _cut_short(folder: Path, n: int, **changes: Any) -> Path:
    """A run of n steps that is complete."""
    return Path(trained(folder, n_iterations=n, **changes).session_name)


def _resumed(session: Path, *, force: bool = False, **changes: Any) -> TinyTrainer:
    trainer = TinyTrainer(base_config(output_path=str(session.parent), **changes), session=Session.existing(session))
    trainer.resume(force=force)
    trainer.train()
    return trainer


def test_train_6_is_train_3_and_resume_and_train_3(tmp_path: Path) -> None:
    options: dict[str, Any] = {"val_iterations": 3, "print_iterations": 1}
    whole = trained(tmp_path, n_iterations=6, **options)
    halves = _resumed(_cut_short(tmp_path, 3, **options), n_iterations=6, **options)
    assert torch.equal(weights(whole), weights(halves))
    sidecars = [
        json.loads((Path(t.session_name) / "checkpoints" / "step_00000006.json").read_text()) for t in (whole, halves)
    ]
    assert sidecars[0]["sha256"] == sidecars[1]["sha256"] and sidecars[0]["state_sha256"] == sidecars[1]["state_sha256"]
    assert lines(whole, "val", "loss") == lines(halves, "val", "loss")


def test_the_end_of_a_shorter_run_is_passed_over_if_a_longer_one_would_not_stop_there(tmp_path: Path) -> None:
    options: dict[str, Any] = {"val_iterations": 3, "print_iterations": 1}
    session = _cut_short(tmp_path, 5, **options)
    again = _resumed(session, n_iterations=8, **options)
    whole = trained(tmp_path, n_iterations=8, **options)
    assert [step for step, _ in lines(again, "val", "loss")] == [3, 6, 8]
    assert torch.equal(weights(whole), weights(again)) and lines(whole, "val", "loss") == lines(again, "val", "loss")


def test_extending_a_cosine_is_another_run(tmp_path: Path) -> None:
    options: dict[str, Any] = {"val_iterations": 3, "print_iterations": 1, "schedule": "cosine"}
    session = _cut_short(tmp_path, 6, **options)
    with pytest.raises(
        RunnerError,
        match=r"another run: the learning rate depends on where the training ends \(step 2 would have had another\)",
    ):
        _resumed(session, n_iterations=12, **options)
    forced = _resumed(session, n_iterations=12, force=True, **options)
    log = (Path(forced.session_name) / "logs.txt").read_text()
    assert "FORCED, not reproducible as one run: the learning rate depends on where the training ends" in log
    assert "Loaded model and optimiser weights from" in log and "Changed since: n_iterations: 6 -> 12\n" in log
    assert forced.progress.step == 12


def test_forcing_on_from_the_end_of_a_shorter_run_is_said(tmp_path: Path) -> None:
    options: dict[str, Any] = {"keep_last": 1, "score": "loss", "score_direction": "max", "val_iterations": 6}
    session = _cut_short(tmp_path, 10, **options)
    for path in (session / "checkpoints").glob("step_00000006.*"):
        path.unlink()
    with pytest.raises(
        RunnerError, match=r"step_00000010\.pt is the end of a shorter run, which a longer one does not"
    ):
        _resumed(session, **options)
    forced = _resumed(session, force=True, **options)
    log = (Path(forced.session_name) / "logs.txt").read_text()
    assert (
        "FORCED, not reproducible as one run: step 10 is the end of a shorter run, which a longer one does not" in log
    )
    assert forced.progress.step == 24


class _Horizon(TinyTrainer):
    """Something in it depends on where the training ends."""

    def weight_decay(self) -> float:
        return 0.0

    def create_optimiser(self) -> None:
        self.optimiser = torch.optim.SGD(self.model.parameters(), 0.05, weight_decay=self.weight_decay())


class _Decaying(_Horizon):
    def weight_decay(self) -> float:
        return 1 / float(self.config.n_iterations)


class _Cycling(_Horizon):
    def create_optimiser(self) -> None:
        self.optimiser = torch.optim.SGD(self.model.parameters(), 0.05, momentum=0.9)

    def create_scheduler(self) -> None:
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimiser, self.factor)

    def factor(self, step: int) -> float:
        return 1 - step / self.schedule.n_iterations if step else 1.0


class _Dropping(_Horizon):
    def create_model(self) -> None:
        super().create_model()
        self.model.append(nn.Dropout(1 / self.config.n_iterations))


class _Annealing(_Horizon):
    def forward_loss(self, batch: Any, output: Any) -> Any:
        return super().forward_loss(batch, output) * (1 - self.global_step / (2 * self.config.n_iterations))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            _Decaying,
            r"the optimiser's weight_decay depends on where the training ends \(step 1 would have had another\)",
        ),
        (_Cycling, r"the learning rate depends on where the training ends \(step 2 would have had another\)"),
        (
            _Dropping,
            "the project's code reads n_iterations outside create_optimiser and create_scheduler, so that what",
        ),
        (
            _Annealing,
            "the project's code reads n_iterations outside create_optimiser and create_scheduler, so that what",
        ),
    ],
)
def test_whatever_depends_on_where_the_training_ends_is_found(
    tmp_path: Path, kind: type[TinyTrainer], expected: str
) -> None:
    options: dict[str, Any] = {"val_iterations": 3, "print_iterations": 1}
    session = Path(trained(tmp_path, kind, n_iterations=6, **options).session_name)
    again = kind(base_config(output_path=str(tmp_path), n_iterations=12, **options), session=Session.existing(session))
    optimiser = again.optimiser
    with pytest.raises(RunnerError, match=f"this would be another run: {expected}"):
        again.resume()
    assert again.optimiser is optimiser and again.schedule.n_iterations == again.config.n_iterations == 12


def test_the_number_of_workers_that_read_a_stream_stays(tmp_path: Path) -> None:
    class Stream(IterableDataset[dict[str, Any]]):
        def __iter__(self) -> Iterator[dict[str, Any]]:
            worker = get_worker_info()
            first, step = (worker.id, worker.num_workers) if worker is not None else (0, 1)
            data = NoisyDataset(53, 1)
            yield from (data[index] for index in range(first, 53, step))

    class Streaming(TinyTrainer):
        def create_data(self) -> None:
            super().create_data()
            self.train_dataloader = DataLoader(Stream(), 8, num_workers=self.config.n_workers)

    options: dict[str, Any] = {"output_path": str(tmp_path), "val_iterations": 6}
    session = Path(trained(tmp_path, Streaming, n_iterations=6, n_workers=2, val_iterations=6).session_name)
    again = Streaming(base_config(n_iterations=12, **options), session=Session.existing(session))
    expected = r"on which its order depends, were {'train': 2} and are {'train': 0}; start a new run"
    with pytest.raises(RunnerError, match=expected):
        again.resume()
    again = Streaming(base_config(n_iterations=12, n_workers=2, **options), session=Session.existing(session))
    assert again.resume() == 6


def test_extending_steps_of_a_fixed_length_is_allowed(tmp_path: Path) -> None:
    options: dict[str, Any] = {"val_iterations": 3, "print_iterations": 1, "schedule": "step"}
    assert _resumed(_cut_short(tmp_path, 6, **options), n_iterations=12, **options).progress.step == 12


def test_what_may_change_is_shown_and_the_rest_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = _cut_short(tmp_path, 6)
    expected = (
        "this would be another run: batch_size was 8 and is 4; learning_rate was 0.05 and is 0.1; start a new run"
    )
    with pytest.raises(RunnerError, match=expected):
        _resumed(session, n_iterations=12, batch_size=4, learning_rate=0.1)
    with pytest.raises(RunnerError, match="n_iterations is 3, but step 6 is done"):
        _resumed(session, n_iterations=3)
    _resumed(session, n_iterations=12, print_iterations=1)
    out = capsys.readouterr().out
    assert "Changed since: n_iterations: 6 -> 12\n" in out and "Changed since: print_iterations: 2 -> 1\n" in out


def test_a_torn_line_is_dropped_and_the_file_stays_the_same_file(tmp_path: Path) -> None:
    session = _cut_short(tmp_path, 6)
    metrics = session / "metrics.jsonl"
    before = metrics.read_text()
    with metrics.open("a") as handle:
        handle.write('{"step": 7, "epoch": 1, "split": "train", "loss": 1}\n{"step": 8, "ep')
    inode = metrics.stat().st_ino
    trainer = TinyTrainer(base_config(n_iterations=6), session=Session.existing(session))
    trainer.resume()
    assert metrics.read_text() == before and metrics.stat().st_ino == inode


def test_a_line_in_the_middle_that_cannot_be_read_is_not_dropped_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = _cut_short(tmp_path, 6)
    metrics = session / "metrics.jsonl"
    before = metrics.read_text()
    first, rest = before.split("\n", 1)
    metrics.write_text(first + '\n{"step": 3, "ep\n' + rest)
    trainer = TinyTrainer(base_config(n_iterations=6), session=Session.existing(session))
    trainer.resume()
    assert metrics.read_text() == before
    assert f"WARNING: {metrics}: line 2 cannot be read, it is dropped: b'" in capsys.readouterr().out


def test_a_picture_that_cannot_be_shown_is_named_and_costs_no_checkpoint(tmp_path: Path) -> None:
    class Flat(TinyTrainer):
        def visualise(self, batch: Any, output: Any, mode: str) -> None:
            if self.global_step == 12:
                self.tensorboard.add_images(mode + "/image", torch.zeros(2, 2, 4, 4), self.global_step)

    trainer = Flat(base_config(output_path=str(tmp_path)))
    with pytest.raises(RunnerError, match=r"^tensorboard: train/image: a picture .* found shape \(2, 2, 4, 4\)"):
        trainer.train()
    assert (Path(trainer.session_name) / "checkpoints" / "latest").read_text() == "step_00000006.pt\n"


def test_registered_state_and_plain_metrics_are_restored(tmp_path: Path) -> None:
    class Counter:
        def __init__(self) -> None:
            self.n = 0

        def state_dict(self) -> dict[str, int]:
            return {"n": self.n}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.n = state["n"]

    class Plain:
        def __init__(self) -> None:
            self.n = 0

        def update(self, output: Any, label: Any) -> None:
            self.n += len(label)

        def evaluate(self) -> float:
            return float(self.n)

        def reset(self) -> None:
            self.n = 0

    class Registering(TinyTrainer):
        def create_metrics(self) -> None:
            self.train_metrics, self.val_metrics = Plain(), Plain()
            self.counter = Counter()
            self.register_state("counter", self.counter)

        def train_step(self) -> Any:
            self.counter.n += 1
            return super().train_step()

    before = _cut_short(tmp_path, 9)
    with pytest.raises(
        RunnerError, match=r"the checkpoint holds no state of counter \(it holds: none\), which register"
    ):
        Registering(base_config(n_iterations=9), session=Session.existing(before)).resume(force=True)
    trainer = trained(tmp_path, Registering, n_iterations=9)
    again = Registering(base_config(n_iterations=9), session=Session.existing(Path(trainer.session_name)))
    again.resume()
    assert again.counter.n == 9 and again.val_metrics.n == 19
    assert lines(trainer, "val", "score") == [(6, 19.0), (9, 19.0)]


# Settings ---------------------------------------------------------------------------------------------------------------


def test_all_that_is_wrong_is_said_at_once() -> None:
    values = {
        **DEFAULTS,
        "n_epochs": 2,
        "n_iterations": 5,
        "precision": "fp8",
        "accumulate": 0,
        "clip_norm": 0,
        "ema": 1,
        "loader": 3,
    }
    with pytest.raises(RunnerError) as caught:
        Settings.from_config(type("Config", (), values)())
    for part in (
        "exactly one of n_iterations and n_epochs expected, found both (set the other to null)",
        "precision: fp32|bf16|fp16 expected, found 'fp8'",
        "accumulate: at least 1 expected, found 0",
        "clip_norm: more than 0 expected, found 0",
        "ema: a decay between 0 and 1 expected (0.999 is common), found 1.0",
        "loader: auto|samples|batches expected, found 3",
    ):
        assert part in str(caught.value)


def test_neither_length_and_what_the_cpu_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="exactly one of n_iterations and n_epochs expected, found neither"):
        TinyTrainer(base_config(n_iterations=None))
    with pytest.raises(RunnerError, match="precision: fp16 needs a GPU"):
        TinyTrainer(base_config(precision="fp16"))
    if not torch.cuda.is_available():
        with pytest.raises(RunnerError, match="gpu: true, but torch sees no GPU here"):
            TinyTrainer(base_config(gpu=True))


def test_no_more_processes_than_gpus() -> None:
    refuse_crowd(2, 2)
    expected = r"^resources\.processes: 4, but torch sees 1 GPU here; give the launch 4 \(GPUS=4\), or set resources"
    with pytest.raises(RunnerError, match=expected):
        refuse_crowd(4, 1)


def test_numbers_as_people_write_them() -> None:
    settings = Settings.from_config(type("Config", (), {**DEFAULTS, "n_iterations": 1e4, "val_epochs": 2})())
    assert settings.n_iterations == 10_000 and settings.val_epochs == 2.0


def test_every_key_has_a_rule_a_meaning_and_a_field() -> None:
    assert set(ON_RESUME.values()) == {"free", "fixed", "horizon"}
    assert set(Settings.__annotations__) == set(DEFAULTS) == set(ON_RESUME) - {"output_path"}
    assert all(key.meaning and not key.meaning.endswith(".") for key in KEYS)


def test_a_hook_that_sets_nothing_is_named(tmp_path: Path) -> None:
    class Empty(TinyTrainer):
        def create_optimiser(self) -> None: ...

    with pytest.raises(RunnerError, match=r"Empty\.create_optimiser must set self\.optimiser"):
        Empty(base_config(output_path=str(tmp_path)))


def test_unread_keys_are_named(tmp_path: Path) -> None:
    trainer = trained(tmp_path, n_iterations=2, learning_rat=1.0)
    log = (Path(trainer.session_name) / "logs.txt").read_text()
    assert "Config keys that nothing read: learning_rat\n" in log.replace(", output_path", "").replace(
        "output_path, ", ""
    )


def test_two_sessions_in_one_second(tmp_path: Path) -> None:
    names = {TinyTrainer(base_config(output_path=str(tmp_path))).session_name for _ in range(3)}
    assert len(names) == 3


def test_profile(tmp_path: Path) -> None:
    trainer = trained(tmp_path, n_iterations=9, profile=2)
    trace = Path(trainer.session_name) / "debug" / "trace.json"
    named = Counter(event.get("name") for event in json.loads(trace.read_text())["traceEvents"])
    assert named["Optimizer.step#AdamW.step"] == named["Optimizer.zero_grad#AdamW.zero_grad"] == 2
    assert f"Trace of 2 steps: {trace} (open" in (Path(trainer.session_name) / "logs.txt").read_text()


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (3, "profile: no trace, 3 steps were made and it begins after 5\n"),
        (7, "Trace of 2 steps, not 20, for the training ended: "),
    ],
)
def test_a_profile_longer_than_the_run_says_so(tmp_path: Path, n: int, expected: str) -> None:
    trainer = trained(tmp_path, n_iterations=n, profile=20)
    assert expected in (Path(trainer.session_name) / "logs.txt").read_text()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compile(tmp_path: Path) -> None:
    from torch._dynamo.utils import counters

    class Flat(TinyTrainer):
        def create_model(self) -> None:
            self.model = nn.Sequential(nn.Linear(N_FEATURES, 3))

    options: dict[str, Any] = {"n_iterations": 2, "val_iterations": 2, "batch_size": 8}
    plain = trained(tmp_path, Flat, **options)
    counters.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own making
        compiled = trained(tmp_path, Flat, compile=True, **options)
    assert counters["stats"]["unique_graphs"] >= 1
    assert torch.allclose(weights(plain), weights(compiled), rtol=1e-4, atol=1e-6)


def test_channels_last(tmp_path: Path) -> None:
    class Pictures(TinyTrainer):
        def create_data(self) -> None:
            generator = torch.Generator().manual_seed(1)
            self.train_dataset = ArrayDataset(
                x=torch.randn(20, 3, 6, 6, generator=generator), label=torch.arange(20) % 3
            )
            self.val_dataset = self.train_dataset
            self.train_dataloader = DataLoader(self.train_dataset, 8)
            self.val_dataloader = DataLoader(self.val_dataset, 8)

        def create_model(self) -> None:
            self.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 3))

        def forward_model(self, batch: Any) -> Any:
            expected = self.settings.channels_last
            for tensor in (batch["x"], self.bare_model[0].weight):
                assert tensor.is_contiguous(memory_format=torch.channels_last) is expected
            return super().forward_model(batch)

    options: dict[str, Any] = {"n_iterations": 4, "val_iterations": 2}
    one, other = (trained(tmp_path, Pictures, channels_last=on, **options) for on in (False, True))
    assert torch.allclose(weights(one), weights(other), rtol=1e-3, atol=1e-5)


def test_deterministic(tmp_path: Path) -> None:
    class Putting(TinyTrainer):
        def forward_loss(self, batch: Any, output: Any) -> Any:
            torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))
            return super().forward_loss(batch, output)

    assert trained(tmp_path, Putting, n_iterations=2).progress.step == 2
    with pytest.raises(RuntimeError, match="put_ does not have a deterministic implementation"):
        trained(tmp_path, Putting, n_iterations=2, deterministic=True)
    assert "CUBLAS_WORKSPACE_CONFIG" in os.environ, "without it cuBLAS refuses"
    assert not torch.are_deterministic_algorithms_enabled(), "the next training in this process chooses for itself"
    assert (
        "deterministic algorithms on"
        in (Path(trained(tmp_path, n_iterations=2, deterministic=True).session_name) / "logs.txt").read_text()
    )


def test_nothing_is_written_to_files_where_none_is_wanted(tmp_path: Path) -> None:
    trainer = trained(tmp_path, n_iterations=6, write_file=False, write_tb=False)
    assert sorted(path.name for path in Path(trainer.session_name).iterdir()) == ["checkpoints", "config.yml"]


def test_frequencies_in_epochs(tmp_path: Path) -> None:
    """An epoch has 7 steps."""
    shown: list[int] = []

    class Showing(TinyTrainer):
        def visualise(self, batch: Any, output: Any, mode: str) -> None:
            if mode == "train":
                shown.append(self.global_step)

    options: dict[str, Any] = {"vis_iterations": None, "vis_epochs": 2, "val_iterations": 28, "checkpoint_epochs": 1}
    trainer = trained(tmp_path, Showing, n_iterations=28, keep_last=9, **options)
    assert shown == [14, 28]
    assert trainer.store is not None and trainer.store.steps() == [7, 14, 21, 28]


# Times ------------------------------------------------------------------------------------------------------------------


class _Noting(Clock):
    """Keeps what it is told of examples."""

    def __init__(self) -> None:
        super().__init__()
        self.examples: list[tuple[int, int]] = []

    def interval(self, step: int, examples: int) -> tuple[float, float, float]:
        self.examples.append((step, examples))
        return super().interval(step, examples)


def test_examples_a_second_are_of_real_batches(tmp_path: Path) -> None:
    """An epoch is 53 examples: 6 batches of 8 and one of 5."""
    trainer = TinyTrainer(base_config(output_path=str(tmp_path), n_iterations=8))
    trainer.clock = noting = _Noting()
    trainer.train()
    assert noting.examples == [(2, 16), (4, 32), (6, 48), (8, 61)]
    clock = Clock()
    clock.start(10, 100, 0.0)
    clock.fetch_s = 1e-9
    examples_per_s, fetch_s, update_s = clock.interval(14, 130)
    assert examples_per_s * (fetch_s + update_s) * 4 == pytest.approx(30)


def test_time_left_after_a_resume_goes_by_the_steps_of_this_attempt() -> None:
    clock = Clock()
    clock.start(100, 0, 5000.0)
    assert clock.left_s(100, 200) == 0.0, "nobody knows yet"
    before = clock.elapsed_s
    left = clock.left_s(102, 200)
    assert before > 5000 and 98 * (before - 5000) / 2 <= left <= 98 * (clock.elapsed_s - 5000) / 2


def test_the_time_of_earlier_attempts_counts(tmp_path: Path) -> None:
    session = _cut_short(tmp_path, 6)
    sidecar = session / "checkpoints" / "step_00000006.json"
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "elapsed_s": 7200.0}))
    _resumed(session, n_iterations=8)
    last = re.findall(
        r"Iteration    8/8 .* time elapsed: (\S+) \| time left: (\S+)\n", (session / "logs.txt").read_text()
    )
    assert last == [("02h00m00s", "00h00m00s")]


def test_the_seed_and_the_gpu_of_a_config_of_ones_own(tmp_path: Path) -> None:
    expected = (
        r"^config: seed: a whole number from 0 on expected, found None; gpu: true, false or auto expected, found 'yes'$"
    )
    with pytest.raises(RunnerError, match=expected):
        TinyTrainer(base_config(output_path=str(tmp_path), seed=None, gpu="yes"))
    with pytest.raises(RunnerError, match=r"^config: seed: a whole number from 0 on expected, found 'one'$"):
        TinyTrainer(base_config(output_path=str(tmp_path), seed="one"))


def test_a_traceback_reaches_logs_txt(tmp_path: Path) -> None:
    class Failing(TinyTrainer):
        def forward_loss(self, batch: Any, output: Any) -> Any:
            raise ZeroDivisionError("on purpose")

    trainer = Failing(base_config(output_path=str(tmp_path)))
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    assert "ZeroDivisionError: on purpose" in (Path(trainer.session_name) / "logs.txt").read_text()
