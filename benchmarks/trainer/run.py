"""Our Trainer beside its peers: `python benchmarks/trainer/run.py [--quick] [row ...]`, rows tiny conv workers saves scalars.

Each contestant runs in a process of its own, several times over, in a virtual environment made here from peers.txt. All
processes of a row live side by side and are asked in turn, so that a slow moment of the machine meets all of them; ratios
are taken within a turn, their median and the range of the processes' medians are told. Nothing is asserted on time.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from benchmarks import peers  # noqa: E402
from benchmarks.peers import Process  # noqa: E402

PEERS = "numpy torch pytorch-ignite skorch accelerate lightning transformers keras tensorboard tensorboardx orjson"


class Contestant(NamedTuple):
    """Who takes part in a row."""

    label: str
    name: str
    """Its module."""
    settings: dict[str, Any]


class Column(NamedTuple):
    """A number of every answer."""

    key: str
    heading: str
    scale: float
    form: str


class Row(NamedTuple):
    """What is compared. The first contestant is what the others are measured by."""

    title: str
    module: str
    contestants: list[Contestant]
    columns: list[Column]
    """The ratio is taken of the first."""
    request: int
    rounds: int
    processes: int
    checked: bool = False
    """Whether all must have come to the same loss."""
    also: str = ""
    """Key of a second ratio, to the contestant of its own floor: `key floor`."""


def fits(net: str, names: Iterable[tuple[str, str]], **settings: Any) -> list[Contestant]:
    """Contestants of a row of fits."""
    return [Contestant(label, name, {"net": net, **settings}) for label, name in names]


_BARE, _OURS = ("bare loop", "bare"), ("**ours**, default", "ours")
_INDEXED, _BATCHES = ("bare loop, batches by indexing", "bare_indexed"), ("**ours**, batch loader", "ours_batches")
_IGNITE, _OFF = ("ignite", "ignite"), ("lightning, everything off", "lightning_off")
_FIT = [Column("step", "µs a step", 1e6, ".0f"), Column("fixed", "fixed, ms a fit", 1e3, ".1f")]
_ALL = [_BARE, _INDEXED, _OURS, _BATCHES, _IGNITE, ("skorch", "skorch"), ("accelerate", "accelerate"), _OFF]
_ALL += [("lightning, default", "lightning"), ("transformers.Trainer", "transformers"), ("keras 3 on torch", "keras")]
_WORKERS = [
    Contestant(f"{label}, {n} workers", name, {"net": "mlp", "n_workers": n})
    for label, name in (_BARE, _OURS, _BATCHES)
    for n in (0, 2, 4)
]
_SAVES = ["memory_copy", "write_fsync", "ours", "dcp", "dcp_tuned", "lightning", "lightning_async", "torch_save"]
_SAVE_LABELS = ["memory copy (floor of the first)", "write + fsync (floor of the second)", "**ours**"]
_SAVE_LABELS += [
    "torch DCP async",
    "torch DCP async, stager kept",
    "lightning",
    "lightning async",
    "torch.save, not synced",
]
_SAVE_COLUMNS = [
    Column("blocked", "loop blocked, ms", 1e3, ".1f"),
    Column("durable", "until durable, ms", 1e3, ".0f"),
    Column("whole", "what it costs a dozen steps in all, ms", 1e3, ".0f"),
    Column("step", "a quiet step, ms", 1e3, ".1f"),
]
_LOGGERS = [("orjson, no event file", "orjson_lines"), ("**ours**, event file", "ours")]
_LOGGERS += [("**ours**, metrics.jsonl and event file", "ours_record"), ("json, no event file", "jsonl")]
_LOGGERS += [("torch SummaryWriter", "torch_writer"), ("tensorboardX", "tensorboard_x")]
_SCALAR_COLUMNS = [
    Column("alone", "µs a call", 1e6, ".2f"),
    Column("flushed", "with the writing done, µs", 1e6, ".2f"),
    Column("loop", "in a training loop, µs", 1e6, ".0f"),
]
ROWS = {
    "tiny": Row("Tiny MLP (32-32-10), batch 32, in memory", "fits", fits("mlp", _ALL), _FIT, 2048, 8, 3, True),
    "conv": Row(
        "Small conv net (3x32x32), batch 32, in memory",
        "fits",
        fits("conv", [_BARE, ("bare loop again", "bare"), _INDEXED, _OURS, _BATCHES, _IGNITE, _OFF]),
        _FIT,
        256,
        8,
        2,
        True,
    ),
    "workers": Row("The tiny MLP with worker processes", "fits", _WORKERS, _FIT, 1024, 4, 2, True),
    "saves": Row(
        "A checkpoint of 101 MB",
        "saves",
        [Contestant(label, name, {}) for label, name in zip(_SAVE_LABELS, _SAVES, strict=True)],
        _SAVE_COLUMNS,
        12,
        8,
        2,
        also="durable write_fsync",
    ),
    "scalars": Row(
        "One scalar logged",
        "scalars",
        [Contestant(label, name, {}) for label, name in _LOGGERS],
        _SCALAR_COLUMNS,
        1,
        8,
        2,
    ),
}

Samples = dict[str, list[list[dict[str, float]]]]
"""By label: processes, each a list of rounds."""


def main() -> None:
    """Measure the rows that are asked for and print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="row", help=f"any of {' '.join(ROWS)}; by default all")
    parser.add_argument("--quick", action="store_true", help="one process and three rounds each: a rough picture")
    parser.add_argument("--threads", type=int, default=1, help="of torch, in every process")
    options = parser.parse_args()
    if set(options.rows) - ROWS.keys():
        parser.error(f"rows are {' '.join(ROWS)}; found {' '.join(options.rows)}")
    lock = HERE / "peers.txt"
    python = peers.environment(lock, peers.CACHE / "trainer")
    about = peers.machine(lock, PEERS.split(), options.threads)
    print(about, flush=True)
    samples = {}
    for name in options.rows or ROWS:
        row = ROWS[name]._replace(**({"rounds": 3, "processes": 1} if options.quick else {}))
        samples[name] = measure(row, python, options.threads)
        print(table(row, samples[name]), flush=True)
    peers.keep("trainer", {"machine": about, "seconds": samples})


def measure(row: Row, python: Path, threads: int) -> Samples:
    """All processes of the row, in turns."""
    samples: Samples = {one.label: [] for one in row.contestants}
    peers.CACHE.mkdir(parents=True, exist_ok=True)
    for _ in range(row.processes):
        with tempfile.TemporaryDirectory(dir=peers.CACHE) as scratch:
            processes: list[Process] = []
            try:
                for number, one in enumerate(row.contestants):
                    processes.append(begin(row, one, python, Path(scratch) / f"{number}", threads))
                    ask(processes[-1], row.request) if not row.checked else None
                compare(row, processes)
                for process in processes:
                    samples[process.label].append([])
                for turn in range(row.rounds):
                    for process in peers.in_turn(processes, turn):
                        samples[process.label][-1].append(ask(process, row.request))
            finally:
                for process in processes:
                    process.close()
    return samples


def begin(row: Row, one: Contestant, python: Path, folder: Path, threads: int) -> Process:
    """A process of `one`, in a folder of its own."""
    folder.mkdir()
    settings = json.dumps({**one.settings, "threads": threads})
    argv = [str(python), str(HERE / "serve.py"), row.module, one.name, str(folder), settings]
    return Process(one.label, argv, folder=folder, log=folder.with_suffix(".log"), threads=threads)


def ask(process: Process, request: int) -> dict[str, float]:
    """Its answer; what our sessions left behind is removed first."""
    for leftover in process.folder.glob("session_*/"):
        shutil.rmtree(leftover)
    answer: dict[str, float] = process.ask(request)
    return answer


def compare(row: Row, processes: list[Process]) -> None:
    """Say who has not computed what the first has."""
    if row.checked:
        first, *others = [(process.label, ask(process, 0)["loss"]) for process in processes]
        different = [f"{label} {loss:.9g}" for label, loss in others if loss != first[1]]
        said = f"other than {first[0]} ({first[1]:.9g}): {', '.join(different)}" if different else "equal in every bit"
        print(f"\n{row.title}: loss after 100 steps {said}", file=sys.stderr)


def table(row: Row, samples: Samples) -> str:
    """The row in Markdown."""
    floors = [(row.columns[0], row.contestants[0].label)]
    if row.also:
        key, name = row.also.split()
        (label,) = [one.label for one in row.contestants if one.name == name]
        floors.append((next(column for column in row.columns if column.key == key), label))
    headings = [f"{column.heading} (least)" for column in row.columns] + [f"{c.key} ÷ {label}" for c, label in floors]
    lines = [f"\n### {row.title}\n", "| | " + " | ".join(headings) + " |", "| --- |" + " ---: |" * len(headings)]
    for one in row.contestants:
        cells = [one.label]
        for column in row.columns:
            values = [answer[column.key] * column.scale for process in samples[one.label] for answer in process]
            cells.append(f"{statistics.median(values):{column.form}} ({min(values):{column.form}})")
        cells += [ratio(samples[one.label], samples[label], column.key) for column, label in floors]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ratio(mine: list[list[dict[str, float]]], floor: list[list[dict[str, float]]], key: str) -> str:
    """The median over the processes of the median ratio within a turn, and its range."""
    medians = [
        statistics.median(a[key] / b[key] for a, b in zip(ours, theirs, strict=True))
        for ours, theirs in zip(mine, floor, strict=True)
    ]
    return f"{statistics.median(medians):.2f} [{min(medians):.2f}, {max(medians):.2f}]"


if __name__ == "__main__":
    main()
