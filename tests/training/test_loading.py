"""Runs are loaded from their folders alone: after their clones are gone, side by side, read-only, without executing code."""

import os
import random
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from runner.contract.errors import RunnerError
from runner.training import load_run
from runner.training.loading import RunnerDiffers
from tests.training.made_runs import make_clone, train_in

pytestmark = pytest.mark.filterwarnings("ignore::runner.training.loading.RunnerDiffers")
"""Others may edit the runner while the tests run; one test looks at the warning itself."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of two clones with the same module names and different code; the clones are deleted."""
    folder = tmp_path_factory.mktemp("loading")
    for name, width in (("narrow", 8), ("wide", 16)):
        clone = make_clone(folder / name, width=width)
        train_in(clone, folder / "checkpoints", name)
        shutil.rmtree(clone)
    return folder


@pytest.fixture(autouse=True)
def surroundings(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cache of its own, and a decoy: live code of the same name in the working directory."""
    monkeypatch.setenv("CHECKPOINTS_ROOT", str(base / "checkpoints"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(base / "cache"))
    monkeypatch.delenv("DATASETS_DIR", raising=False)
    monkeypatch.delenv("DATASETS_ROOT", raising=False)
    decoy = tmp_path / "projects" / "tiny"
    decoy.mkdir(parents=True)
    for name in ("__init__.py", "../__init__.py", "model.py", "labels.py", "trainer.py"):
        (decoy / name).write_text("raise SystemExit('live code was imported')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield


def test_two_runs_with_the_same_module_names_stand_side_by_side(base: Path) -> None:
    """Their imports stay apart at any time: at the top, inside functions, and by importlib."""
    narrow, wide = load_run("narrow"), load_run("wide")
    x = torch.randn(4, 6)
    assert narrow.model(x).shape == wide.model(x).shape == (4, 3)
    assert (narrow.model.head.in_features, wide.model.head.in_features) == (8, 16)
    assert type(narrow.model).__name__ == type(wide.model).__name__ == "Net"
    assert not any(name.partition(".")[0] == "projects" for name in sys.modules if "projects.tiny" in name)
    assert wide.module("projects.tiny.trainer").NOTE == "width 16"
    assert (wide.config.batch_size, wide.manifest.tag, narrow.name) == (8, "wide", "session_box_narrow")


def test_weights_are_those_of_the_checkpoint(base: Path) -> None:
    run = load_run("narrow", "latest")
    saved = torch.load(run.folder / "checkpoints/step_00000012.pt", weights_only=True)
    assert run.step == 12 and not run.model.training
    assert all(torch.equal(tensor, saved["model"][name]) for name, tensor in run.model.state_dict().items())
    last = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    assert run.restore(4) == 4 == run.step
    assert not all(torch.equal(tensor, last[name]) for name, tensor in run.model.state_dict().items())
    best = (run.folder / "checkpoints/best").read_text().strip()
    assert load_run("narrow").checkpoint == run.folder / "checkpoints" / best
    with pytest.raises(RunnerError, match=r"CHECKPOINT='7': not in .*step_00000004.pt.*use best, latest or one of"):
        run.restore(7)


def test_data_are_read_when_asked_for_and_not_before(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_DATA", "1")
    run = load_run("narrow", overrides={"batch_size": 1})
    with pytest.raises(RuntimeError, match="the data were read"):
        run.data.val_dataset  # noqa: B018
    monkeypatch.delenv("NO_DATA")
    data, model, restore = load_run("narrow", overrides={"batch_size": 1})
    assert data.train_dataloader.batch_size == 1 and len(data.val_dataset) == 40
    batch = next(iter(data.val_dataloader))
    assert model(batch["x"]).shape == (1, 3) and restore("best") in (4, 8, 12)
    assert data.test_dataset is None
    with pytest.raises(AttributeError, match="train_dataset, val_dataset"):
        data.valid  # noqa: B018


def test_a_model_that_needs_the_data_gets_them(base: Path) -> None:
    run = load_run("narrow", overrides={"ask_data": True})
    assert run.model.head.out_features == 3 and len(run.data.train_dataset) == 40


def test_overrides_are_checked_as_set_is(base: Path) -> None:
    with pytest.raises(RunnerError, match=r"unknown key 'batchsize'.*batch_size"):
        load_run("narrow", overrides={"batchsize": 1})
    with pytest.raises(RunnerError, match="batch_size is 'one'"):
        load_run("narrow", overrides={"batch_size": "one"})


def test_weights_only_executes_nothing(base: Path) -> None:
    before = set(sys.modules)
    run = load_run("wide", weights_only=True)
    assert run.weights["head.weight"].shape == (3, 16) and run.config.n_iterations == 12
    assert {"model", "optimiser", "rng"} <= run.state.keys()
    assert not any(name.startswith("tree_") for name in set(sys.modules) - before)
    with pytest.raises(RunnerError, match="weights_only=True, which executes no code"):
        run.model  # noqa: B018


def test_the_process_keeps_its_random_numbers_and_variables(base: Path) -> None:
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    expected = torch.rand(1).item(), np.random.rand(), random.random()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    environment = dict(os.environ)
    load_run("narrow").data.train_dataset  # noqa: B018
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == expected
    assert dict(os.environ) == environment


def test_a_damaged_copy_of_the_code_is_made_anew(base: Path) -> None:
    run = load_run("narrow")
    model = run.source / "projects/tiny/model.py"
    model.write_text(model.read_text().replace("ReLU", "Sigmoid"))
    again = load_run("narrow")
    assert type(again.model.body[1]).__name__ == "ReLU"
    assert "ReLU" in (again.source / "projects/tiny/model.py").read_text()


def test_a_changed_archive_or_checkpoint_is_refused(base: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(base / "checkpoints/tiny/no-dataset/session_box_wide", copy)
    (copy / "inputs/source.tar").write_bytes((copy / "inputs/source.tar").read_bytes().replace(b"ReLU", b"GELU"))
    os.environ["XDG_CACHE_HOME"] = str(tmp_path / "empty")
    with pytest.raises(RunnerError, match=r"holds source tree .* its manifest names .*: it was changed"):
        load_run(copy)
    checkpoint = copy / "checkpoints/step_00000012.pt"
    content = bytearray(checkpoint.read_bytes())
    content[200] ^= 1
    checkpoint.write_bytes(content)
    with pytest.raises(RunnerError, match=r"step_00000012.pt: its bytes are not those that were written"):
        load_run(copy, "latest", weights_only=True).weights  # noqa: B018


def test_read_only_folders_are_enough(base: Path, tmp_path: Path) -> None:
    """Nothing is written beside the run; where no cache can be written, a folder of the process takes its place."""
    run = base / "checkpoints/tiny/no-dataset/session_box_wide"
    before = {path: path.lstat().st_mtime_ns for path in run.rglob("*")}
    os.environ["XDG_CACHE_HOME"] = "/proc/nowhere"
    assert load_run(run).model.head.in_features == 16
    assert {path: path.lstat().st_mtime_ns for path in run.rglob("*")} == before


def test_another_runner_is_named(base: Path, tmp_path: Path) -> None:
    """The run was made with a runner that had one more line."""
    clone = make_clone(tmp_path / "clone", width=4)
    with (clone / "runner/training/text.py").open("a") as handle:
        handle.write("# changed\n")
    run = train_in(clone, tmp_path / "checkpoints", "old")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_run(run)
    (warning,) = [w for w in caught if w.category is RunnerDiffers]
    assert "runner.training" in str(warning.message) and warning.filename == __file__


def test_isolated_runs_in_a_process_of_its_own(base: Path) -> None:
    """The same numbers; nothing of the run is imported here; the snapshot's own runner is used there."""
    x = torch.randn(4, 6)
    before = set(sys.modules)
    run = load_run("wide", isolated=True)
    try:
        output = run.model(x)
        assert not any(name.startswith("tree_") for name in set(sys.modules) - before)
        assert torch.equal(run.model.forward({"x": x}), output)
        run.restore(4)
        assert not torch.equal(run.model(x), output)
        with pytest.raises(RunnerError, match="in the isolated process: RuntimeError: mat1 and mat2"):
            run.model(torch.zeros(1, 7))
        assert run.model(x).shape == (4, 3)
    finally:
        run.model.close()
    assert torch.equal(output, load_run("wide").model(x))
