"""Event files that tensorboard itself reads, and what a call costs."""

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from runner.contract.errors import RunnerError
from runner.training.board import Board
from runner.training.event_file import crc32c, masked_crc32c


def events(folder: Path) -> EventAccumulator:
    """What tensorboard makes of a folder."""
    return EventAccumulator(str(folder)).Reload()


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    """The points of a curve."""
    return [(event.step, event.value) for event in events(folder).Scalars(tag)]


@pytest.mark.parametrize("length", [0, 1, 9, 63, 64, 255, 256, 1000, 4097, 70_000, 300_001])
@pytest.mark.parametrize("n", [1, 3])
def test_crc32c_is_tensorboards(length: int, n: int) -> None:
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import crc32c as expected
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c as expected_masked

    rows = np.random.default_rng(length).integers(0, 256, (n, length), dtype=np.uint8)
    assert crc32c(rows).tolist() == [expected(row.tobytes()) for row in rows]
    assert masked_crc32c(rows).tolist() == [expected_masked(row.tobytes()) for row in rows]


def test_the_published_check_value() -> None:
    assert crc32c(np.frombuffer(b"123456789", np.uint8)[None]).tolist() == [0xE3069283]


def test_scalars_go_to_train_and_val(tmp_path: Path) -> None:
    board = Board(tmp_path)
    for step in range(300):
        board.add_scalar("train/loss", step / 4, step)
    board.add_scalar("val/loss", torch.tensor(2.5), 7)
    board.add_scalars("train/both", {"a": 1, "b": 2}, 3)
    few = [(0, 1.5), (127, -0.25), (128, 1e300), (1 << 40, math.inf)]
    for step, value in few:
        board.add_scalar("train/few", value, step)
    board.close()
    assert scalars(tmp_path / "train", "train/few") == [*few[:2], (128, math.inf), few[3]]
    assert scalars(tmp_path / "train", "train/loss") == [(step, step / 4) for step in range(300)]
    assert scalars(tmp_path / "val", "val/loss") == [(7, 2.5)]
    assert scalars(tmp_path / "train", "train/both/b") == [(3, 2.0)]


def test_rich_content(tmp_path: Path) -> None:
    board = Board(tmp_path)
    images = torch.zeros(3, 3, 4, 5)
    board.add_images("train/image", images, 2)
    images.fill_(9)  # what is shown is what was added
    board.add_image("train/grey", np.full((6, 7), 200, np.uint8), 2, dataformats="HW")
    board.add_histogram("train/weights", torch.arange(100.0), 2)
    board.add_text("train/note", "a *note*", 2)
    board.close()
    seen = events(tmp_path / "train")
    picture = seen.Images("train/image")[0]
    assert (picture.height, picture.width) == (4, 15)
    pixels = _decoded(picture.encoded_image_string)
    assert pixels.shape == (4, 15, 3) and int(pixels.max()) == 0
    assert int(_decoded(seen.Images("train/grey")[0].encoded_image_string).min()) == 200
    histogram = seen.Histograms("train/weights")[0].histogram_value
    assert (histogram.min, histogram.max, histogram.num, sum(histogram.bucket)) == (0, 99, 100, 100)
    assert seen.Tensors("train/note/text_summary")[0].tensor_proto.string_val == [b"a *note*"]


def _decoded(png: bytes) -> Any:
    import io

    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image)


def test_a_figure(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(2, 1), dpi=50)
    board = Board(tmp_path)
    board.add_figure("val/figure", figure, 4)
    board.close()
    picture = events(tmp_path / "val").Images("val/figure")[0]
    assert (picture.step, picture.width, picture.height) == (4, 100, 50)
    assert not plt.get_fignums()


def test_a_resumed_board_voids_what_came_after(tmp_path: Path) -> None:
    first = Board(tmp_path)
    for step in range(6):
        first.add_scalar("train/loss", 1.0, step)
    first.close()
    time.sleep(1.1)  # tensorboard reads files in the order of the seconds in their names
    second = Board(tmp_path, purge_step=4)
    for step in range(4, 8):
        second.add_scalar("train/loss", 2.0, step)
    second.close()
    assert scalars(tmp_path / "train", "train/loss") == [(s, 1.0) for s in range(4)] + [(s, 2.0) for s in range(4, 8)]


def test_switched_off_it_writes_nothing(tmp_path: Path) -> None:
    board = Board(None)
    board.add_scalar("train/loss", 1.0, 1)
    board.add_images("train/image", torch.zeros(1, 3, 2, 2), 1)
    board.add_graph(torch.nn.Linear(1, 1))
    board.close()
    assert not list(tmp_path.iterdir())


def test_what_it_has_not_is_torchs(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.add_hparams({"lr": 0.1}, {"score": 1.0})
    board.close()
    assert list((tmp_path / "train").rglob("events*"))
    with pytest.raises(AttributeError, match="tensorboard has no 'nonsense'"):
        board.nonsense()


def test_the_thread_writes_while_the_training_goes_on(tmp_path: Path) -> None:
    board = Board(tmp_path)
    time.sleep(1.01)
    board.add_scalar("train/loss", 1.0, 1)
    board._wake.set()
    deadline = time.monotonic() + 10
    while not list(tmp_path.rglob("events*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [event.step for event in EventFileLoader(str(next(tmp_path.rglob("events*")))).Load()] == [0, 1]
    board.close()


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (
            lambda board: board.add_images("train/two", torch.zeros(1, 2, 4, 5), 1),
            r"train/two: a picture of shape NCHW with 1, 3 or 4 channels expected, found shape \(1, 2, 4, 5\)",
        ),
        (
            lambda board: board.add_image("train/five", torch.zeros(1, 1, 3, 4, 5), 1),
            "train/five: a picture of shape CHW",
        ),
        (lambda board: board.add_image("a", torch.zeros(3, 0, 5), 1), r"a: a picture .* found shape \(3, 0, 5\)"),
        (
            lambda board: board.add_image("a", torch.zeros(4, 5), 1, dataformats="HX"),
            "a: dataformats HW, .* found 'HX'",
        ),
        (
            lambda board: board.add_image("a", np.array([["x"]]), 1, dataformats="HW"),
            "a: numbers expected, found ndarray",
        ),
        (lambda board: board.add_scalar("train/word", "abc", 1), "train/word: one number expected, found str 'abc'"),
        (
            lambda board: board.add_scalar("a", torch.zeros(2), 1),
            r"a: one number expected, found Tensor of shape \(2,\)",
        ),
        (
            lambda board: board.add_histogram("train/words", ["a"], 1),
            r"train/words: numbers expected, found list \['a'\]",
        ),
        (lambda board: board.add_text("train/note", 3, 1), "train/note: a text expected, found int"),
    ],
)
@pytest.mark.parametrize("on", [True, False])
def test_what_cannot_be_shown_is_refused_by_its_tag(tmp_path: Path, call: Any, expected: str, on: bool) -> None:
    board = Board(tmp_path if on else None)
    with pytest.raises(RunnerError, match=f"^tensorboard: {expected}"):
        call(board)
    board.close()


def test_every_kind_of_number_is_one(tmp_path: Path) -> None:
    board = Board(tmp_path)
    for step, value in enumerate([1, True, np.float32(1), np.ones((1, 1)), torch.ones(1, 1), torch.tensor(1)]):
        board.add_scalar("train/one", value, step)
    board.add_scalar("train/whenever", 1.0, None)
    board.close()
    assert scalars(tmp_path / "train", "train/one") == [(step, 1.0) for step in range(6)]
    assert scalars(tmp_path / "train", "train/whenever") == [(0, 1.0)]


def test_what_cannot_be_encoded_is_dropped_alone(tmp_path: Path) -> None:
    told: list[str] = []
    board = Board(tmp_path, tell=told.append)
    board.add_scalar("train/good", 1.0, 1)
    board.add_scalar("train/good", 2.0, "two")
    board.add_text("train/note", "half a pair: \ud800", 2)
    board.add_scalar("train/good", 3.0, 3)
    board.close()
    assert scalars(tmp_path / "train", "train/good") == [(1, 1.0), (3, 3.0)]
    assert len(told) == 2 and told[0].startswith(
        "WARNING: tensorboard: train/good of step two is not shown (TypeError: "
    )
    assert told[1].startswith("WARNING: tensorboard: train/note of step 2 is not shown (UnicodeEncodeError: ")
