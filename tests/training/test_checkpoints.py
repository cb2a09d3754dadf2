"""Checkpoints are complete or absent: damaged ones are named, nothing valid is ever lost."""

import errno
import fcntl
import hashlib
import json
import mmap
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TinyTrainer, base_config

from runner.contract.checkpoints import find_checkpoint, verify
from runner.contract.errors import RunnerError
from runner.training.checkpoints import CheckpointStore, load_state
from runner.training.hashed_file import HashedFile
from runner.training.saver import Saver
from runner.training.session import Session
from runner.training.state import Staging, state_sha256


def a_state(value: float = 1.0) -> dict[str, Any]:
    """A state with a bit of everything."""
    return {
        "progress": {"step": 3},
        "model": {
            "weight": torch.full((40, 10), value),
            "empty": torch.zeros(0),
            "half": torch.ones(3, dtype=torch.bfloat16),
        },
        "text": "é",
        "nothing": None,
        "list": [1, 2.5, (True, -0.0)],
        "counter": Counter({5: 2}),
    }


def a_store(folder: Path, **options: Any) -> CheckpointStore:
    return CheckpointStore(folder / "checkpoints", **{"keep_last": 2, "keep_every": None, **options})


def test_written_and_read(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    path = store.write(a_state(), {"step": 3, "score": 0.0}, best_step=3)
    saved = store.read(path)
    assert state_sha256(saved.state) == state_sha256(a_state()) == saved.facts["state_sha256"]
    assert saved.facts["score"] == 0.0
    assert sorted(os.listdir(store.folder)) == ["best", "latest", "step_00000003.json", "step_00000003.pt"]
    assert (store.folder / "best").read_text() == "step_00000003.pt\n"
    assert find_checkpoint(store.folder, "best") == find_checkpoint(store.folder, "3") == path
    assert verify(path) == saved.facts["sha256"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


@pytest.mark.parametrize(
    "sizes", [[], [0], [1], [1 << 21], [(1 << 21) + 1], [3, 1 << 18, 0, (4 << 20) + 5, 7], [9 << 20]], ids=str
)
def test_a_file_holds_what_was_written_and_knows_its_hash(tmp_path: Path, sizes: list[int]) -> None:
    pieces = [os.urandom(size) for size in sizes]
    file = HashedFile(tmp_path / "file")
    assert [file.write(piece) for piece in pieces] == sizes
    assert not _takes_direct(tmp_path) or fcntl.fcntl(file._descriptor, fcntl.F_GETFL) & os.O_DIRECT
    digest = file.finish()
    file.close()
    content = (tmp_path / "file").read_bytes()
    assert content == b"".join(pieces) and digest == hashlib.sha256(content).hexdigest()


def _takes_direct(folder: Path) -> bool:
    try:
        os.close(os.open(folder / "trial", os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
    except OSError:
        return False
    return True


def test_a_write_that_is_not_allowed_past_the_page_cache_is_made_through_it(tmp_path: Path) -> None:
    file, piece = HashedFile(tmp_path / "file"), os.urandom(5 << 20)
    os.lseek(file._descriptor, 1, os.SEEK_SET)  # as after a part of a page
    try:
        os.write(file._descriptor, mmap.mmap(-1, 4096))
        pytest.skip("this file system takes any write")
    except OSError as error:
        assert error.errno == errno.EINVAL
    file.write(piece)
    assert not fcntl.fcntl(file._descriptor, fcntl.F_GETFL) & os.O_DIRECT
    assert file.finish() == hashlib.sha256(piece).hexdigest()
    file.close()
    assert (tmp_path / "file").read_bytes() == b"\0" + piece


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_equal_states_make_equal_files(tmp_path: Path) -> None:
    first = a_store(tmp_path / "one").write(Staging().copy(a_state()), {"step": 1}, best_step=None)
    second = a_store(tmp_path / "two").write(Staging().copy(a_state()), {"step": 2}, best_step=None)
    assert first.read_bytes() == second.read_bytes()


def test_the_hash_sees_every_value() -> None:
    hashes = {
        state_sha256(state)
        for state in (a_state(), a_state(2.0), {**a_state(), "text": "e"}, {**a_state(), "nothing": 0})
    }
    assert len(hashes) == 4
    assert state_sha256({"a": 1, "b": 2}) == state_sha256({"b": 2, "a": 1})
    assert state_sha256([0.0]) != state_sha256([-0.0]) and state_sha256([1]) != state_sha256([1.0]) != state_sha256(
        [True]
    )
    assert state_sha256([[1], 2]) != state_sha256([[1, 2]])


def test_staging_copies_and_reuses() -> None:
    staging, state = Staging(), a_state()
    copied = staging.copy(state)
    state["model"]["weight"].zero_()
    assert float(copied["model"]["weight"][0, 0]) == 1.0
    again = staging.copy(state)
    assert again["model"]["weight"].data_ptr() == copied["model"]["weight"].data_ptr()
    assert staging.copy({"x": np.float32(2), "y": np.arange(3)})["x"] == 2.0


def test_what_cannot_be_stored_is_named_with_its_place() -> None:
    with pytest.raises(RunnerError, match=r"^state\.a\.0: set cannot be stored in a checkpoint; "):
        Staging().copy({"a": [{1}]})


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _flip(path: Path) -> None:
    with path.open("r+b") as handle:
        handle.seek(path.stat().st_size // 2)
        byte = handle.read(1)
        handle.seek(-1, os.SEEK_CUR)
        handle.write(bytes([byte[0] ^ 1]))


def _replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _foreign(path: Path) -> None:
    """A file of somebody else's, with a sidecar that vouches for it."""
    torch.save({"state_dict": {}}, path)
    sidecar = path.with_suffix(".json")
    facts = json.loads(sidecar.read_text())
    from runner.contract.jsonio import file_sha256

    sidecar.write_text(json.dumps({**facts, "size": path.stat().st_size, "sha256": file_sha256(path)}))


DAMAGE = {
    "truncated": (_truncate, r"step_00000005.pt: \d+ bytes, written as \d+: truncated or overwritten"),
    "bit-flipped": (_flip, r"step_00000005.pt: its bytes are not those that were written \(sha256 differs\)"),
    "empty": (
        lambda path: os.truncate(path, 0),
        r"step_00000005.pt: 0 bytes, written as \d+: truncated or overwritten",
    ),
    "foreign": (
        _foreign,
        r"step_00000005.pt: not a checkpoint of a Trainer \(a state with progress and model expected\)",
    ),
    "a directory": (_replace_by_folder, r"step_00000005.pt: a directory, not a checkpoint file"),
    "without its sidecar": (
        lambda path: path.with_suffix(".json").unlink(),
        r"step_00000005.pt: no step_00000005.json beside it: its writing was never completed",
    ),
    "with half a sidecar": (lambda path: _truncate(path.with_suffix(".json")), r"step_00000005.json: not JSON"),
    "of another schema": (
        lambda path: path.with_suffix(".json").write_text('{"schema_version": 9, "size": 1, "sha256": "", "step": 5}'),
        r"step_00000005.json: schema_version 9, this code reads 1; use the code of the run",
    ),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_the_newest_valid_one_is_found(tmp_path: Path, how: str) -> None:
    import re

    damage, expected = DAMAGE[how]
    store = a_store(tmp_path)
    for step in (4, 5):
        store.write({**a_state(), "progress": {"step": step}}, {"step": step}, best_step=None)
    damage(store.path(5))
    search = store.newest_valid()
    assert search.saved is not None and search.saved.state["progress"]["step"] == 4
    assert len(search.damaged) == 1 and re.match(
        expected.replace("not JSON", ".*not JSON"), search.damaged[0].replace(str(store.folder) + "/", "")
    )
    store.set_aside(search.damaged_paths)
    store.write(a_state(), {"step": 5}, best_step=None)
    assert store.newest_valid().damaged == [] and store.steps() == [4, 5]


def test_the_last_valid_one_survives_retention_beside_damaged_ones(tmp_path: Path) -> None:
    store = a_store(tmp_path, keep_last=1)
    store.write(a_state(), {"step": 9}, best_step=None)
    _flip(store.path(9))
    store.write(a_state(), {"step": 4}, best_step=None)
    assert store.newest_valid().saved is not None


def test_retention_keeps_last_best_and_every(tmp_path: Path) -> None:
    store = a_store(tmp_path, keep_last=2, keep_every=4)
    for step in range(1, 11):
        store.write(a_state(), {"step": step}, best_step=3 if step >= 3 else None)
    assert store.steps() == [3, 4, 8, 9, 10]
    assert (store.folder / "best").read_text() == "step_00000003.pt\n"
    assert (store.folder / "latest").read_text() == "step_00000010.pt\n"


def test_a_kill_between_the_renames_is_repaired(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    store.write(a_state(), {"step": 5}, best_step=None)
    store.write(a_state(2.0), {"step": 6}, best_step=None)
    os.rename(store.path(6), store.path(5))  # as if step 5 were written anew, and killed before its sidecar came
    facts = json.loads(store.path(6).with_suffix(".json").read_text())
    store.path(6).with_suffix(".json").rename(store.folder / ".step_00000005.json.7f.tmp")
    assert facts["step"] == 6
    assert store.newest_valid().saved is None
    store.clean()
    saved = store.newest_valid().saved
    assert saved is not None and float(saved.state["model"]["weight"][0, 0]) == 2.0
    assert not list(store.folder.glob(".*"))


FULL = """
import resource, signal, sys
sys.path.insert(0, {tests!r}); sys.path.insert(0, {root!r})
from pathlib import Path
from tiny import HeavyTrainer, base_config
from runner.training.session import Session
class Trainer(HeavyTrainer):
    def train_step(self):
        if self.global_step == 4:
            self._saver._idle.wait()
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        if self.global_step == {until}:
            self._saver._idle.wait()
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return super().train_step()
trainer = Trainer(base_config(n_iterations=12, checkpoint_iterations=3, val_iterations=100), session=Session.existing(Path({folder!r})))
trainer.resume()
trainer.train()
"""


def _with_a_full_disk(folder: Path, until: int) -> subprocess.CompletedProcess[str]:
    """Train where files may not grow beyond 1 MB from step 4 to step `until`: a real failing write."""
    folder.mkdir(exist_ok=True)
    here = Path(__file__)
    code = FULL.format(tests=str(here.parent), root=str(here.parents[2]), folder=str(folder), until=until)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_training_goes_on_when_a_save_fails(tmp_path: Path) -> None:
    done = _with_a_full_disk(tmp_path / "run", until=8)
    assert done.returncode == 0, done.stderr
    expected = "step_00000006.pt: checkpoint not written (File too large); going on, earlier checkpoints are untouched"
    assert expected in done.stdout
    store = a_store(tmp_path / "run")
    assert store.steps() == [9, 12] and not list(store.folder.glob(".*"))


def test_when_the_last_save_fails_that_is_the_error(tmp_path: Path) -> None:
    done = _with_a_full_disk(tmp_path / "run", until=100)
    assert done.returncode == 1
    assert (
        "step_00000012.pt: the last checkpoint could not be written (File too large); free space and resume"
        in done.stderr
    )
    store = a_store(tmp_path / "run")
    assert store.steps() == [3] and store.newest_valid().saved is not None
    again = _with_a_full_disk(tmp_path / "run", until=4)
    assert again.returncode == 0 and "(step 3)" in again.stdout


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="a file system of its own needs root")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("mount is not allowed here")
    try:
        store = a_store(folder)
        store.write(a_state(), {"step": 1}, best_step=1)
        big = {**a_state(), "model": {"weight": torch.zeros(1 << 19)}}
        with pytest.raises(OSError, match=r"\[Errno 28\] No space left on device: '.*/step_00000002.pt'"):
            store.write(big, {"step": 2}, best_step=2)
        assert sorted(os.listdir(store.folder)) == ["best", "latest", "step_00000001.json", "step_00000001.pt"]
        assert store.newest_valid().saved is not None
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_saver_tells_failures_and_goes_on(tmp_path: Path) -> None:
    told: list[OSError] = []
    blocked = tmp_path / "checkpoints"
    blocked.write_text("a file where the folder should be")
    saver = Saver(a_store(tmp_path), before_publish=lambda: None, on_failure=told.append)
    saver.save(a_state(), {"step": 1}, best_step=None)
    with pytest.raises(OSError, match=r"step_00000001\.pt"):
        saver.wait()
    blocked.unlink()
    saver.save(a_state(), {"step": 2}, best_step=None)
    saver.wait()
    saver.close()
    assert len(told) == 1 and saver.last_saved == 2


def test_a_checkpoint_holds_no_code(tmp_path: Path) -> None:
    path = tmp_path / "step_00000001.pt"
    torch.save({"progress": {}, "model": {}, "evil": Path("/")}, path)
    with pytest.raises(RunnerError, match=r"step_00000001.pt: torch cannot read it"):
        load_state(path)


def test_resume_says_what_it_took_and_what_it_found_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = base_config(output_path=str(tmp_path))
    trainer = TinyTrainer(config)
    trainer.train()
    session = Path(trainer.session_name)
    _truncate(session / "checkpoints" / "step_00000024.pt")
    again = TinyTrainer(config, session=Session.existing(session))
    assert again.resume() == 18
    out = capsys.readouterr().out
    assert "Damaged: step_00000024.pt: " in out and "Damaged: step_00000024.pt: " in (session / "logs.txt").read_text()
    assert f"Loaded model and optimiser weights from {session}/checkpoints/step_00000018.pt (step 18)" in out
    again.train()
    assert sorted(os.listdir(session / "checkpoints" / "damaged")) == ["step_00000024.json", "step_00000024.pt"]


def test_all_damaged_is_an_error(tmp_path: Path) -> None:
    config = base_config(output_path=str(tmp_path), n_iterations=6)
    trainer = TinyTrainer(config)
    trainer.train()
    for path in (Path(trainer.session_name) / "checkpoints").glob("*.pt"):
        _truncate(path)
    again = TinyTrainer(config, session=Session.existing(Path(trainer.session_name)))
    with pytest.raises(
        RunnerError, match=r"no checkpoint can be continued from \(step_00000006.pt: .*\); start a new run"
    ):
        again.resume()


def test_signals_are_restored() -> None:
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
