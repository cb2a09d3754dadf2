"""Runs laid side by side: a row for what differs, a value for each run, and no row for what does not."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from runner.contract.jsonio import pretty_json
from runner.contract.layout import RunPaths
from runner.contract.records import EngineRecord, Manifest
from runner.contract.records import to_json as record_json
from runner.host.house import House, find_house
from runner.host.pages.compare import page
from runner.host.verbs.compare import Comparison, compare_runs
from tests.host.made_runs import CONFIG, line, make_run, manifest, write_outcome

LINES = [line(step, loss=1.0 / step) for step in range(1, 13)]


@pytest.fixture
def house(tmp_path: Path) -> House:
    (tmp_path / "runner.yml").write_text("")
    return find_house(tmp_path, {})


def rows(comparison: Comparison) -> dict[str, tuple[Any, ...]]:
    return {f"{row.group} {row.name}": row.values for row in comparison.rows}


def add_attempt(run: RunPaths, config: dict[str, Any]) -> None:
    """A resume, whose command is another by its nature."""
    launch = run.attempt(2)
    launch.folder.mkdir()
    record = dataclasses.replace(manifest(run.folder.name), attempt=2, command=("python", "resume.py"))
    launch.manifest.write_bytes(pretty_json(record_json(record)))
    launch.config_json.write_text(json.dumps(config))
    write_outcome(launch, record)


def test_a_resumed_run_differs_in_nothing_from_one_that_was_never_interrupted(house: House, tmp_path: Path) -> None:
    whole = make_run(tmp_path, "session_a", metrics=LINES)
    resumed = make_run(tmp_path, "session_b", metrics=LINES)
    add_attempt(resumed, dict(CONFIG))
    for runs in ((whole, resumed), (resumed, whole)):
        comparison = compare_runs(house, runs)
        assert comparison.rows == () and "nothing differs" in page(comparison)


def test_runs_that_only_log_otherwise_are_equal_where_both_have_a_value(house: House, tmp_path: Path) -> None:
    often = make_run(tmp_path, "session_a", metrics=LINES[1::2], config={**CONFIG, "print_iterations": 2})
    seldom = make_run(tmp_path, "session_b", metrics=LINES[2::3], config={**CONFIG, "print_iterations": 3})
    comparison = compare_runs(house, (often, seldom))
    assert rows(comparison) == {"config print_iterations": (2, 3)}
    assert comparison.metrics[1] is not None and comparison.metrics[1].divergence is None


def test_another_engine_is_one_row_and_not_its_base_image(house: House, tmp_path: Path) -> None:
    def local(found: Manifest) -> Manifest:
        engine = EngineRecord(kind="local", id="two", boot_id="", host="box", version="1")
        image = dataclasses.replace(found.image, id="a key", base=None, dockerfile_sha256=None)
        return dataclasses.replace(found, engine=engine, image=image)

    runs = (make_run(tmp_path, "session_a"), make_run(tmp_path, "session_b", change=local))
    assert rows(compare_runs(house, runs)) == {"engine kind": ("docker", "local"), "engine version": ("20.10", "1")}


def test_a_row_has_a_value_for_each_run(house: House, tmp_path: Path) -> None:
    configs = [{**CONFIG, "seed": seed} for seed in (0, 1, 0)]
    del configs[2]["model"]
    configs[1]["model"] = {"depth": 3}
    runs = [make_run(tmp_path, f"session_{n}", config=config) for n, config in enumerate(configs)]
    found = rows(compare_runs(house, runs))
    assert found["config seed"] == (0, 1, 0)
    assert found["config model.depth"] == (2, 3, None)
