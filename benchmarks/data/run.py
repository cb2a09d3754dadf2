"""Our readers of images beside what is usual: `python benchmarks/data/run.py [--quick]`.

Every contestant lays the same images out as it wants them, and delivers batches of 64 without workers: in order and shuffled,
from memory and from disk. Each is a process of its own, in a virtual environment made here from peers.txt; they are asked in
turn, so that a slow moment of the machine meets all of them, and ratios are taken within a turn. Nothing is asserted on time.
"""

import argparse
import hashlib
import json
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from benchmarks import peers  # noqa: E402
from benchmarks.peers import ROOT, Process  # noqa: E402

CACHE = peers.CACHE / "data"
ARRAYS, PACKED, FILES = "arrays", "packed", "files"
PEERS = "numpy torch pillow lmdb datasets webdataset"


class Contestant(NamedTuple):
    """Who takes part."""

    label: str
    name: str
    """Its module."""
    kind: str
    """What it reads: arrays, image files packed into a few large ones (PACKED), or image files as they are (FILES)."""
    settings: dict[str, str] | None = None

    @property
    def folder(self) -> str:
        """Where its files lie."""
        return "_".join([self.name, *(self.settings or {}).values()])


class Size(NamedTuple):
    """Images of one size."""

    title: str
    side: int
    n: int
    goal: float
    """Least ratio of our arrays to the reference."""


def ours(label: str, kind: str, encoding: str, format: str) -> Contestant:
    """One of our formats."""
    return Contestant(f"**ours**, {label}", "ours", kind, {"encoding": encoding, "format": format})


REFERENCE = Contestant("memmap, whole batches through a DataLoader", "memmap_batches", ARRAYS)
CONTESTANTS = [
    Contestant("memmap, batches by indexing, no loader (the limit)", "memmap_indexed", ARRAYS),
    REFERENCE,
    ours("LMDB of arrays", ARRAYS, "npy", "arrays"),
    ours("memmap", ARRAYS, "npy", "raw"),
    Contestant("LMDB, an array an example", "lmdb_arrays", ARRAYS),
    ours("LMDB of image files", PACKED, "image", "encoded"),
    ours("image files", FILES, "image", "raw"),
    Contestant("LMDB of image files, Pillow", "lmdb_encoded", PACKED),
    Contestant("folder, Pillow", "folder", FILES),
    Contestant("Hugging Face datasets", "hf_datasets", PACKED),
    Contestant("webdataset", "web_dataset", PACKED),
]
SIZES = [
    Size("32 x 32, PNG or arrays", 32, 50_000, 0.65),
    Size("224 x 224, JPEG or arrays", 224, 2_000, 0.85),
]
QUICK = {32: 5_000, 224: 500}
REHEARSAL = 256
"""Images of the small set that a cold pass is rehearsed with."""
ORDERS = {"in order": False, "shuffled": True}
TEMPERATURES = {"warm": "from memory", "cold": "from disk"}

Samples = dict[str, list[float]]
"""Images/s of every turn, by label."""


def main() -> None:
    """Measure, and print a table for each size and temperature."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer images and three turns: a rough picture")
    parser.add_argument("--turns", type=int, help="how often each is asked; 7 by default, 3 with --quick")
    options = parser.parse_args()
    turns = options.turns or (3 if options.quick else 7)
    lock = HERE / "peers.txt"
    python = peers.environment(lock, CACHE / "env")
    about = peers.machine(lock, PEERS.split(), threads=1)
    print(about, flush=True)
    found: dict[str, Samples] = {}
    for size in SIZES:
        size = size._replace(n=QUICK[size.side]) if options.quick else size
        measured = measure(size, python, turns)
        for temperature, words in TEMPERATURES.items():
            by_order = {order: measured[temperature, order] for order in ORDERS}
            print(table(f"{size.title}, {size.n:,} images, {words}", by_order), flush=True)
            print(goals(size, by_order), flush=True)
            found |= {f"{size.side} {temperature} {order}": samples for order, samples in by_order.items()}
    peers.keep("data", {"machine": about, "images_per_s": found})


class Reader(Process):
    """A contestant at work."""

    def __init__(self, one: Contestant, python: Path) -> None:
        self.one = one
        logs = CACHE / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        argv = [str(python), str(HERE / "serve.py"), one.name, json.dumps(one.settings or {})]
        offline = {"HF_HOME": str(CACHE / "hf"), "HF_HUB_OFFLINE": "1"}
        super().__init__(one.label, argv, folder=CACHE, log=logs / f"{one.folder}.txt", threads=1, **offline)


def measure(size: Size, python: Path, turns: int) -> dict[tuple[str, str], Samples]:
    """All contestants in turns, by temperature and order."""
    samples = {
        (temperature, order): {one.label: [] for one in CONTESTANTS} for temperature in TEMPERATURES for order in ORDERS
    }
    processes: list[Reader] = []
    try:
        processes += [Reader(one, python) for one in CONTESTANTS]
        small, whole = (prepared(size.side, n, processes) for n in (REHEARSAL, size.n))
        compare(size, processes, whole)
        for temperature, order in samples:
            for turn in range(turns):
                for process in peers.in_turn(processes, turn):
                    folders = [str(images / process.one.folder) for images in (whole, small)]
                    arguments = [folders[0], ORDERS[order], *(folders[1:] if temperature == "cold" else [])]
                    samples[temperature, order][process.one.label].append(process.ask([temperature, arguments]))
    finally:
        for process in processes:
            process.close()
    return samples


def prepared(side: int, n: int, processes: list[Reader]) -> Path:
    """A folder with the images as each contestant wants them; made where there is none by this very code."""
    images = CACHE / "images" / f"{side}px_{n}"
    shared = [HERE / "photos.py", HERE / "peers.txt"]
    by_us = sorted((ROOT / "runner" / "inside" / "dataset").glob("*.py"))
    for process in processes:
        name = process.one.name
        code = [*shared, *sorted((HERE / "contestants").glob("*.py")), *(by_us if name == "ours" else [])]
        make(process, images, "source", shared, "generate", side, n)
        make(process, images, process.one.folder, code, "write", side, n)
    return images


def make(process: Reader, images: Path, name: str, code: Iterable[Path], verb: str, side: int, n: int) -> None:
    """Let `process` fill a folder, unless that has been done by the same code."""
    mark, sha256 = images / f"{name}.sha256", hashlib.sha256(b"".join(path.read_bytes() for path in code)).hexdigest()
    if not mark.is_file() or mark.read_text() != sha256:
        mark.unlink(missing_ok=True)
        print(f"{images.relative_to(ROOT)}: {name} ...", file=sys.stderr)
        process.ask([verb, [str(images / "source"), str(images / name), side, n]])
        mark.write_text(sha256)


def compare(size: Size, processes: list[Reader], images: Path) -> None:
    """Say who delivers other images, or other ones when shuffled.

    Raises:
        RuntimeError: somebody does.
    """
    found = {process.one.label: process.ask(["check", [str(images / process.one.folder)]]) for process in processes}
    in_order, content, _ = found[REFERENCE.label]
    others = [label for label, digests in found.items() if digests != [in_order, content, content]]
    if others:
        raise RuntimeError(f"{size.title}: other images than {REFERENCE.label}: {', '.join(others)}")
    print(f"{size.title}: all {len(found)} deliver the same {size.n:,} images and labels", file=sys.stderr)


def table(title: str, by_order: dict[str, Samples]) -> str:
    """Images/s and ratios in Markdown."""
    headings = [heading for order in by_order for heading in (f"{order}, images/s (least)", "÷ memmap")]
    lines = [f"\n### {title}\n", "| | " + " | ".join(headings) + " |", "| --- |" + " ---: |" * len(headings)]
    for one in CONTESTANTS:
        cells = [one.label]
        for samples in by_order.values():
            values = samples[one.label]
            of_reference = ratio(values, samples[REFERENCE.label])
            cells += [f"{count(statistics.median(values))} ({count(min(values))})", f"{of_reference:.3g}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def goals(size: Size, by_order: dict[str, Samples]) -> str:
    """What was aimed at, and what came of it: arrays by the reference, others by the best that reads the same kind."""
    lines = [""]
    for one in (one for one in CONTESTANTS if one.name == "ours"):
        rivals = [rival.label for rival in CONTESTANTS if rival.kind == one.kind and rival.name != "ours"]
        rivals, aim = ([REFERENCE.label], size.goal) if one.kind == ARRAYS else (rivals, 1.0)
        for order, samples in by_order.items():
            value, than = min((ratio(samples[one.label], samples[rival]), rival) for rival in rivals)
            lines.append(f"- {one.label}, {order}: {value:.2f} of {than} (goal {aim:g})")
    return "\n".join(lines)


def ratio(mine: list[float], theirs: list[float]) -> float:
    """The median ratio within a turn."""
    return statistics.median(a / b for a, b in zip(mine, theirs, strict=True))


def count(value: float) -> str:
    """Three digits, in thousands or millions."""
    scale, unit = (1e6, " M") if value >= 1e6 else (1e3, " k") if value >= 1e4 else (1, "")
    digits = max(0, 2 - (len(f"{value / scale:.0f}") - 1))
    return f"{value / scale:,.{digits}f}{unit}"


if __name__ == "__main__":
    main()
