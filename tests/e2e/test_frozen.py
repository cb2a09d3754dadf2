"""Runs frozen in the past (tests/frozen/make.py), met by today's host: read, resumed and evaluated with the code of their own day."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import REPO, TestHouse

ARCHIVES = sorted((REPO / "tests/frozen").glob("run_schema_*.tar.gz"))


def test_there_is_one_for_every_schema() -> None:
    from runner.contract.records import SCHEMA_VERSION

    assert [path.name for path in ARCHIVES] == [f"run_schema_{n}.tar.gz" for n in range(1, SCHEMA_VERSION + 1)]


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.name)
def test_a_frozen_run_goes_on(plain_house: TestHouse, archive: Path) -> None:
    plain_house.code("raise SystemExit('the code of today must not be asked')\n")
    plain_house.code("raise SystemExit('the code of today must not be asked')\n", "evaluate.py")
    folder = plain_house.checkpoints / "probe/no-dataset"
    folder.mkdir(parents=True)
    subprocess.run(["tar", "-xzf", archive, "-C", folder, "--no-same-owner"], check=True)
    run = plain_house.only_run()
    (row,) = json.loads(plain_house.run("ls", "--json").stdout)
    assert (row["run"], row["state"], row["step"]) == ("frozen/1", "FAILED", 3)
    page = plain_house.run("show", "--run", "latest").stdout
    assert "FAILED (exit code 7" in page and "| frozen code, attempt 1, from step 0" in page
    assert "frozen code, attempt 2, from step 3\n" in plain_house.run("resume").stdout
    assert plain_house.outcome(run, 2)["state"] == "COMPLETED"
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3, 4, 5, 6]
    assert "frozen code evaluated 4\n" in plain_house.run("eval", "--checkpoint", "3").stdout
    (scores,) = plain_house.outputs.glob("probe/no-dataset/*/val_3_*/metrics.json")
    assert json.loads(scores.read_text()) == {"score": 0.1 / 3}
