"""The verdict on two runs, level by level, from files alone."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from runner.contract.errors import RunnerError
from runner.contract.jsonio import file_sha256, pretty_json
from runner.contract.layout import RunPaths
from runner.contract.records import Manifest, MountRecord, State
from runner.contract.records import to_json as record_json
from runner.host.pages.verdict import verdict_page
from runner.host.verdict.verdict import Level, Verdict, judge, parse_level, to_json
from tests.host.made_runs import CONFIG, GPU, line, machine, make_run, manifest, write_outcome

LOSSES = [line(step, loss=1.0 / step) for step in range(1, 11)]


def held(verdict: Verdict) -> dict[str, bool | None]:
    return {str(item.level): item.holds for item in verdict.levels}


def both(tmp_path: Path, first: dict[str, Any], second: dict[str, Any], **more: Any) -> Verdict:
    a, b = make_run(tmp_path, "session_a", **first), make_run(tmp_path, "session_b", **second)
    return judge(a, b, tmp_path / "cache", **more)


def test_equal_runs_hold_at_every_level_whatever_their_clocks_said(tmp_path: Path) -> None:
    later = [{**item, "time": 1e9 + item["step"]} for item in LOSSES]
    states = {5: "x", 10: "y"}
    verdict = both(tmp_path, {"metrics": LOSSES, "states": states}, {"metrics": later, "states": states})
    assert set(held(verdict).values()) == {True} and verdict.holds and verdict.divergence is None
    assert verdict.asked.level is Level.CHECKPOINTS and verdict.conclusion == "the same run"
    page = verdict_page(verdict)
    assert "bit-identical at steps 5, 10 (by state_sha256)" in page and "HOLDS: the same run" in page


def test_the_first_differing_step_is_named_with_both_values(tmp_path: Path) -> None:
    other = [{**item, "loss": item["loss"] + (1e-9 if item["step"] >= 7 else 0)} for item in LOSSES]
    verdict = both(tmp_path, {"metrics": LOSSES, "states": {10: "x"}}, {"metrics": other, "states": {10: "z"}})
    found = verdict.divergence
    assert found is not None and (found.step, found.key, found.first, found.second) == (7, "loss", 1 / 7, 1 / 7 + 1e-9)
    assert held(verdict) == {"inputs": True, "metrics": False, "checkpoints": False, "tolerance": True}
    assert not verdict.holds and "a surprise: nothing that is recorded changed" in verdict.conclusion
    assert f"first differing logged step 7, train: loss {1 / 7!r} and {1 / 7 + 1e-9!r}" in verdict_page(verdict)
    json.dumps(to_json(verdict), allow_nan=False)


def test_equal_results_of_other_inputs_say_so(tmp_path: Path) -> None:
    verdict = both(tmp_path, {"metrics": LOSSES}, {"metrics": LOSSES, "config": {**CONFIG, "seed": 1}})
    assert held(verdict)["inputs"] is False and verdict.holds
    assert verdict.conclusion == "the same results, although config seed differs"


def test_a_line_that_is_missing_is_a_divergence(tmp_path: Path) -> None:
    verdict = both(tmp_path, {"metrics": LOSSES}, {"metrics": LOSSES[:8]})
    assert verdict.divergence is not None
    found = verdict.divergence
    assert (found.step, found.key, found.first, found.second) == (9, "loss", 1 / 9, None)
    assert verdict.asked.level is Level.METRICS and not verdict.holds


def test_equal_metrics_with_other_weights_do_not_hold_bit_by_bit(tmp_path: Path) -> None:
    verdict = both(tmp_path, {"metrics": LOSSES, "states": {4: "x", 10: "x"}}, {"metrics": LOSSES, "states": {10: "z"}})
    assert held(verdict) == {"inputs": True, "metrics": True, "checkpoints": False, "tolerance": True}
    assert not verdict.holds


def test_nothing_to_compare_is_no_success(tmp_path: Path) -> None:
    verdict = both(tmp_path, {}, {}, level="checkpoints")
    assert held(verdict) == {"inputs": True, "metrics": None, "checkpoints": None, "tolerance": None}
    assert not verdict.holds and verdict.conclusion == "nothing to compare"
    assert judge(*_runs(tmp_path), tmp_path / "cache").asked.level is Level.INPUTS


def _runs(tmp_path: Path) -> tuple[Any, Any]:
    return RunPaths(tmp_path / "session_a"), RunPaths(tmp_path / "session_b")


def test_a_run_that_ended_early_is_compared_as_far_as_it_went(tmp_path: Path) -> None:
    first = {"metrics": LOSSES[:6], "state": State.INTERRUPTED, "states": {3: "x", 6: "broken off here"}}
    verdict = both(tmp_path, first, {"metrics": LOSSES, "states": {3: "x", 10: "y"}})
    assert verdict.holds and "up to step 6, where session_a ended" in verdict_page(verdict)


def test_a_reproduction_that_did_not_come_to_its_end_does_not_hold(tmp_path: Path) -> None:
    verdict = both(tmp_path, {"metrics": LOSSES}, {"metrics": LOSSES, "state": State.FAILED})
    assert not verdict.holds and "session_b is FAILED" in verdict_page(verdict)


@pytest.mark.parametrize(
    ("other", "why"),
    [({"cpu_capability": "AVX2"}, "vector width was AVX512 and is AVX2")],
)
def test_another_vector_width_asks_for_tolerance_and_says_why(tmp_path: Path, other: dict[str, Any], why: str) -> None:
    rounded = [{**item, "loss": item["loss"] * (1 + 1e-7)} for item in LOSSES]
    verdict = both(tmp_path, {"metrics": LOSSES}, {"metrics": rounded, "change": machine(**other)})
    assert verdict.asked.level is Level.TOLERANCE and why in verdict.asked.because and verdict.holds
    assert "expected: machine vector width" in verdict.conclusion


def test_a_gpu_without_deterministic_asks_for_tolerance(tmp_path: Path) -> None:
    config = {**CONFIG, "gpu": True, "deterministic": False}
    run = {"metrics": LOSSES, "config": config, "change": machine(gpus=(GPU,)), "states": {10: "x"}}
    verdict = both(tmp_path, run, run)
    assert verdict.asked.level is Level.TOLERANCE and "without deterministic: true" in verdict.asked.because
    sure = {**run, "config": {**config, "deterministic": True}}
    assert both(tmp_path / "2", sure, sure).asked.level is Level.CHECKPOINTS


def test_tolerance_follows_the_noise_of_the_first_run(tmp_path: Path) -> None:
    noisy = [line(s, loss=1.0 + 0.1 * math.sin(12.9898 * s)) for s in range(1, 200)]
    near = [{**item, "loss": item["loss"] + 0.05} for item in noisy]
    far = [{**item, "loss": item["loss"] + 0.9} for item in noisy]
    assert held(both(tmp_path / "near", {"metrics": noisy}, {"metrics": near}))["tolerance"] is True
    assert held(both(tmp_path / "far", {"metrics": noisy}, {"metrics": far}))["tolerance"] is False


NOISY = [line(s, loss=1.0 + 0.1 * math.sin(12.9898 * s), acc=0.5) for s in range(1, 101)]


def changed(**planted: Any) -> list[dict[str, Any]]:
    """NOISY with other losses from a step on."""
    return [{**item, "loss": planted["loss"]} if item["step"] >= planted["from_step"] else item for item in NOISY]


BROKEN = {
    "NaN from step 2 on": (changed(from_step=2, loss=float("nan")), "train loss at step 2 is 1.0"),
    "3 of 100 points": (NOISY[:3], "train loss at step 4 is "),
    "a curve is missing": ([{k: v for k, v in item.items() if k != "acc"} for item in NOISY], "is 0.5 and not logged"),
    "a curve too many": ([{**item, "more": 1.0} for item in NOISY], "train more at step 1 is not logged and 1.0"),
    "the last 5 points": (changed(from_step=96, loss=1e9), "largest difference 1e+09 against"),
    "only the last point": (changed(from_step=100, loss=3.0), "train loss at step 100"),
    "the last line is missing": (NOISY[:-1], "train loss at step 100 is "),
    "infinite at the end": (changed(from_step=100, loss=float("inf")), "and inf"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("level", ["tolerance", "tolerance:0.5"])
def test_a_run_that_broke_is_within_no_tolerance(tmp_path: Path, name: str, level: str) -> None:
    metrics, why = BROKEN[name]
    verdict = both(tmp_path, {"metrics": NOISY}, {"metrics": metrics}, level=level)
    assert not verdict.holds and held(verdict)["tolerance"] is False
    assert why in verdict_page(verdict)


def test_what_is_not_finite_in_both_is_equal_and_a_few_points_may_lie_outside(tmp_path: Path) -> None:
    broken = [{**item, "loss": float("nan")} if item["step"] in (7, 8) else item for item in NOISY]
    shaken = [{**item, "loss": item["loss"] + 1e-4} for item in broken]
    shaken[20] = {**shaken[20], "loss": 9.0}
    assert both(tmp_path, {"metrics": broken}, {"metrics": shaken}, level="tolerance").holds


def test_a_tolerance_of_ones_own(tmp_path: Path) -> None:
    other = [{**item, "loss": item["loss"] * 1.02} for item in LOSSES]
    runs = {"metrics": LOSSES}, {"metrics": other}
    assert both(tmp_path / "a", *runs, level="tolerance:0.05").holds
    assert not both(tmp_path / "b", *runs, level="tolerance:0.01").holds


@pytest.mark.parametrize(
    "text", ["bits", "metrics:0.1", "tolerance:", "tolerance:-1", "tolerance:nan", "tolerance:inf", ""]
)
def test_a_level_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RunnerError, match=r"LEVEL=.*expected one of inputs, metrics, checkpoints, tolerance"):
        parse_level(text)


def test_runs_that_log_at_other_steps_are_compared_where_both_do(tmp_path: Path) -> None:
    often, seldom = {**CONFIG, "print_iterations": 1}, {**CONFIG, "print_iterations": 2}
    verdict = both(tmp_path, {"metrics": LOSSES, "config": often}, {"metrics": LOSSES[1::2], "config": seldom})
    assert held(verdict)["metrics"] is True and held(verdict)["inputs"] is True


def resumed(run: RunPaths, config: dict[str, Any]) -> None:
    """A second attempt of a run, with another config."""
    second = run.attempt(2)
    second.folder.mkdir()
    record = dataclasses.replace(manifest(run.folder.name), attempt=2)
    second.manifest.write_bytes(pretty_json(record_json(record)))
    write_outcome(second, record)
    second.config_json.write_text(json.dumps(config))


@pytest.mark.parametrize(("key", "before", "after"), [("print_iterations", 5, 2), ("n_iterations", 5, 10)])
def test_a_resume_that_only_logs_otherwise_is_the_same_run(tmp_path: Path, key: str, before: int, after: int) -> None:
    """Lines at 5 of the first attempt, at 6, 8, 10 of the second; the whole run logs at 2, 4, 6, 8, 10."""
    last = {**CONFIG, key: after}
    a = make_run(tmp_path, "session_a", metrics=[LOSSES[s - 1] for s in (5, 6, 8, 10)], config={**CONFIG, key: before})
    resumed(a, last)
    whole = [LOSSES[s - 1] for s in (2, 4, 6, 8, 10)]
    b = make_run(tmp_path, "session_b", metrics=whole, config=last)
    assert held(judge(a, b, tmp_path / "cache"))["metrics"] is True
    b.metrics.write_text(b.metrics.read_text().replace('"loss": 0.125', '"loss": 0.126'))
    assert judge(a, b, tmp_path / "cache").divergence is not None


def test_values_that_stand_beside_each_other_by_chance_are_compared_one_by_one(tmp_path: Path) -> None:
    """At step 4 both have a line; the loss stands in one of them only, as print_iterations says."""
    often, seldom = {**CONFIG, "print_iterations": 2}, {**CONFIG, "print_iterations": 3}
    first = [line(2, loss=0.5), line(4, loss=0.4, acc=0.1), line(6, loss=0.3)]
    second = [line(3, loss=0.45), line(4, acc=0.1), line(6, loss=0.3)]
    runs = {"metrics": first, "config": often}, {"metrics": second, "config": seldom}
    assert set(held(both(tmp_path / "a", *runs)).values()) == {True, None}
    second[1] = line(4)
    missing = both(tmp_path / "b", *runs)
    assert missing.divergence is not None and missing.divergence.key == "acc"
    assert held(missing)["tolerance"] is False


def test_nan_torn_lines_and_foreign_ones_are_no_divergence(tmp_path: Path) -> None:
    a, b = make_run(tmp_path, "session_a"), make_run(tmp_path, "session_b")
    a.metrics.write_text('{"step": 1, "split": "train", "loss": NaN, "time": 1}\n[1]\n{"step": 2, "lo')
    b.metrics.write_text('{"step": 1, "split": "train", "loss": NaN, "time": 2}\n')
    verdict = judge(a, b, tmp_path / "cache", level="metrics")
    assert verdict.divergence is None and verdict.holds


def test_files_are_hashed_where_no_state_hash_is_known(tmp_path: Path) -> None:
    a, b = make_run(tmp_path, "session_a", states={1: "x"}), make_run(tmp_path, "session_b", states={1: "x"})
    for run in (a, b):
        (run.checkpoints / "step_00000001.json").write_text('{"step": 1}')
    assert judge(a, b, tmp_path / "cache", level="checkpoints").holds
    (b.checkpoints / "step_00000001.pt").write_text("other")
    verdict = judge(a, b, tmp_path / "cache", level="checkpoints")
    assert not verdict.holds and "the files' sha256" in verdict_page(verdict)


def test_a_flipped_bit_in_a_checkpoint_is_not_bit_identical_whatever_its_sidecar_says(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, name, metrics=LOSSES, states={10: "x"}) for name in ("session_a", "session_b")]
    for run in runs:
        sha256 = file_sha256(run.checkpoints / "step_00000010.pt")
        facts = {"step": 10, "state_sha256": "x", "sha256": sha256}
        (run.checkpoints / "step_00000010.json").write_text(json.dumps(facts))
    assert judge(*runs, tmp_path / "cache", level="checkpoints").holds
    (runs[1].checkpoints / "step_00000010.pt").write_text("weightr")
    verdict = judge(*runs, tmp_path / "cache")
    assert verdict.asked.level is Level.CHECKPOINTS and not verdict.holds
    assert "damaged since it was written: session_b/step_00000010.pt" in verdict_page(verdict)


def test_a_record_that_was_edited_is_not_held_for_the_same_inputs(tmp_path: Path) -> None:
    a, b = make_run(tmp_path, "session_a", metrics=LOSSES), make_run(tmp_path, "session_b", metrics=LOSSES)
    text = b.attempt(1).manifest.read_text()
    b.attempt(1).manifest.write_text(text.replace('"seed"', '"sead"').replace('"uid": 0', '"uid": 1'))
    verdict = judge(a, b, tmp_path / "cache")
    assert held(verdict)["inputs"] is False
    assert verdict.conclusion == "the same results, although record of session_b differs"
    assert "attempts/1/manifest.json is not the one that was launched" in verdict_page(verdict)


def test_a_surprise_names_what_differs_although_it_should_not_matter(tmp_path: Path) -> None:
    def with_models(found: Manifest) -> Manifest:
        return dataclasses.replace(found, mounts=(MountRecord(target="/models", read_only=True),))

    other = {"metrics": [line(1, loss=3.0)], "change": with_models}
    verdict = both(tmp_path, {"metrics": [line(1, loss=2.0)]}, other)
    assert "a surprise: nothing that should matter changed (does mounts /models?)" in verdict.conclusion


@pytest.mark.parametrize("missing_in", ["first", "second"])
def test_checkpoints_that_only_one_run_has_are_named_and_the_last_must_be_there(
    tmp_path: Path, missing_in: str
) -> None:
    def both_ways(name: str, few: dict[int, str], many: dict[int, str]) -> Verdict:
        runs = {"metrics": LOSSES, "states": few}, {"metrics": LOSSES, "states": many}
        return both(tmp_path / name, *(runs if missing_in == "first" else runs[::-1]))

    more = "session_b" if missing_in == "first" else "session_a"
    other_steps = both_ways("other steps", {10: "y"}, {5: "x", 10: "y"})
    assert other_steps.holds and f"bit-identical at step 10 (by state_sha256); only {more} has step 5" in verdict_page(
        other_steps
    )
    for states in ({5: "x"}, {}):
        last = both_ways(f"last {len(states)}", states, {5: "x", 10: "y"})
        assert last.asked.level is Level.CHECKPOINTS and not last.holds
        assert f"only {more} has step" in verdict_page(last)


def test_what_was_never_recorded_stands_in_the_verdict(tmp_path: Path) -> None:
    dev = "dev mode: live code, network and extra packages"

    def in_dev(found: Manifest) -> Manifest:
        return dataclasses.replace(found, mode="dev", reproducible=False, not_reproducible_because=(dev,))

    verdict = both(tmp_path, {"metrics": LOSSES, "change": in_dev}, {"metrics": LOSSES})
    assert f"note: session_a: not reproducible: {dev}" in verdict_page(verdict)
    assert to_json(verdict)["doubts"] == (f"session_a: not reproducible: {dev}",)


def test_a_late_difference_in_a_hundred_thousand_steps_is_found(tmp_path: Path) -> None:
    lines = [line(step, step * 1.5, loss=1.0 / (step + 1), learning_rate=0.003) for step in range(100_000)]
    other = [{**item, "time": 0.0, "loss": item["loss"] + (1e-12 if item["step"] > 90_000 else 0)} for item in lines]
    a, b = make_run(tmp_path, "session_a", metrics=lines), make_run(tmp_path, "session_b", metrics=other)
    verdict = judge(a, b, tmp_path / "cache")
    assert verdict.divergence is not None and verdict.divergence.step == 90_001


def test_attempts_on_different_machines_say_so(tmp_path: Path) -> None:
    a, b = make_run(tmp_path, "session_a"), make_run(tmp_path, "session_b")
    second = a.attempt(2)
    second.folder.mkdir()
    moved = machine(cpu_capability="AVX2")(dataclasses.replace(manifest("session_a"), attempt=2))
    second.manifest.write_bytes(pretty_json(record_json(moved)))
    second.config_json.write_text(json.dumps(CONFIG))
    verdict = judge(a, b, tmp_path / "cache")
    assert [c.first for c in verdict.changes if c.name == "vector width"] == ["AVX512, then AVX2"]
