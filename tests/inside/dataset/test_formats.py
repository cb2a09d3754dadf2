"""Binary records, arrays, image files and both kinds of LMDB: the same images from each, and damage by name."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("lmdb")

from runner.contract.dataset_schema import Schema  # noqa: E402
from runner.inside.dataset.examples import open_raw  # noqa: E402
from runner.inside.dataset.lists import DataError, Entry  # noqa: E402
from runner.inside.dataset.lmdb_file import LmdbFile  # noqa: E402
from runner.inside.dataset.lmdb_write import write_lmdb  # noqa: E402
from runner.inside.dataset.pictures import decode, png  # noqa: E402
from tests.inside.dataset import made  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[3]
IMAGES = made.pixels(11)
SIZES = [made.pixels(1, n, (3, 4 + n, 9 - n))[0] for n in range(5)]


def encoding(root: Path, name: str) -> Schema:
    shape = made.SHAPE if name == "image" else None
    return made.files(root, IMAGES, shape) if shape else getattr(made, name)(root, IMAGES)


def store(root: Path, what: Schema, kind: str) -> LmdbFile:
    path = root / "lmdb" / kind / "train.mdb"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_lmdb(path, open_raw(root, "train", what), root / "lists" / "train.txt", what, kind)
    return LmdbFile(path, root / "lists" / "train.txt")


@pytest.mark.parametrize("name", ["binary", "npy", "image"])
def test_every_encoding_and_both_kinds_give_the_same(tmp_path: Path, name: str) -> None:
    what = encoding(tmp_path, name)
    wanted = np.array([10, 0, 3, 3, 7])
    raw = open_raw(tmp_path, "train", what)
    for examples in (raw, store(tmp_path, what, "arrays"), store(tmp_path, what, "encoded")):
        assert len(examples) == 11
        assert np.array_equal(examples.images(wanted), IMAGES[wanted])
        assert examples.labels.tolist() == [n % 2 for n in range(11)]
        assert np.array_equal(decode(examples.encoded(7), made.SHAPE, ""), IMAGES[7])
        again = pickle.loads(pickle.dumps(examples))
        assert np.array_equal(again.images(wanted), IMAGES[wanted])


@pytest.mark.parametrize("kind", ["arrays", "encoded"])
def test_images_of_many_sizes(tmp_path: Path, kind: str) -> None:
    what = made.files(tmp_path, SIZES)
    for examples in (open_raw(tmp_path, "train", what), store(tmp_path, what, kind)):
        found = examples.images(np.array([4, 0, 2]))
        assert [image.shape for image in found] == [(3, 8, 5), (3, 4, 9), (3, 6, 7)]
        assert all(np.array_equal(image, SIZES[index]) for image, index in zip(found, (4, 0, 2), strict=True))


def test_a_file_grows_as_it_needs_to_and_is_the_same_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first map of 64 kB for 400 kB of images, in several blocks."""
    monkeypatch.setattr("runner.inside.dataset.lmdb_write.FIRST_MAP_BYTES", 64 << 10)
    monkeypatch.setattr("runner.inside.dataset.lmdb_write.BLOCK_BYTES", 32 << 10)
    images = made.pixels(100, shape=(3, 37, 37))
    what = made.schema("npy", (3, 37, 37))
    made.npy(tmp_path, images)
    made.write_lists(tmp_path, what, {"train": [Entry("raw/images.npy", n % 2, n) for n in range(100)]})
    stored = store(tmp_path, what, "arrays")
    first = stored.path.read_bytes()
    order = np.random.default_rng(1).permutation(100)
    assert np.array_equal(stored.images(order), images[order])
    stored.path.rename(tmp_path / "first.mdb")
    assert store(tmp_path, what, "arrays").path.read_bytes() == first


def test_two_readers_a_fork_and_a_fork_of_a_reader(tmp_path: Path) -> None:
    """LMDB refuses a second opening in one process, and a map that a fork has inherited."""
    what = made.files(tmp_path, SIZES)
    store(tmp_path, what, "encoded")
    code = (
        "import os, sys; from pathlib import Path; import numpy as np\n"
        "from runner.inside.dataset.lmdb_file import LmdbFile\n"
        "one, other = (LmdbFile(Path(sys.argv[1])) for _ in range(2))\n"
        "first = one.images(np.array([3]))[0]\n"
        "for _ in range(2):\n"
        "    if os.fork() == 0:\n"
        "        same = all(np.array_equal(r.images(np.array([3]))[0], first) for r in (one, other, LmdbFile(one.path)))\n"
        "        os._exit(0 if same else 1)\n"
        "    assert os.wait()[1] == 0\n"
        "assert np.array_equal(other.images(np.array([3]))[0], first)\n"
    )
    path = tmp_path / "lmdb/encoded/train.mdb"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [entry.name for entry in path.parent.iterdir()] == ["train.mdb"]  # no lock file, also not from reading


def test_a_file_that_is_replaced_is_not_read_on_as_if_it_were_the_same(tmp_path: Path) -> None:
    """A worker of a second epoch opens the path anew: what lies there by then may be of other lists."""
    what = made.npy(tmp_path, IMAGES)
    stored = store(tmp_path, what, "arrays")
    (tmp_path / "lists" / "train.txt").write_text(
        "".join(reversed((tmp_path / "lists/train.txt").read_text().splitlines(True)))
    )
    stored.path.rename(tmp_path / "old.mdb")
    store(tmp_path, what, "arrays")
    worker = pickle.dumps(stored)
    with pytest.raises(DataError, match=r"train.mdb: was replaced since it was opened"):
        pickle.loads(worker).images(np.array([0]))
    stored.path.unlink()
    with pytest.raises(DataError, match=r"train.mdb: was replaced since it was opened"):
        pickle.loads(worker).images(np.array([0]))


class TestDamage:
    @pytest.mark.parametrize("kind", ["arrays", "encoded"])
    def test_a_cut_lmdb_file_is_refused_instead_of_killing_the_process(self, tmp_path: Path, kind: str) -> None:
        path = store(tmp_path, made.binary(tmp_path, made.pixels(4000)), kind).path
        copy = tmp_path / "copy.mdb"
        copy.write_bytes(path.read_bytes())
        os.truncate(copy, path.stat().st_size // 2)
        with pytest.raises(DataError, match=r"copy.mdb: (found \d+ bytes, expected \d+: cut short|not an LMDB file)"):
            LmdbFile(copy)

    @pytest.mark.parametrize("content", [b"", b"not lmdb at all" * 1000])
    def test_no_lmdb_file_at_all(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.mdb").write_bytes(content)
        with pytest.raises(DataError, match=r"a.mdb: (not an LMDB file of ours|found)"):
            LmdbFile(tmp_path / "a.mdb")
        with pytest.raises(DataError, match="No such file"):
            LmdbFile(tmp_path / "b.mdb")

    def test_made_from_another_list(self, tmp_path: Path) -> None:
        what = made.binary(tmp_path, IMAGES)
        path = store(tmp_path, what, "arrays").path
        listed = tmp_path / "lists" / "train.txt"
        lines = listed.read_text().splitlines(keepends=True)
        listed.write_text("".join(reversed(lines)))
        with pytest.raises(DataError, match=r"was made from another train.txt than the one that is there"):
            LmdbFile(path, listed)

    def test_a_damaged_image_leaves_no_lmdb_file(self, tmp_path: Path) -> None:
        what = made.files(tmp_path, IMAGES, made.SHAPE)
        damaged = tmp_path / "raw" / "8.png"
        os.truncate(damaged, damaged.stat().st_size - 60)
        with pytest.raises(DataError, match=r"8.png: not a readable image"):
            store(tmp_path, what, "encoded")
        assert list((tmp_path / "lmdb" / "encoded").iterdir()) == []

    def test_killed_while_it_writes_there_is_no_file(self, tmp_path: Path) -> None:
        made.npy(tmp_path, made.pixels(60_000))
        what = made.schema("npy")
        code = (
            "import sys; from pathlib import Path; from tests.inside.dataset import made\n"
            "from tests.inside.dataset.test_formats import store\n"
            "store(Path(sys.argv[1]), made.schema('npy'), 'encoded')"
        )
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY)
        folder = tmp_path / "lmdb" / "encoded"
        while not (folder.is_dir() and list(folder.iterdir())):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (folder / "train.mdb").exists()
        assert len(open_raw(tmp_path, "train", what)) == 60_000

    def test_records(self, tmp_path: Path) -> None:
        what = made.binary(tmp_path, IMAGES)
        os.truncate(tmp_path / "raw" / "b.bin", 100)
        with pytest.raises(
            DataError, match=r"b.bin: found 100 bytes \(1 records and 9 bytes\), expected a multiple of 91"
        ):
            open_raw(tmp_path, "train", what).images(np.array([10]))
        os.truncate(tmp_path / "raw" / "b.bin", 91)
        with pytest.raises(DataError, match=r"b.bin: has 1 records, and .*train.txt names number 4"):
            open_raw(tmp_path, "train", what).check()

    def test_arrays(self, tmp_path: Path) -> None:
        what = made.npy(tmp_path, IMAGES.astype(np.float32))
        with pytest.raises(DataError, match=r"images.npy: holds float32 \(3, 6, 5\), expected uint8 \(3, 6, 5\)"):
            open_raw(tmp_path, "train", what).check()
        (tmp_path / "raw" / "images.npy").write_bytes(b"text")
        with pytest.raises(DataError, match=r"images.npy: not an array of numpy, or cut short"):
            open_raw(tmp_path, "train", what).check()

    def test_a_pickled_array_runs_no_code(self, tmp_path: Path) -> None:
        class Attack:
            def __reduce__(self) -> Any:
                return (os.mkdir, (str(tmp_path / "owned"),))

        what = made.npy(tmp_path, IMAGES)
        np.save(tmp_path / "raw" / "images.npy", np.array([Attack()], dtype=object), allow_pickle=True)
        with pytest.raises(DataError, match="not an array of numpy"):
            open_raw(tmp_path, "train", what).check()
        assert not (tmp_path / "owned").exists()


class TestDecode:
    @pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
    def test_other_kinds_of_colour_become_the_one_that_is_wanted(self, mode: str) -> None:
        import io

        from PIL import Image

        buffer = io.BytesIO()
        Image.new("RGB", (5, 6), "white").convert(mode).save(buffer, "TIFF" if mode == "CMYK" else "PNG")
        assert decode(buffer.getvalue(), (3, None, None), "x").tolist() == np.full((3, 6, 5), 255).tolist()
        assert decode(buffer.getvalue(), (1, 6, 5), "x").shape == (1, 6, 5)

    def test_sixteen_bits_are_not_cut_down_in_silence(self) -> None:
        import io

        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(np.full((6, 5), 40_000, np.uint16)).save(buffer, "PNG")
        with pytest.raises(DataError, match="found pixels of kind I;16, expected 8 bits a channel"):
            decode(buffer.getvalue(), (1, 6, 5), "x")

    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_a_png_comes_back(self, channels: int) -> None:
        image = made.pixels(1, 3, (channels, 7, 4))[0]
        assert np.array_equal(decode(png(image), image.shape, "x"), image)
