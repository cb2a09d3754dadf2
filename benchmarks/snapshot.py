"""How long a source snapshot takes, beside what git needs for the same tree id: `python benchmarks/snapshot.py [files]`.

Peer: `git add -A && git write-tree` into a fresh temporary index, in a repository where everything is committed (the best
case for git: it has no object to write). For the export the peer is `git checkout-index -a`. Rounds are interleaved, the
ratio is that of the medians.
"""

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runner.host.source.exports import export
from runner.host.source.snapshot import snapshot


def make_house(root: Path, files: int) -> None:
    """A committed repository of `files` Python files, 0.1 to 6 kB each, twenty a folder."""
    dice = random.Random(0)
    for number in range(files):
        path = root / f"pkg{number // 200:03}" / f"sub{number // 20 % 10}" / f"m{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"line_{dice.random()}\n" for _ in range(dice.randint(5, 300))))
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "-c", "user.name=B", "-c", "user.email=b@example.org", "commit", "-qm", "all")


def git(root: Path, *arguments: str, index: Path | None = None) -> None:
    """Run git in the house, on an index of its own if one is given."""
    environment = os.environ | ({"GIT_INDEX_FILE": str(index)} if index is not None else {})
    subprocess.run(["git", *arguments], cwd=root, env=environment, check=True, stdout=subprocess.DEVNULL)


def seconds(action: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main() -> None:
    """Print one line a comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=int, nargs="?", default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        house, cache, index, out = (Path(scratch) / name for name in ("house", "cache", "index", "out"))
        house.mkdir()
        make_house(house, options.files)
        edited = next(house.rglob("*.py"))
        time.sleep(2.5)  # files changed this recently are read again, and a user's clone is older

        def add_and_write_tree() -> None:
            git(house, "add", "-A", index=index)
            git(house, "write-tree", index=index)

        for number in range(options.rounds):
            index.unlink(missing_ok=True)
            shutil.rmtree(cache, ignore_errors=True)
            shutil.rmtree(out, ignore_errors=True)
            os.sync()
            steps: list[tuple[str, Callable[[], object]]] = [
                ("git, first", add_and_write_tree),
                ("git, unchanged", add_and_write_tree),
                ("id only, first", lambda: snapshot(house, cache / "dry", keep=False)),
                ("snapshot, first", lambda: snapshot(house, cache)),
                ("snapshot, unchanged", lambda: snapshot(house, cache)),
                ("git checkout-index", lambda: git(house, "checkout-index", "-a", f"--prefix={out}/", index=index)),
            ]
            for name, action in steps:
                times.setdefault(name, []).append(seconds(action))
            tree = snapshot(house, cache).tree
            times.setdefault("export, first", []).append(seconds(lambda tree=tree: export(tree, cache)))
            times.setdefault("export, verified", []).append(seconds(lambda tree=tree: export(tree, cache)))
            edited.write_text(f"# edit {number}\n")
            times.setdefault("git, one edit", []).append(seconds(add_and_write_tree))
            times.setdefault("snapshot, one edit", []).append(seconds(lambda: snapshot(house, cache)))
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{options.files} files, {options.rounds} interleaved rounds, medians (fastest)")
    for name, peer in (
        ("git, first", None),
        ("id only, first", "git, first"),
        ("snapshot, first", "git, first"),
        ("git, unchanged", "git, first"),
        ("snapshot, unchanged", "git, first"),
        ("git, one edit", None),
        ("snapshot, one edit", "git, one edit"),
        ("git checkout-index", None),
        ("export, first", "git checkout-index"),
        ("export, verified", "git checkout-index"),
    ):
        ratio = f"{medians[name] / medians[peer]:6.2f} x {peer}" if peer is not None else ""
        print(f"{name:22} {medians[name] * 1000:8.1f} ms ({min(times[name]) * 1000:7.1f})  {ratio}")


if __name__ == "__main__":
    main()
