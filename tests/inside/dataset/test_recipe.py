"""A prepare.py of its own, run as a prepare launch runs it: every stage, killed, on a full and on a read-only disk, and the looks."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("lmdb")

from tests.inside.dataset import made  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[3]
TEMPLATE = REPOSITORY / "runner" / "host" / "templates" / "dataset"
STAGES = ("raw", "lists", "lmdb", "toy", "readme")


class Birds:
    """The data set that `make new-dataset` makes, with a source of real image files."""

    def __init__(self, base: Path) -> None:
        self.code, self.root, self.source, self.output = (base / name for name in ("code", "data", "source", "output"))
        shutil.copytree(TEMPLATE, self.code)
        self.root.mkdir()
        self.output.mkdir()
        for label, name in enumerate(("one", "another")):
            (self.source / name).mkdir(parents=True)
            for number in range(30):
                made.save(self.source / name / f"{number:04d}.png", made.pixels(1, 100 * label + number, (3, 9, 8))[0])

    def command(self, word: str) -> list[str]:
        return [sys.executable, str(self.code / "prepare.py"), word]

    @property
    def environment(self) -> dict[str, str]:
        roots = {"DATASET_DIR": self.root, "SOURCE_DIR": self.source, "OUTPUT_DIR": self.output}
        return {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), **{k: str(v) for k, v in roots.items()}}

    def run(self, word: str, code: int = 0) -> str:
        done = subprocess.run(self.command(word), env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        assert code == 0 or "Traceback" not in done.stderr
        return done.stderr if code else done.stdout

    def all(self) -> None:
        for stage in STAGES:
            self.run(stage)

    def contents(self) -> dict[str, bytes]:
        """Every file but the lock and the markers, which name times."""
        files = (path for path in self.root.rglob("*") if path.is_file() and ".stages" not in path.parts)
        return {str(path.relative_to(self.root)): path.read_bytes() for path in files}


@pytest.fixture
def birds(tmp_path: Path) -> Birds:
    return Birds(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Birds:
    """All stages, made once; only looked at."""
    made_once = Birds(tmp_path_factory.mktemp("birds"))
    made_once.all()
    return made_once


def test_every_stage_and_again(birds: Birds) -> None:
    birds.all()
    before = birds.contents()
    names = ("raw/one/0000.png", "lists/train.txt", "lists/schema.json", "lmdb/encoded/val.mdb", "toy/raw/one/0000.png")
    assert {*names, "toy/lmdb/encoded/train.mdb", "readme/full.json", "readme/toy.png"} <= set(before)
    assert all("kept as it is" in birds.run(stage) for stage in STAGES)
    assert birds.contents() == before
    assert all((birds.root / "raw" / "one" / name).stat().st_mode & 0o222 == 0 for name in ("0000.png", "0029.png"))


def test_the_facts_are_those_of_the_images(whole: Birds) -> None:
    facts = json.loads((whole.root / "readme" / "full.json").read_text())
    images = np.stack(
        [
            made.pixels(1, 100 * label + number, (3, 9, 8))[0]
            for label in (0, 1)
            for number in range(30)
            if number % 10  # the template holds every tenth for val
        ]
    )
    assert facts["mean"] == pytest.approx(images.mean(axis=(0, 2, 3)).tolist(), abs=1e-4)
    assert facts["std"] == pytest.approx(images.std(axis=(0, 2, 3)).tolist(), abs=1e-4)
    assert {split: found["by_class"] for split, found in facts["splits"].items()} == {"train": [27, 27], "val": [3, 3]}
    assert facts["shapes"] == {"least": [3, 9, 8], "most": [3, 9, 8]}
    assert facts["parts"]["raw"]["files"] == 60


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_any_moment_the_same_command_makes_it_whole(whole: Birds, birds: Birds, stage: str) -> None:
    """What is there after a kill is complete or absent, and the next call ends in the very same files."""
    wanted = whole.contents()
    for earlier in STAGES[: STAGES.index(stage)]:
        birds.run(earlier)
    work = birds.root / ".stages"
    for delay_s in (0.0, 0.0, 0.002, 0.005, 0.02, 0.1):
        process = subprocess.Popen(birds.command(stage), env=birds.environment, stdout=subprocess.DEVNULL)
        while process.poll() is None and not (work / f"{stage}.tmp").exists():
            time.sleep(0.001)
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = birds.contents()
        part = {name: content for name, content in found.items() if name.startswith(stage + "/")}
        assert not part or part == {name: content for name, content in wanted.items() if name.startswith(stage + "/")}
    birds.run(stage)
    assert birds.contents() == {
        name: content for name, content in wanted.items() if name.split("/")[0] in STAGES[: STAGES.index(stage) + 1]
    }
    assert not [path for path in (birds.root / ".stages").iterdir() if path.suffix not in (".json", "")]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize("stage", ["raw", "lists", "lmdb", "toy", "readme"])
@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_disk_that_takes_nothing(birds: Birds, stage: str, how: str) -> None:
    """One line that says so, and what was there stays as it was."""
    for earlier in STAGES[: STAGES.index(stage)]:
        birds.run(earlier)
    before = birds.contents()
    spoil = (
        'dd if=/dev/zero of="$DATASET_DIR/filler" bs=4k status=none; true'
        if how == "full"
        else 'mount -o remount,ro "$DATASET_DIR"'
    )
    script = (
        'cp -a "$DATASET_DIR" "$OUTPUT_DIR/kept" && mount -t tmpfs -o size=3m none "$DATASET_DIR" '
        '&& cp -a "$OUTPUT_DIR/kept/." "$DATASET_DIR" && mkdir -p "$DATASET_DIR/.stages" && touch "$DATASET_DIR/.stages/lock" '
        f'&& {{ {spoil}; }} 2>/dev/null; "$@"; code=$?; rm -f "$DATASET_DIR/filler"; rm -rf "$OUTPUT_DIR/after"; '
        'cp -a "$DATASET_DIR" "$OUTPUT_DIR/after"; exit $code'
    )
    command = ["unshare", "--mount", "sh", "-c", script, "sh", *birds.command(stage)]
    done = subprocess.run(command, env=birds.environment, capture_output=True, text=True, check=False)
    if "ermission denied" in done.stderr or "not permitted" in done.stderr:
        pytest.skip(f"this machine allows no mounts: {done.stderr.strip()}")
    words = "No space left on device" if how == "full" else "Read-only file system"
    assert done.returncode == 2, done.stderr
    assert words in done.stderr and done.stderr.count("\n") == 1
    birds.root = birds.output / "after"
    assert birds.contents() == before


def test_the_lists_follow_the_raw_data_and_lmdb_the_lists(birds: Birds) -> None:
    birds.all()
    made.save(birds.root / "raw" / "one" / "0030.png", made.pixels(1)[0])
    before = (birds.root / "lmdb/encoded/val.mdb").read_bytes()
    assert "lists: 3 files" in birds.run("lists") and "lmdb: 2 files" in birds.run("lmdb")
    assert (birds.root / "lmdb/encoded/val.mdb").read_bytes() != before


@pytest.mark.parametrize("moment", ["between the renames", "before the marker", "while the marker is written"])
def test_killed_while_an_older_version_is_replaced(birds: Birds, moment: str) -> None:
    """Each state that a kill can leave between two system calls: nothing is lost and nothing stays behind."""
    birds.all()
    made.save(birds.root / "raw" / "one" / "0030.png", made.pixels(1)[0])
    work, lists = birds.root / ".stages", birds.root / "lists"
    if moment == "between the renames":
        lists.rename(work / "lists.old")
        (work / "lists.tmp").mkdir()
    else:
        shutil.copytree(lists, work / "lists.old")
        marker = (work / "lists.json").read_bytes()
        birds.run("lists")
        (work / "lists.json").write_bytes(marker)
        shutil.copytree(lists, work / "lists.old", dirs_exist_ok=True)
        if moment == "while the marker is written":
            (work / ".lists.json.0123abcd.tmp").write_bytes(b"{")
    birds.run("lists")
    assert "one/0030.png" in (lists / "val.txt").read_text()
    assert sorted(path.name for path in work.iterdir()) == [f"{s}.json" for s in ("lists", "lmdb")] + ["lock"] + [
        f"{s}.json" for s in ("raw", "readme", "toy")
    ]
    assert "kept as it is" in birds.run("lists")


def test_a_list_that_was_edited_is_not_overwritten_and_not_taken_for_ours(birds: Birds) -> None:
    birds.all()
    path = birds.root / "lists" / "train.txt"
    text = path.read_text()
    path.write_text(text.replace("\t1\n", "\t0\n"))
    edited = path.read_text()
    assert "holds something that this stage did not make, or was changed since" in birds.run("lists", 2)
    assert path.read_text() == edited
    path.write_text(text)
    assert "kept as it is" in birds.run("lists")


def test_a_source_whose_folders_may_not_be_written_to(birds: Birds) -> None:
    for name in ("one", "another"):
        (birds.source / name).chmod(0o555)
    birds.run("raw")
    birds.run("raw")
    assert os.stat(birds.root / "raw" / "one").st_mode & 0o700 == 0o700


@pytest.mark.parametrize("kind", ["tar", "gztar", "zip"])
def test_raw_from_an_archive(whole: Birds, birds: Birds, kind: str) -> None:
    birds.source = Path(shutil.make_archive(str(birds.output / "birds"), kind, birds.source))
    birds.run("raw")
    wanted = {name: content for name, content in whole.contents().items() if name.startswith("raw/")}
    assert birds.contents() == wanted
    shutil.rmtree(birds.root)
    birds.root.mkdir()
    os.truncate(birds.source, birds.source.stat().st_size // 2)
    assert "not a whole tar or zip archive" in birds.run("raw", 2) and birds.contents() == {}


def test_an_archive_that_leads_elsewhere(birds: Birds) -> None:
    import tarfile

    birds.source = birds.output / "evil.tar"
    with tarfile.open(birds.source, "w") as tar:
        tar.add(TEMPLATE / "README.md", arcname="../owned")
    assert "holds the name '../owned', which leads out of it" in birds.run("raw", 2)
    assert not list(birds.output.parent.rglob("owned"))


@pytest.mark.parametrize("variant", ["full", "toy"])
def test_the_notebook_runs_from_top_to_bottom(whole: Birds, tmp_path: Path, variant: str) -> None:
    notebook = json.loads((TEMPLATE / "explore.ipynb").read_text())
    cells = ("".join(cell["source"]) + "\n" for cell in notebook["cells"] if cell["cell_type"] == "code")
    (tmp_path / "NAME").mkdir()
    (tmp_path / "NAME" / "toy").symlink_to(whole.root / "toy")
    for part in ("raw", "lists") if variant == "full" else ():
        (tmp_path / "NAME" / part).symlink_to(whole.root / part)
    environment = {**whole.environment, "DATASETS_DIR": str(tmp_path)}
    code = "display = print\n" + "".join(cells)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"all +54 +6" if variant == "full" else r"all +36 +4", done.stdout)


def test_two_at_once_make_it_once(birds: Birds) -> None:
    birds.run("raw")
    both = [
        subprocess.Popen(birds.command("lists"), env=birds.environment, stdout=subprocess.PIPE, text=True) for _ in "ab"
    ]
    said = sorted(process.communicate()[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert sum("kept as it is" in text for text in said) == 1


def test_a_corrupt_image_stops_what_reads_it(birds: Birds) -> None:
    damaged = birds.source / "another" / "0007.png"
    content = bytearray(damaged.read_bytes())
    content[60:90] = bytes(30)
    damaged.write_bytes(content)
    birds.run("raw")
    birds.run("lists")  # its beginning is that of an image
    for stage in ("lmdb", "readme"):
        assert re.search(r"another/0007.png: not a readable image", birds.run(stage, 2))
        assert not (birds.root / stage).exists()
    birds.run("explore")
    page = (birds.output / "index.html").read_text()
    assert "1 examples cannot be read." in page and "raw/another/0007.png" in page


class TestLint:
    def test_a_right_one(self, whole: Birds) -> None:
        assert whole.run("lint") == "code: well: full and toy agree with dataset.yml\n"

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            ('mkdir raw/third && cp raw/one/0001.png raw/third/0001.png', "raw: full has third/\\*.png, toy has none"),
            ('rm -r toy/raw/one', "toy: .*one/0001.png: No such file or directory, though a list names it"),
            ('chmod u+w raw/one/0001.png && : > raw/one/0001.png', "full: .*0001.png: found 0 bytes, expected an image"),
            ('rm lists/val.txt', "full: .*val.txt: not there"),
            ('grep -v another toy/lists/train.txt > t && mv t toy/lists/train.txt && rm -r toy/lmdb',
             "toy: train has no example of another, which the full data has"),
            ('head -1 lists/train.txt >> lists/val.txt', "lists: raw/one/0001.png stands in train.txt:1 and val.txt:7"),
            ('tail -n +2 lists/train.txt > t && mv t lists/train.txt', "train.mdb: was made from another train.txt"),
            ('cp -p raw/one/0002.png t && chmod u+w raw/one/0001.png && cat t > raw/one/0001.png && rm t',
             "example 0 is not raw/one/0001.png as raw holds it"),
            ("sed -i s/another/third/ lists/schema.json", "made by another dataset.yml \\(classes: one, third and one, another"),
        ],
    )  # fmt: skip
    def test_what_is_wrong_is_named(self, whole: Birds, tmp_path: Path, spoil: str, message: str) -> None:
        other = Birds(tmp_path)
        shutil.rmtree(other.root)
        shutil.copytree(whole.root, other.root)
        subprocess.run(["sh", "-ec", spoil], cwd=other.root, check=True)
        assert re.search(message, other.run("lint", 2))


def test_the_page_needs_nothing_else_and_tells_of_duplicates(birds: Birds) -> None:
    shutil.copy(birds.source / "one" / "0003.png", birds.source / "another" / "0010.png")
    for stage in ("raw", "lists", "toy"):
        birds.run(stage)
    birds.run("explore")
    page = (birds.output / "index.html").read_text()
    assert "1 images repeat another one pixel for pixel" in page and "1 of them stand in more than one split" in page
    assert "raw/one/0003.png" in page and "raw/another/0010.png" in page
    assert not re.search(r"(src|href)=(?![\"']?data:)", page)
    assert page.count("<img") > 40 and "Every example can be read." in page
