"""Bad input: one line on stderr (what, found, expected, next step), a non-zero exit, and nothing half-written."""

import json
import re
from pathlib import Path

import pytest

from tests.e2e.conftest import CHECKPOINT, TestHouse, lines_of

LONG = "x" * 300


def refused(house: TestHouse, *arguments: str, exit_code: int = 2) -> str:
    """The one line with which a verb refuses; no run may have been left behind."""
    done = house.run(*arguments, check=exit_code)
    (line,) = lines_of(done.stderr)
    assert line.startswith("error: ") and done.stdout == ""
    assert not house.runs()
    return line


def train(house: TestHouse, *arguments: str) -> str:
    return refused(house, "train", "--project", "probe", "--engine", "local", *arguments)


def test_unknown_project_and_config_name_the_nearest_and_the_list(plain_house: TestHouse) -> None:
    line = refused(plain_house, "train", "--project", "prob")
    assert "PROJECT='prob'" in line and "did you mean 'probe'?" in line and "have: probe" in line
    line = train(plain_house, "--config", "fsat")
    assert "did you mean 'fast'?" in line and "have: default, fast" in line
    assert "PROJECT= is missing" in refused(plain_house, "train")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1\n", "fast.yml"),
        ("- 1\n- 2\n", "list"),
        ("", "empty"),
        ("\x00\x01\x02", "fast.yml"),
        ("learnin_rate: 1\n", "learning_rate"),
        ("learning_rate: fast\n", "learning_rate"),
        ("steps: 1\nsteps: 2\n", "steps"),
        ("learning_rate_: [1, 2]\n", "underscore"),
    ],
)
def test_a_bad_config_is_refused_by_file(plain_house: TestHouse, text: str, words: str) -> None:
    (plain_house.root / "projects/probe/configs/fast.yml").write_text(text)
    line = train(plain_house, "--config", "fast")
    assert "fast.yml" in line and words in line


def test_bad_overrides(plain_house: TestHouse) -> None:
    assert "no '='" in train(plain_house, "--set", "learning_rate")
    assert "learning_rate" in train(plain_house, "--set", "learning_rat=1")
    assert "DATA" in train(plain_house, "--data", "tny") or "data" in train(plain_house, "--data", "tny")
    assert "MODE='prd'" in train(plain_house, "--mode", "prd")
    assert "a tag is one line" in train(plain_house, "--set", f"tag={LONG}")
    assert "a tag is one line" in train(plain_house, "--set", 'tag="a\\nb"')
    assert "ENGINE='dokcer'" in refused(plain_house, "train", "--project", "probe", "--engine", "dokcer")


@pytest.mark.parametrize("name", ["../x", "/etc", "a\nb", LONG, "a/b", ".hidden", "-x", "a b"])
def test_no_name_leads_out_of_its_folder(plain_house: TestHouse, name: str) -> None:
    assert "PROJECT=" in refused(plain_house, "train", f"--project={name}")
    assert "CONFIG=" in train(plain_house, f"--config={name}")
    assert "DATASET=" in refused(plain_house, "dataset", f"--dataset={name}", "--engine", "local")
    assert "RUN=" in refused(plain_house, "show", f"--run={name}")
    if name in ("a\nb", LONG):
        assert "TAG=" in train(plain_house, f"--tag={name}")


def test_gpus_that_are_not_there(plain_house: TestHouse) -> None:
    from runner.host.machine import find_gpus

    if find_gpus():
        pytest.skip("this machine has a GPU")
    for asked in ("all", "2", "0,1", "GPU-1234"):
        assert f"GPUS={asked}" in train(plain_house, "--gpus", asked) and "no GPU" in train(
            plain_house, "--gpus", asked
        )
    assert "gpu: true" in train(plain_house, "--set", "gpu=true")


@pytest.mark.parametrize("key", ["memory_gib", "cpus", "shm_gib", "tmp_gib"])
def test_a_limit_of_zero_is_not_no_limit(plain_house: TestHouse, key: str) -> None:
    """Engines take 0 as unlimited, or as a default of their own."""
    assert f"resources.{key} is 0" in train(plain_house, "--set", f"resources.{key}=0")


def test_variables_that_a_target_does_not_take(plain_house: TestHouse) -> None:
    plain_house.environment["RUNNER_MAKE_PROJCT"] = "probe"
    line = refused(plain_house, "train")
    assert "PROJCT=: no such variable here, did you mean PROJECT=?" in line


def test_runs_that_match_nothing_or_several(house: TestHouse) -> None:
    house.code(CHECKPOINT)
    for _ in range(2):
        house.train()
    for verb in ("show", "eval", "logs", "rm"):
        done = house.run(verb, "--run", "nothing-like-it", check=2)
        assert "no run matches" in done.stderr and len(lines_of(done.stderr)) == 1
        done = house.run(verb, "--run", "session", check=2)
        assert "2 runs match" in done.stderr and all(run.name in done.stderr for run in house.runs())
    assert "CHECKPOINT='17'" in house.run("eval", "--checkpoint", "17", check=2).stderr
    for split in ("tst", "train"):
        refused_split = house.run("eval", "--split", split, check=2).stderr
        assert f"SPLIT='{split}': not a split; use one of val, test\n" in refused_split
    newest = house.runs()[-1]
    assert newest.name in house.run("show", "--run", "default/2").stdout
    (newest / "checkpoints" / "step_00000003.json").write_text(json.dumps({"sha256": "0" * 64}))
    assert "damaged" in house.run("eval", check=2).stderr
    assert not list(house.outputs.glob("probe/*/*/*"))


def test_a_missing_data_set_says_how_to_get_it(plain_house: TestHouse) -> None:
    project = plain_house.root / "projects/probe/project.yml"
    project.write_text(project.read_text() + "dataset: birds\n")
    assert "DATASET='birds'" in train(plain_house)
    folder = plain_house.root / "datasets/birds"
    folder.mkdir(parents=True)
    (folder / "dataset.yml").write_text("image: {base: bare}\nstages: [raw]\n")
    line = train(plain_house)
    assert "make dataset DATASET=birds" in line


def test_a_lock_out_of_date_is_refused_at_launch(plain_house: TestHouse) -> None:
    path = plain_house.root / "requirements/bare.in"
    path.write_text(path.read_text() + "tomli\n")
    line = train(plain_house)
    assert "bare" in line and "make lock" in line


def test_an_unwritable_checkpoints_root(plain_house: TestHouse) -> None:
    (plain_house.base / "file").write_text("in the way")
    plain_house.environment["CHECKPOINTS_ROOT"] = str(plain_house.base / "file" / "checkpoints")
    done = plain_house.run("train", "--project", "probe", "--engine", "local", check=2)
    line = lines_of(done.stderr)[-1]
    assert line.startswith("error: ") and "checkpoints" in line


def test_secrets_and_large_files_are_refused_by_name(plain_house: TestHouse) -> None:
    (plain_house.root / ".env").write_text("TOKEN=1\n")
    with (plain_house.root / "big.bin").open("wb") as handle:
        handle.truncate(51 << 20)
    line = train(plain_house)
    assert ".env" in line and "big.bin" in line and ".gitignore" in line
    advice = re.search(r"in runner\.yml: `(.*)`$", line)
    assert advice is not None and advice[1] == 'allow_secrets: [".env", "big.bin"]'
    (plain_house.root / "runner.yml").write_text(advice[1] + "\n")
    plain_house.run("train", "--project", "probe", "--engine", "local")


def test_an_engine_that_is_named_and_does_not_answer(plain_house: TestHouse) -> None:
    """Never a silent fall-back to the local engine."""
    plain_house.environment["DOCKER_HOST"] = f"unix://{plain_house.base}/no.sock"
    line = refused(plain_house, "train", "--project", "probe", exit_code=125)
    assert "no.sock" in line


def test_bad_settings(plain_house: TestHouse) -> None:
    (plain_house.root / "runner.yml").write_text("checkpoint_root: x\n")
    assert "checkpoint_root" in train(plain_house) and "checkpoints_root" in train(plain_house)
    for text, found in (("mounts: [a]", "list"), ("allow_secrets: .env", "str"), ("checkpoints_root: [a]", "list")):
        (plain_house.root / "runner.yml").write_text(text + "\n")
        line = train(plain_house)
        assert "runner.yml" in line and text.split(":")[0] in line and found in line


def test_a_folder_that_is_no_house(plain_house: TestHouse, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = plain_house.run("ls", cwd=elsewhere, check=None)
    assert done.returncode != 0
