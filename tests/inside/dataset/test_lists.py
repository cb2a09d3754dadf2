"""List files: any name that a file system allows, checks that name the line, memory that stays small."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numpy")

from runner.contract.errors import RunnerError
from runner.inside.dataset.checks import check_lists, check_tree
from runner.inside.dataset.lists import DataError, Entry, ListFile, write_list
from tests.inside.dataset.made import files, pixels, save, schema, write_lists

REPOSITORY = Path(__file__).resolve().parents[3]
ODD_NAMES = [
    b"with space.png",
    b"tab\tand\nnewline\r.png",
    b"back\\slash\\x41.png",
    b"hash#3.png",
    b"caf\xc3\xa9 \xe2\x80\xa8.png",
    b"not \xff\xfe utf-8.png",
    b"'quoted\".png",
    b"-dash.png",
]


def test_any_file_name_comes_back(tmp_path: Path) -> None:
    entries = [Entry(os.fsdecode(b"raw/" + name), number) for number, name in enumerate(ODD_NAMES)]
    write_list(tmp_path / "a.txt", entries)
    text = (tmp_path / "a.txt").read_bytes()
    assert text.count(b"\n") == len(ODD_NAMES)
    text.decode("utf-8")
    again = list(ListFile(tmp_path / "a.txt"))
    assert [(entry.path, entry.label, entry.record) for entry in again] == [(e.path, e.label, None) for e in entries]
    assert [entry.name for entry in again] == [os.fsdecode(name) for name in ODD_NAMES]


def test_a_line_as_people_read_it(tmp_path: Path) -> None:
    write_list(tmp_path / "a.txt", [Entry("raw/a b.bin", 3, 17), Entry("raw/x.png", 0, name="the first")])
    assert (tmp_path / "a.txt").read_text() == "a b.bin#17\traw/a b.bin#17\t3\nthe first\traw/x.png\t0\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a\traw/a.png\t1\nb\traw/b.png", "last line does not end: cut short"),
        (b"a\traw/a.png\n", r"a.txt:1: found b'a\\traw/a.png', expected name, path and a whole number"),
        (b"a\traw/a.png\t1\nb\traw/b.png\tcat\n", "a.txt:2: found "),
        (b"a\traw/a.png\t1\tmore\n", "a.txt:1: found "),
        (b"a\traw/a.png\t99999999999999999999\n", "a.txt:1: found "),
        (b"a\t/etc/passwd\t1\n", "expected a path below the data set's root"),
        (b"a\traw/../../b\t1\n", "expected a path below the data set's root"),
        (b"a\traw/a#-1\t1\n", "expected a number behind #"),
        (b"a\traw/a#017\t1\n", "in the one way of writing it"),
        (b"a\traw/./a.png\t1\n", "expected a path below the data set's root"),
        (b"a\traw//tmp/a.png\t1\n", "expected a path below the data set's root"),
        (b"a\traw/\\x61.png\t1\n", "in the one way of writing it"),
        (b"a\t\t1\n", "expected a path below the data set's root"),
        (b"a\traw/a\\qb.png\t1\n", r"'\\\\q' is no escape"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "a.txt").write_bytes(text)
    with pytest.raises(DataError, match=message):
        list(ListFile(tmp_path / "a.txt"))


def test_a_million_lines_take_little_memory(tmp_path: Path) -> None:
    """The file itself and 16 bytes a line, where a list of a million objects would take ten times that."""
    path = tmp_path / "a.txt"
    write_list(path, (Entry(f"raw/class_{n % 1000:04d}/image_{n:08d}.jpg", n % 1000) for n in range(1_000_000)))
    code = (
        "import resource, sys; from pathlib import Path; from runner.inside.dataset.lists import ListFile\n"
        "import numpy, runner.inside.dataset.checks as checks\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "listed = ListFile(Path(sys.argv[1]))\n"
        "checks._check_once({'train': listed})\n"
        "assert (len(listed), listed[999_999].label) == (1_000_000, 999)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0  # in the same unit, kB
    assert int(done.stdout) * 1024 < 4 * path.stat().st_size


class TestChecks:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        files(tmp_path, pixels(6))
        return tmp_path

    def check(self, root: Path, *splits: str) -> object:
        check_tree(root / "raw")
        what = schema("image", (3, None, None))
        return check_lists(root, root / "lists", dict.fromkeys(splits or ("train",), ""), what, root / "raw")

    def test_a_right_one_gives_its_balance(self, root: Path) -> None:
        assert self.check(root) == {"train": [3, 3]}

    def test_names_of_any_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "raw").mkdir()
        entries = []
        for number, name in enumerate(ODD_NAMES):
            path = os.fsdecode(os.fsencode(tmp_path / "raw") + b"/" + name)
            save(tmp_path / "raw" / "new.png", pixels(1)[0])
            os.rename(tmp_path / "raw" / "new.png", path)
            entries.append(Entry(os.fsdecode(b"raw/" + name), number % 2))
        write_lists(tmp_path, schema("image", (3, None, None)), {"train": entries})
        assert self.check(tmp_path) == {"train": [4, 4]}

    @pytest.mark.parametrize(
        ("entries", "message"),
        [
            ([], "train.txt: empty; expected at least one example"),
            ([Entry("raw/0.png", 2)], "train.txt:1: label 2, expected 0..1"),
            ([Entry("raw/0.png", 0), Entry("raw/1.png", -1)], "train.txt:2: label -1, expected 0..1"),
            ([Entry("raw/9.png", 0)], "9.png: No such file or directory, though a list names it"),
            (
                [Entry("raw/0.png", 0), Entry("raw/1.png", 0), Entry("raw/0.png", 1)],
                "raw/0.png stands in train.txt:1 and train.txt:3; expected each example once",
            ),
        ],
    )
    def test_a_wrong_list_is_named(self, root: Path, entries: list[Entry], message: str) -> None:
        write_lists(root, schema("image", (3, None, None)), {"train": entries})
        with pytest.raises(DataError, match=message):
            self.check(root)

    def test_splits_must_not_overlap(self, root: Path) -> None:
        entries = [Entry("raw/5.png", 1), Entry("raw/2.png", 0)]
        write_lists(root, schema("image", (3, None, None)), {"val": entries})
        with pytest.raises(DataError, match=r"raw/2.png stands in train.txt:3 and val.txt:2"):
            self.check(root, "train", "val")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "3.png: found 0 bytes, expected an image"),
            (b"this is text", "3.png: not a readable image"),
            (b"\x89PNG\r\n\x1a\n" + bytes(30), "3.png: not a readable image"),
        ],
    )
    def test_what_is_no_image_is_found_without_reading_pixels(self, root: Path, content: bytes, message: str) -> None:
        (root / "raw" / "3.png").write_bytes(content)
        with pytest.raises(DataError, match=message):
            self.check(root)

    def test_a_wrong_shape(self, tmp_path: Path) -> None:
        what = files(tmp_path, pixels(4), shape=(3, 6, 5))
        save(tmp_path / "raw" / "2.png", pixels(1, shape=(3, 6, 7))[0])
        with pytest.raises(DataError, match=r"2.png: found uint8 \(3, 6, 7\), expected uint8 \(3, 6, 5\)"):
            check_lists(tmp_path, tmp_path / "lists", {"train": ""}, what, tmp_path / "raw")


class TestTree:
    def test_names_that_differ_in_case_alone(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(b"1")
        (tmp_path / "A.png").write_bytes(b"2")
        with pytest.raises(DataError, match=r"A.png and a.png differ in upper and lower case alone"):
            check_tree(tmp_path)

    @pytest.mark.parametrize(
        ("target", "message"),
        [(".", "leads back to a folder it is in"), ("/etc", "leads out of the folder"), ("nowhere", "is not there")],
    )
    def test_links_that_hold_nowhere_else(self, tmp_path: Path, target: str, message: str) -> None:
        (tmp_path / "a.png").write_bytes(b"1")
        (tmp_path / "link").symlink_to(target)
        with pytest.raises(RunnerError, match=message):
            check_tree(tmp_path)

    def test_nothing_in_it(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="found no file in it"):
            check_tree(tmp_path)
