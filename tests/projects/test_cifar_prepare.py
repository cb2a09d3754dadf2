"""datasets/cifar10/prepare.py run as a prepare launch runs it: a process, its variables, real files."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.contract.dataset_file import load_dataset
from runner.host.data.datasets import is_complete

pytest.importorskip("numpy")

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "datasets" / "cifar10" / "prepare.py"
RECORD = 3073
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
META = "".join(f"{name}\n" for name in CLASSES) + "\n"
INFO = load_dataset(REPOSITORY, "cifar10")
TOY_DIGEST = "2bd3fcfae7342c4dc2b9d83eb55f0ad6cb823e270f14de697bb13d0e11a5e4ca"
"""Over the names and bytes of the toy set's files: every machine makes the same."""


def prepare(root: Path, stage: str, source: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(stage), env=environment(root, source, **variables), capture_output=True, text=True, check=False
    )


def command(stage: str) -> list[str]:
    return [sys.executable, str(SCRIPT), stage]


def environment(root: Path, source: Path | None = None, **variables: str) -> dict[str, str]:
    given = {} if source is None else {"SOURCE_DIR": str(source)}
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "DATASET_DIR": str(root), **given, **variables}


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if ".stages" not in path.parts)


def digest(folder: Path) -> str:
    """Without lmdb/, whose bytes depend on the size of a page of memory."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".mdb")
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "cifar10").mkdir()
    return tmp_path / "cifar10"


@pytest.fixture
def authors(tmp_path: Path) -> Path:
    """A small folder as the authors' archive holds it: four batches of 40, a test batch of 20."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for number in range(1, 5):
        (folder / f"data_batch_{number}.bin").write_bytes(batch(f"train {number}", 40))
    (folder / "test_batch.bin").write_bytes(batch("test", 20))
    (folder / "batches.meta.txt").write_text(META)
    (folder / "readme.html").write_text("<p>from the authors</p>")
    return folder


def batch(text: str, images: int) -> bytes:
    pixels = hashlib.shake_128(text.encode()).digest(images * (RECORD - 1))
    return b"".join(bytes([i % 10]) + pixels[i * 3072 : (i + 1) * 3072] for i in range(images))


def archive(folder: Path, path: Path) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, arcname="cifar-10-batches-bin")
    return path


class TestRaw:
    def test_folder_parent_and_archive_give_the_same(self, root: Path, authors: Path, tmp_path: Path) -> None:
        tar = archive(authors, tmp_path / "any name at all")
        (tmp_path / "parent").mkdir()
        (tmp_path / "parent" / authors.name).symlink_to(authors)
        digests = set()
        for number, source in enumerate((authors, tmp_path / "parent", tar)):
            place = tmp_path / f"root{number}"
            place.mkdir()
            result = prepare(place, "raw", source)
            assert (result.returncode, result.stderr) == (0, "")
            assert tree(place / "raw") == sorted(path.name for path in authors.iterdir())
            digests.add(digest(place / "raw"))
        assert digests == {digest(authors)}

    def test_is_read_only_and_never_made_again(self, root: Path, authors: Path) -> None:
        prepare(root, "raw", authors)
        before = {path: path.stat().st_ino for path in (root / "raw").iterdir()}
        assert {path.stat().st_mode & 0o777 for path in before} == {0o444}
        assert is_complete(INFO, root.parent, "raw")
        again = prepare(root, "raw")
        assert again.returncode == 0
        assert "kept as it is" in again.stdout
        assert {path: path.stat().st_ino for path in (root / "raw").iterdir()} == before

    def test_another_source_is_refused_and_the_same_accepted(self, root: Path, authors: Path) -> None:
        prepare(root, "raw", authors)
        assert prepare(root, "raw", authors).returncode == 0
        (authors / "test_batch.bin").write_bytes(batch("other", 20))
        refused = prepare(root, "raw", authors)
        assert refused.returncode == 2
        assert "already holds other data than" in refused.stderr
        assert sorted(os.listdir(root / ".stages")) == ["lock", "raw.json"]

    def test_put_there_by_hand_is_checked(self, root: Path, authors: Path) -> None:
        authors.rename(root / "raw")
        assert prepare(root, "raw").returncode == 0
        assert is_complete(INFO, root.parent, "raw")
        (root / ".stages" / "raw.json").unlink()
        (root / "raw" / "test_batch.bin").write_bytes(b"x")
        assert "found 1 bytes (0 images and 1 bytes), expected a multiple of 3073" in prepare(root, "raw").stderr

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (
                lambda f: os.truncate(f / "data_batch_2.bin", 100_000),
                r"data_batch_2.bin: found 100000 bytes (32 images and",
            ),
            (lambda f: os.truncate(f / "data_batch_2.bin", 0), "data_batch_2.bin: found 0 bytes"),
            (
                lambda f: os.truncate(f / "data_batch_3.bin", 39 * RECORD),
                "different sizes (data_batch_1.bin 40, data_batch_2.bin 40",
            ),
            (lambda f: (f / "data_batch_1.bin").unlink(), "data_batch_1.bin is missing"),
            (
                lambda f: (f / "data_batch_2.bin").unlink(),
                "data_batch_2.bin is missing (found: batches.meta.txt, data_batch_1",
            ),
            (lambda f: (f / "test_batch.bin").unlink(), "test_batch.bin is missing"),
            (lambda f: (f / "batches.meta.txt").unlink(), "batches.meta.txt is missing"),
            (lambda f: (f / "batches.meta.txt").write_bytes(b"\xff a b"), "found 3 class names, expected 10"),
            (lambda f: label(f / "data_batch_4.bin", 7, 11), "data_batch_4.bin: image 7 has label 11, expected 0..9"),
            (lambda f: label(f / "test_batch.bin", 0, 255), "test_batch.bin: image 0 has label 255"),
        ],
    )
    def test_bad_data_is_named_and_leaves_nothing(
        self, root: Path, authors: Path, spoil: Callable[[Path], None], message: str
    ) -> None:
        spoil(authors)
        result = prepare(root, "raw", authors)
        assert result.returncode == 2
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
        assert tree(root) == []
        assert os.listdir(root / ".stages") == ["lock"]

    @pytest.mark.parametrize("keep", [0, 100, 20_000])
    def test_a_truncated_archive(self, root: Path, authors: Path, tmp_path: Path, keep: int) -> None:
        tar = archive(authors, tmp_path / "a.tar.gz")
        os.truncate(tar, keep)
        result = prepare(root, "raw", tar)
        assert result.returncode == 2
        assert "not a whole tar archive" in result.stderr
        assert result.stderr.count("\n") == 1
        assert os.listdir(root / ".stages") == ["lock"]

    def test_a_hostile_archive_writes_only_our_names(self, root: Path, authors: Path, tmp_path: Path) -> None:
        tar = archive(authors, tmp_path / "a.tar")
        with tarfile.open(tar, "w") as out:
            out.add(authors, arcname="x")
            for name in ("../../data_batch_1.bin", "/tmp/owned", "../owned"):
                member = tarfile.TarInfo(name)
                member.size = 5
                out.addfile(member, io.BytesIO(b"owned"))
            link = tarfile.TarInfo("x/readme.html")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            out.addfile(link)
        result = prepare(root, "raw", tar)
        assert result.returncode == 2  # the second data_batch_1.bin is five bytes long
        assert not (tmp_path / "owned").exists()
        assert not (tmp_path / "data_batch_1.bin").exists()

    def test_no_source(self, root: Path) -> None:
        result = prepare(root, "raw")
        assert result.returncode == 2
        assert "no source was given" in result.stderr

    def test_a_full_disk_leaves_nothing(self, root: Path, authors: Path, tmp_path: Path) -> None:
        if os.geteuid() != 0:
            pytest.skip("mounting a small disk needs root")
        script = (
            'mount -t tmpfs -o size=200k none "$DATASET_DIR" && "$@"; code=$?; ls -R "$DATASET_DIR" >&2; exit $code'
        )
        small = ["unshare", "--mount", "sh", "-c", script, "sh", *command("raw")]
        result = subprocess.run(small, env=environment(root, authors), capture_output=True, text=True, check=False)
        if "ermitted" in result.stderr or "ermission denied" in result.stderr:
            pytest.skip(f"this machine allows no mounts: {result.stderr.strip()}")
        assert result.returncode == 2
        assert result.stderr.startswith("prepare raw: No space left on device")
        assert "data_batch" not in result.stderr.split("\n", 1)[1]


def label(path: Path, image: int, value: int) -> None:
    with path.open("r+b") as handle:
        handle.seek(image * RECORD)
        handle.write(bytes([value]))


class TestLists:
    def test_every_image_once_and_balanced(self, root: Path, authors: Path) -> None:
        prepare(root, "raw", authors)
        assert prepare(root, "lists").returncode == 0
        lists = {name: (root / "lists" / f"{name}.txt").read_text().splitlines() for name in ("train", "val", "test")}
        assert {name: len(lines) for name, lines in lists.items()} == {"train": 150, "val": 10, "test": 20}
        assert sorted(line.split("\t")[2] for line in lists["val"]) == list("0123456789")
        assert lists["test"][:2] == [f"test_batch.bin#{i}\traw/test_batch.bin#{i}\t{i}" for i in (0, 1)]
        names = [f"data_batch_{n}.bin#{i}" for n in range(1, 5) for i in range(40)]
        everything = {f"{name}\traw/{name}\t{int(name.partition('#')[2]) % 10}" for name in names}
        assert set(lists["train"]) | set(lists["val"]) == everything
        assert set(lists["train"]).isdisjoint(lists["val"])
        for line in lists["train"]:
            _, path, named = line.split("\t")
            file, index = path.split("#")
            assert (root / file).read_bytes()[int(index) * RECORD] == int(named)

    def test_equal_images_stay_on_one_side(self, root: Path, authors: Path) -> None:
        first = (authors / "data_batch_1.bin").read_bytes()
        for number in (2, 3, 4):
            (authors / f"data_batch_{number}.bin").write_bytes(first)
        prepare(root, "raw", authors)
        prepare(root, "lists")
        train = {line.split("#")[1] for line in (root / "lists" / "train.txt").read_text().splitlines()}
        val = {line.split("#")[1] for line in (root / "lists" / "val.txt").read_text().splitlines()}
        assert val
        assert train.isdisjoint(val)

    def test_looked_at_again_only_when_raw_changed(self, root: Path, authors: Path) -> None:
        prepare(root, "raw", authors)
        prepare(root, "lists")
        made = (root / "lists").stat().st_ino
        assert "kept" in prepare(root, "lists").stdout
        os.utime(root / "raw" / "test_batch.bin", (1, 1))
        assert not is_complete(INFO, root.parent, "lists")
        assert "kept" in prepare(root, "lists").stdout  # touched, but nothing in it differs
        assert is_complete(INFO, root.parent, "lists")
        assert (root / "lists").stat().st_ino == made

    def test_made_anew_for_other_raw_data(self, root: Path, authors: Path) -> None:
        prepare(root, "raw", authors)
        prepare(root, "lists")
        (root / "raw" / "test_batch.bin").unlink()
        (root / "raw" / "test_batch.bin").write_bytes(batch("other", 30))
        assert "lists: 4 files" in prepare(root, "lists").stdout
        assert len((root / "lists" / "test.txt").read_text().splitlines()) == 30
        assert sorted(os.listdir(root / ".stages")) == ["lists.json", "lock", "raw.json"]

    def test_raw_on_another_disk_is_read_where_the_launch_says(self, root: Path, authors: Path) -> None:
        (root / "raw").symlink_to("dangling inside")
        assert prepare(root, "lists", RAW_DIR=str(authors)).returncode == 0
        assert (root / "lists" / "train.txt").exists()

    def test_lists_made_by_hand_are_not_overwritten(self, root: Path, authors: Path) -> None:
        prepare(root, "raw", authors)
        (root / "lists").mkdir()
        (root / "lists" / "mine.txt").write_text("mine")
        result = prepare(root, "lists")
        assert result.returncode == 2
        assert "move it away and run the same command again" in result.stderr
        assert tree(root / "lists") == ["mine.txt"]

    def test_without_raw(self, root: Path) -> None:
        result = prepare(root, "lists")
        assert result.returncode == 2
        assert result.stderr.count("\n") == 1
        assert not (root / "lists").exists()


class TestToy:
    def test_the_same_tree_as_raw_and_the_same_bytes_everywhere(self, root: Path, authors: Path) -> None:
        (authors / "data_batch_5.bin").write_bytes(batch("train 5", 40))
        prepare(root, "raw", authors)
        prepare(root, "lists")
        assert prepare(root, "toy").returncode == 0
        assert tree(root / "toy" / "raw") == tree(root / "raw")
        assert tree(root / "toy" / "lists") == tree(root / "lists")
        assert digest(root / "toy") == TOY_DIGEST
        assert is_complete(INFO, root.parent, "toy")

    @pytest.mark.parametrize("delay_s", [0.15, 0.25, 0.35])
    def test_killed_at_any_moment_the_same_command_makes_it_whole(self, root: Path, delay_s: float) -> None:
        process = subprocess.Popen(command("toy"), env=environment(root), stdout=subprocess.DEVNULL)
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (root / "toy").exists() or digest(root / "toy") == TOY_DIGEST
        assert prepare(root, "toy").returncode == 0
        assert digest(root / "toy") == TOY_DIGEST
        assert sorted(os.listdir(root / ".stages")) == ["lock", "toy.json"]

    def test_killed_between_folder_and_marker(self, root: Path) -> None:
        prepare(root, "toy")
        (root / ".stages" / "toy.json").unlink()
        assert not is_complete(INFO, root.parent, "toy")
        assert "kept" in prepare(root, "toy").stdout
        assert is_complete(INFO, root.parent, "toy")

    def test_two_at_once(self, root: Path) -> None:
        both = [
            subprocess.Popen(command("toy"), env=environment(root), stdout=subprocess.PIPE, text=True) for _ in range(2)
        ]
        said = sorted(process.communicate()[0] for process in both)
        assert [process.returncode for process in both] == [0, 0]
        assert "toy: 15 files" in said[0]
        assert "kept" in said[1]

    def test_normal_modes_under_the_callers_umask(self, root: Path) -> None:
        subprocess.run(command("toy"), env=environment(root), check=True, umask=0o027, stdout=subprocess.DEVNULL)
        assert (root / "toy").stat().st_mode & 0o777 == 0o750
        assert (root / "toy" / "lists" / "val.txt").stat().st_mode & 0o777 == 0o640


def test_the_command_line(root: Path) -> None:
    for arguments in ([], ["everything"], ["raw", "toy"]):
        result = subprocess.run(
            [sys.executable, str(SCRIPT), *arguments],
            env=environment(root),
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 2
        assert "one of raw, lists, lmdb, toy, readme, lint, explore expected" in result.stderr
    no_root = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(command("toy"), env=no_root, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "DATASET_DIR is not set" in result.stderr
