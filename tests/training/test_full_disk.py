"""A disk that is really full: the training goes on, names what it could not write, and what it wrote is whole."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import TinyTrainer, base_config

from runner.contract.errors import RunnerError
from runner.training.appended_file import AppendedFile
from runner.training.hashed_file import HashedFile
from runner.training.session import Session

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("mount"), reason="a file system of its own needs root"
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("mount is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def without_direct(tmp_path: Path) -> Iterator[Path]:
    """A file system that knows no O_DIRECT."""
    folder = tmp_path / "ramfs"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "ramfs", "ramfs", str(folder)], capture_output=True).returncode:
        pytest.skip("mount is not allowed here")
    try:
        with pytest.raises(OSError, match="Invalid argument"):
            os.open(folder / "direct", os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


class Squeezed(TinyTrainer):
    """Its disk is full from one step to another."""

    full_from, full_until = 0, 0

    def train_step(self) -> Any:
        filler = Path(self.session_name) / "filler"
        if self.global_step == self.full_from:
            self._come_to_rest()
            fill(filler)
        if self.global_step == self.full_until:
            self._come_to_rest()
            filler.unlink()
        return super().train_step()

    def _come_to_rest(self) -> None:
        if self._saver is not None:
            self._saver._idle.wait()
        self.tensorboard.flush()


def fill(path: Path) -> None:
    """Write until nothing more goes in."""
    with path.open("wb", buffering=0) as handle:
        try:
            while handle.write(b"x" * 4096):
                pass
        except OSError as error:
            assert error.errno == 28


def logged_steps(folder: Path) -> list[int]:
    """Those whose loss is in metrics.jsonl, which has no torn line."""
    entries = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [entry["step"] for entry in entries if "learning_rate" in entry]


def squeezed(disk: Path, full_from: int, full_until: int) -> Squeezed:
    kind = type("Squeezed", (Squeezed,), {"full_from": full_from, "full_until": full_until})
    config = base_config(output_path=str(disk), n_iterations=240, print_iterations=1, val_iterations=60)
    trainer: Squeezed = kind(config)
    return trainer


def test_training_goes_on_and_says_what_is_missing(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = squeezed(disk, 70, 200)
    trainer.train()
    folder, out = Path(trainer.session_name), capsys.readouterr().out
    for name in ("metrics.jsonl", "logs.txt"):
        assert out.count(f"WARNING: {folder}/{name}: not written (No space left on device); going on without\n") == 1
    assert re.search(r"WARNING: .*/tensorboard/train/events.*: not written \(No space left on device\)", out)
    assert "step_00000120.pt: checkpoint not written (No space left on device); going on" in out
    missing = re.search(rf"WARNING: {folder}/metrics.jsonl: (\d+) pieces are missing, of step (\d+) to step 199\n", out)
    assert missing is not None
    assert set(range(1, 241)) - set(logged_steps(folder)) == set(range(int(missing[2]), 200))
    assert (folder / "checkpoints" / "latest").read_text() == "step_00000240.pt\n"
    curve = EventAccumulator(str(folder / "tensorboard" / "train")).Reload().Scalars("train/loss")
    assert {event.step for event in curve} >= {1, 60, 201, 240}
    log = (folder / "logs.txt").read_text()
    assert "Iteration   70/240" in log and "Iteration  240/240" in log and "Iteration  150/240" not in log


def test_a_disk_that_stays_full_is_the_error_and_freed_it_goes_on(disk: Path) -> None:
    trainer = squeezed(disk, 70, 1000)
    with pytest.raises(
        RunnerError, match=r"step_00000240.pt: the last checkpoint could not be written \(No space left"
    ):
        trainer.train()
    folder = Path(trainer.session_name)
    (folder / "filler").unlink()
    again = TinyTrainer(trainer.config, session=Session.existing(folder))
    assert again.resume() == 60
    again.train()
    assert logged_steps(folder) == list(range(1, 241))


def test_a_piece_is_written_whole_or_not_at_all(disk: Path) -> None:
    told: list[str] = []
    file = AppendedFile(disk / "file", told.append)
    assert file.append(b"a" * 5000)
    fill(disk / "filler")
    assert not file.append(b"b" * 5000, "step 2"), "its first 3192 bytes still go into a page that the file has"
    assert file.append(b"c" * 100) and not file.append(b"d" * 5000, "step 4")
    file.close()
    assert (disk / "file").read_bytes() == b"a" * 5000 + b"c" * 100
    assert told == [
        f"WARNING: {disk}/file: not written (No space left on device); going on without",
        f"WARNING: {disk}/file: 2 pieces are missing, of step 2 to step 4",
    ]


def test_a_file_without_direct_writing(without_direct: Path) -> None:
    pieces = [b"head", os.urandom(5 << 20), b"tail"]
    file = HashedFile(without_direct / "file")
    for piece in pieces:
        file.write(piece)
    digest = file.finish()
    file.close()
    assert (without_direct / "file").read_bytes() == b"".join(pieces)
    assert digest == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_a_file_that_does_not_fit(disk: Path) -> None:
    file = HashedFile(disk / "file")
    with pytest.raises(OSError, match="No space left"):
        file.write(bytes(5 << 20))
    file.close()
    assert file.error is not None and file.error.errno == 28
    fill(disk / "filler")
    small = HashedFile(disk / "small")
    small.write(b"a small state")
    with pytest.raises(OSError, match="No space left"):
        small.finish()
    small.close()
    assert small.error is not None and small.error.errno == 28
