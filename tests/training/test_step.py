"""One optimiser step: what it weighs, and a step of the project's own."""

import functools
import json
import math
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import N_FEATURES, NoisyDataset, TinyTrainer, base_config
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.data import DataLoader, IterableDataset

from runner.contract.errors import RunnerError
from runner.training import ArrayDataset
from runner.training.watch import LossWatch


def trained(folder: Path, kind: type[TinyTrainer], **changes: Any) -> TinyTrainer:
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


class Counting(torch.optim.SGD):
    """Has a zero_grad of its own."""

    n_calls = 0

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.n_calls += 1
        super().zero_grad(set_to_none)


def test_gradients_are_cleared_by_the_optimisers_own_zero_grad_where_it_has_one(tmp_path: Path) -> None:
    class Mine(TinyTrainer):
        def create_optimiser(self) -> None:
            self.optimiser = Counting(self.model.parameters(), lr=0.05)

    class Patched(Mine):
        def create_optimiser(self) -> None:
            self.optimiser = torch.optim.SGD(self.model.parameters(), lr=0.05)
            self.optimiser.zero_grad = Counting.zero_grad.__get__(Counting(self.model.parameters(), lr=0.05))

    mine, patched = trained(tmp_path, Mine), trained(tmp_path, Patched)
    assert mine.optimiser.n_calls == mine.progress.step == patched.optimiser.zero_grad.__self__.n_calls
    assert torch.equal(weights(mine), weights(patched))


def test_whatever_hooks_into_steps_is_called(tmp_path: Path) -> None:
    called: Counter[str] = Counter()

    def count(name: str) -> Any:
        def hook(optimiser: Any, args: Any, kwargs: Any) -> None:
            called[name] += 1

        return hook

    class Hooked(TinyTrainer):
        """Hooks come and go in the middle of the training."""

        def train_step(self) -> Any:
            if self.global_step == 3:
                self.optimiser.register_step_pre_hook(count("before"))
                self.optimiser.register_step_post_hook(count("after"))
            if self.global_step == 5:
                handles = [register_optimizer_step_pre_hook(count("before any"))]
                handles.append(register_optimizer_step_post_hook(count("after any")))
                try:
                    return super().train_step()
                finally:
                    for handle in handles:
                        handle.remove()
            return super().train_step()

    trainer = trained(tmp_path, Hooked, n_iterations=12)
    assert called == {"before": 10, "after": 10, "before any": 1, "after any": 1}
    assert torch.equal(weights(trainer), weights(trained(tmp_path, TinyTrainer, n_iterations=12)))


def test_a_step_of_the_optimisers_own_is_made(tmp_path: Path) -> None:
    torch.optim.SGD([torch.zeros(1)])
    assert torch.optim.SGD.step.hooked  # wraps copies that too, so that torch takes this step for one it has wrapped

    class Around(torch.optim.SGD):
        n_steps = 0

        @functools.wraps(torch.optim.SGD.step)
        def step(self, *args: Any, **options: Any) -> Any:
            self.n_steps += 1
            return super().step(*args, **options)

    class Mine(TinyTrainer):
        def create_optimiser(self) -> None:
            self.optimiser = Around(self.model.parameters(), lr=0.05)

    class Scheduled(Mine):
        def create_scheduler(self) -> None:
            self.scheduler = torch.optim.lr_scheduler.ConstantLR(self.optimiser, factor=1.0)

    for kind in (Mine, Scheduled):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            trainer = trained(tmp_path, kind)
        assert trainer.optimiser.n_steps == trainer.progress.step


def test_a_schedulers_count_of_steps_is_kept(tmp_path: Path) -> None:
    class Scheduled(TinyTrainer):
        def create_scheduler(self) -> None:
            self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimiser, 3)

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of a scheduler's step before any of the optimiser's
        trainer = trained(tmp_path, Scheduled, n_iterations=8)

    class Heard(Scheduled):
        def create_optimiser(self) -> None:
            super().create_optimiser()
            self.optimiser.register_step_pre_hook(lambda *_: None)

    assert trainer.optimiser._opt_called
    assert torch.equal(weights(trainer), weights(trained(tmp_path, Heard, n_iterations=8)))


class Own(TinyTrainer):
    """Makes its steps itself, as one with two optimisers would; it is the same step."""

    bad_step = 0

    def train_step(self) -> Any:
        batch = self._get_next_batch()
        loss = self.forward_loss(batch, self.forward_model(batch))
        self.optimiser.zero_grad()
        (loss * math.nan if self.global_step == self.bad_step else loss).backward()
        self.optimiser.step()
        return loss * math.nan if self.global_step == self.bad_step else loss


# A step of the project's own --------------------------------------------------------------------------------------------


def test_with_a_step_of_its_own_everything_else_goes_on(tmp_path: Path) -> None:
    shown: list[tuple[int, str]] = []

    class Showing(Own):
        def visualise(self, batch: Any, output: Any, mode: str) -> None:
            assert output.shape == (len(batch["label"]), 3)
            shown.append((self.global_step, mode))

    own, plain = trained(tmp_path, Showing), trained(tmp_path, TinyTrainer)
    assert torch.equal(weights(own), weights(plain))
    assert lines(own, "train", "loss") == lines(plain, "train", "loss")
    assert lines(own, "val", "loss") == lines(plain, "val", "loss")
    assert [step for step, _ in lines(own, "train", "accuracy")] == [6, 12, 18, 24]
    assert all(score is not None for _, score in lines(own, "train", "accuracy"))
    assert shown == [(step, mode) for step in (6, 12, 18, 24) for mode in ("train", "val")]
    assert "Iteration    2/24" in (Path(own.session_name) / "logs.txt").read_text()


def test_a_nan_in_a_step_of_its_own_stops_the_run(tmp_path: Path) -> None:
    kind = type("Bad", (Own,), {"bad_step": 5})
    with pytest.raises(RunnerError, match=r"^step 5: the loss is nan; the state after step 4 is saved in"):
        trained(tmp_path, kind)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"accumulate": 2}, "accumulate: 2"),
        ({"clip_norm": 1.0, "ema": 0.9}, "clip_norm: 1.0, ema: 0.9"),
        ({"precision": "bf16"}, "precision: bf16"),
    ],
)
def test_what_a_step_of_its_own_would_leave_out_is_refused(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    expected = rf"^Own\.train_step makes the step itself, so {named} would do nothing; call super\(\)\.train_step"
    with pytest.raises(RunnerError, match=expected):
        trained(tmp_path, Own, **change)


def test_a_step_that_calls_ours_may_have_everything(tmp_path: Path) -> None:
    class Calling(TinyTrainer):
        def train_step(self) -> Any:
            return float(super().train_step())

    options: dict[str, Any] = {"accumulate": 2, "clip_norm": 1.0, "ema": 0.9, "precision": "bf16", "n_iterations": 6}
    calling, plain = trained(tmp_path, Calling, **options), trained(tmp_path, TinyTrainer, **options)
    assert torch.equal(weights(calling), weights(plain))
    assert lines(calling, "train", "loss") == lines(plain, "train", "loss")


def test_a_step_must_return_its_loss(tmp_path: Path) -> None:
    class Forgetful(Own):
        def train_step(self) -> Any:
            super().train_step()

    with pytest.raises(RunnerError, match=r"^Forgetful\.train_step must return the loss, .*; it returned NoneType$"):
        trained(tmp_path, Forgetful)


# A loss that is looked at late, as on a GPU -----------------------------------------------------------------------------


class Spoilt(TinyTrainer):
    """Its loss is NaN in step 5, and nobody looks at once."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        length = self.settings.print_iterations * self.settings.accumulate
        self._watch = LossWatch(self.device, stop=True, length=length, at_once=False)

    def forward_loss(self, batch: Any, output: Any) -> Any:
        loss = super().forward_loss(batch, output)
        return loss * math.nan if self.global_step == 5 else loss


@pytest.mark.parametrize("accumulate", [1, 2])
def test_no_checkpoint_holds_weights_that_a_late_nan_has_spoilt(tmp_path: Path, accumulate: int) -> None:
    config = base_config(
        output_path=str(tmp_path), print_iterations=60, val_iterations=6, checkpoint_iterations=3, accumulate=accumulate
    )
    trainer = Spoilt(config)
    with pytest.raises(RunnerError, match=r"^step 5: the loss is nan; the state after step 6 is saved in"):
        trainer.train()
    checkpoints = Path(trainer.session_name) / "checkpoints"
    (kept,) = checkpoints.glob("*.pt")
    assert kept.name == "step_00000003.pt" and not (checkpoints.parent / "metrics.jsonl").exists(), (
        "nor is one validated"
    )
    state = torch.load(kept, weights_only=True)
    assert all(bool(torch.isfinite(value).all()) for value in state["model"].values())


def test_what_is_kept_for_later_is_looked_at_when_there_is_no_more_room() -> None:
    watch = LossWatch(torch.device("cpu"), stop=True, length=4, at_once=False)
    for step in (7, 7, 8, 8):
        watch.see(step, torch.tensor(math.inf if step == 8 else 1.0))
    with pytest.raises(Exception, match="step 8: the loss is inf"):
        watch.see(9, torch.tensor(1.0))


# What a batch weighs ----------------------------------------------------------------------------------------------------


class _Stream(IterableDataset[dict[str, torch.Tensor]]):
    def __init__(self, x: torch.Tensor) -> None:
        self.x = x

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        yield from ({"x": x, "label": torch.tensor(i % 3)} for i, x in enumerate(self.x))


class Linear(TinyTrainer):
    """Nothing in it knows how large a batch is."""

    streams = True

    def create_data(self) -> None:
        x = torch.randn(53, N_FEATURES, generator=torch.Generator().manual_seed(3))
        whole = ArrayDataset(x=x, label=torch.arange(53) % 3)
        self.train_dataloader = DataLoader(_Stream(x) if self.streams else whole, self.config.batch_size)
        self.val_dataset = NoisyDataset(19, 2)
        self.val_dataloader = DataLoader(self.val_dataset, 8)

    def create_model(self) -> None:
        self.model = nn.Linear(N_FEATURES, 3).double()

    def forward_model(self, batch: Any) -> Any:
        return self.model(batch["x"].double())

    def create_optimiser(self) -> None:
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=0.1)


def test_accumulation_over_a_stream_weighs_the_tail_by_its_examples(tmp_path: Path) -> None:
    """53 examples in batches of 4, 4 batches a step: an epoch ends with a step of one batch of 4 and one of 1."""
    whole = type("Whole", (Linear,), {"streams": False})
    options: dict[str, Any] = {"n_iterations": 8, "print_iterations": 1, "val_iterations": 4, "clip_norm": 1.0}
    one = trained(tmp_path, whole, batch_size=16, **options)
    many = trained(tmp_path, Linear, batch_size=4, accumulate=4, **options)
    assert one.progress.examples == many.progress.examples == 106
    assert torch.allclose(weights(one), weights(many), rtol=0, atol=1e-12)
    for (_, a), (_, b) in zip(lines(one, "train", "loss"), lines(many, "train", "loss"), strict=True):
        assert a == pytest.approx(b)


# What is shown ----------------------------------------------------------------------------------------------------------


def test_drawing_at_random_in_visualise_changes_nothing(tmp_path: Path) -> None:
    class Drawing(TinyTrainer):
        def visualise(self, batch: Any, output: Any, mode: str) -> None:
            torch.rand(3), NoisyDataset(2, 1)[0]

    often = trained(tmp_path, Drawing, vis_iterations=1)
    seldom, never = trained(tmp_path, Drawing, vis_iterations=24), trained(tmp_path, TinyTrainer)
    assert torch.equal(weights(often), weights(seldom)) and torch.equal(weights(often), weights(never))
    assert lines(often, "val", "loss") == lines(seldom, "val", "loss")
