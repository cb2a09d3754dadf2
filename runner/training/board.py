"""`self.tensorboard`: torch's SummaryWriter interface, whose work is done in another thread."""

import math
import operator
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runner.contract.errors import RunnerError
from runner.training.board_values import check_numbers, check_picture, number, picture_value
from runner.training.event_file import EventFile, Point, Rich, histogram_value, text_value

_WRITE_EVERY_S = 5.0
_SIDES = ("train", "val")


class Board:
    """Two tensorboards in one: tags that begin with `val/` or `test/` go to val/, all others to train/.

    A call appends to a list (well under a microsecond) and a thread encodes and writes. Tensors are copied, so that the
    training may change them. What this class has not (add_graph, add_embedding …) is done by torch's own writer.
    """

    def __init__(
        self, folder: Path | None, *, purge_step: int | None = None, tell: Callable[[str], None] = print
    ) -> None:
        self._folder, self._tell = folder, tell
        self._points: deque[Point] = deque()
        self._rich: deque[tuple[str, Callable[[], bytes], int, float]] = deque()
        self._append = self._points.append if folder is not None else _nothing
        self._on = folder is not None
        self._purge_step = purge_step
        self._files: dict[str, EventFile] = {}
        self._writing = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._start_after = time.time() + 1 if self._on else math.inf
        """When a thread becomes worth its start; what ends sooner is written by `flush` and `close`."""
        self._stock: Any = None

    def add_scalar(
        self, tag: str, scalar_value: Any, global_step: int = 0, walltime: float | None = None, **_: Any
    ) -> None:
        """One point of a curve.

        Raises:
            RunnerError: not one number.
        """
        if type(scalar_value) is not float:
            scalar_value = number(tag, scalar_value)
        now = time.time()
        self._append((tag, scalar_value, global_step, walltime or now))
        if now > self._start_after:
            self._start()

    def add_scalars(
        self, main_tag: str, tag_scalar_dict: Mapping[str, Any], global_step: int = 0, walltime: float | None = None
    ) -> None:
        """Several curves, as main_tag/name."""
        for name, value in tag_scalar_dict.items():
            self.add_scalar(f"{main_tag}/{name}", value, global_step, walltime)

    def add_images(
        self, tag: str, img_tensor: Any, global_step: int = 0, walltime: float | None = None, dataformats: str = "NCHW"
    ) -> None:
        """A batch of pictures as one sheet, eight in a row; floats from 0 to 1, or bytes. Raises as `add_image` does."""
        self.add_image(tag, img_tensor, global_step, walltime, dataformats)

    def add_image(
        self, tag: str, img_tensor: Any, global_step: int = 0, walltime: float | None = None, dataformats: str = "CHW"
    ) -> None:
        """One picture.

        Raises:
            RunnerError: it has not the dimensions that `dataformats` says, or no channels that can be shown.
        """
        layout = dataformats.upper()
        check_picture(tag, img_tensor, layout)
        if self._on:
            pixels = _kept(img_tensor)
            self._later(tag, global_step, walltime, lambda: picture_value(tag, pixels, layout))

    def add_figure(
        self, tag: str, figure: Any, global_step: int = 0, close: bool = True, walltime: float | None = None
    ) -> None:
        """A matplotlib figure; drawn here, because matplotlib may not be used by two threads."""
        if self._on:
            canvas = _canvas(figure)
            canvas.draw()
            pixels = torch.from_numpy(np.asarray(canvas.buffer_rgba()).copy())[..., :3]
            self._later(tag, global_step, walltime, lambda: picture_value(tag, pixels, "HWC"))
        if close and "matplotlib.pyplot" in sys.modules:
            import matplotlib.pyplot as plt

            plt.close(figure)

    def add_histogram(
        self, tag: str, values: Any, global_step: int = 0, bins: Any = 64, walltime: float | None = None, **_: Any
    ) -> None:
        """The distribution of values.

        Raises:
            RunnerError: they are no numbers.
        """
        check_numbers(tag, values)
        if self._on:
            kept = _kept(values)
            n = bins if isinstance(bins, int) else 64
            self._later(tag, global_step, walltime, lambda: histogram_value(tag, kept.double().flatten().numpy(), n))

    def add_text(self, tag: str, text_string: str, global_step: int = 0, walltime: float | None = None) -> None:
        """Text, shown as Markdown.

        Raises:
            RunnerError: it is none.
        """
        if not isinstance(text_string, str):
            raise RunnerError(f"tensorboard: {tag}: a text expected, found {type(text_string).__name__}")
        if self._on:
            self._later(tag, global_step, walltime, lambda: text_value(tag, text_string))

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("add_"):
            raise AttributeError(f"tensorboard has no {name!r}")
        if not self._on:
            return lambda *_, **__: None
        if self._stock is None:
            from torch.utils.tensorboard import SummaryWriter

            assert self._folder is not None
            self._stock = SummaryWriter(str(self._folder / "train"))
        return getattr(self._stock, name)

    def flush(self) -> None:
        """Return when all that was added is in the files."""
        with self._writing:
            self._write()
        if self._stock is not None:
            self._stock.flush()

    def close(self) -> None:
        """Write the rest and close the files."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.flush()
        for file in self._files.values():
            file.close()
        self._files.clear()
        if self._stock is not None:
            self._stock.close()
            self._stock = None

    def _later(self, tag: str, step: int, walltime: float | None, encode: Callable[[], bytes]) -> None:
        now = time.time()
        self._rich.append((tag, encode, step, walltime or now))
        if now > self._start_after:
            self._start()

    def _start(self) -> None:
        self._start_after = math.inf
        self._thread = threading.Thread(target=self._work, name="tensorboard", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not self._closed:
            self._wake.wait(_WRITE_EVERY_S)
            self.flush()

    def _write(self) -> None:
        scalars: dict[str, defaultdict[str, list[Point]]] = {side: defaultdict(list) for side in _SIDES}
        rich: dict[str, list[Rich]] = {side: [] for side in _SIDES}
        for tag, value, step, wall_time in _taken(self._points):
            with self._dropped_if_bad(tag, step):
                point = str(tag), float(value), operator.index(step or 0), float(wall_time)
                scalars[_side(tag)][tag].append(point)
        for tag, encode, step, wall_time in _taken(self._rich):
            with self._dropped_if_bad(tag, step):
                rich[_side(tag)].append(Rich(encode(), operator.index(step or 0), wall_time))
        for side in _SIDES:
            if scalars[side] or rich[side]:
                self._file(side).write(scalars[side], rich[side])

    @contextmanager
    def _dropped_if_bad(self, tag: str, step: Any) -> Iterator[None]:
        """What cannot be encoded must not keep anything else from being written, a checkpoint least of all."""
        try:
            yield
        except Exception as error:
            self._tell(f"WARNING: tensorboard: {tag} of step {step} is not shown ({type(error).__name__}: {error})")

    def _file(self, side: str) -> EventFile:
        if side not in self._files:
            assert self._folder is not None
            self._files[side] = EventFile(self._folder / side, self._tell, purge_step=self._purge_step)
        return self._files[side]


def _side(tag: str) -> str:
    return "val" if tag.startswith(("val/", "test/")) else "train"


def _taken(queue: deque[Any]) -> list[Any]:
    """What is in the queue now; other threads may go on adding."""
    return [queue.popleft() for _ in range(len(queue))]


def _nothing(item: Any) -> None:
    """Where tensorboard is switched off."""


def _kept(values: Any) -> torch.Tensor:
    """A copy on the CPU that nobody else changes."""
    tensor = values.detach() if isinstance(values, torch.Tensor) else torch.as_tensor(np.asarray(values))
    return tensor.to("cpu", copy=True)


def _canvas(figure: Any) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    return FigureCanvasAgg(figure)
