"""Data sets on the host: dataset.yml, the parts that are there, what a prepare launch needs. Real folders and links."""

import os
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from runner.contract.checksum import Checksum
from runner.contract.dataset_file import DatasetInfo, ImageChoice, dataset_names, load_dataset
from runner.contract.dataset_schema import ArrayField
from runner.contract.errors import RunnerError
from runner.contract.preparation import Marker, StagePaths, count, listing_key, stage_inputs
from runner.host.data.datasets import (
    DatasetMissing,
    data_record,
    fetch_sources,
    is_complete,
    is_missing,
    mount_points,
    prepare_request,
    resolve,
)
from runner.host.engines.engine import Mount

REPOSITORY = Path(__file__).resolve().parents[2]
YML = """\
description: birds
source:
  - {url: "https://example.org/birds.tar", sha256: "%s"}
splits: {train: most, val: the rest}
classes: [robin, wren]
encoding: image
record:
  image: {dtype: uint8, shape: [3, null, null]}
image: {base: cpu}
stages: [toy, raw, lists]
""" % ("a" * 64)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    folder = tmp_path / "house" / "datasets" / "birds"
    folder.mkdir(parents=True)
    (folder / "dataset.yml").write_text(YML)
    (folder / "prepare.py").write_text("pass\n")
    return tmp_path / "house"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A datasets root that is another place than the repository."""
    for part in ("raw", "lists", "toy/raw", "toy/lists"):
        (tmp_path / "disk" / "birds" / part).mkdir(parents=True)
        (tmp_path / "disk" / "birds" / part / "a.txt").write_text(part)
    return tmp_path / "disk"


def rewrite(house: Path, old: str, new: str) -> None:
    path = house / "datasets" / "birds" / "dataset.yml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def complete(info: DatasetInfo, root: Path, stage: str) -> None:
    """The marker that a prepare launch leaves."""
    paths = StagePaths(root / info.name, stage)
    paths.marker.parent.mkdir(exist_ok=True)
    files, size = count(paths.folder)
    inputs = stage_inputs(stage, info.recipe, root / info.name, root / info.name / "raw")
    Marker(stage=stage, inputs=inputs, made=listing_key(paths.folder), files=files, bytes=size).write(paths.marker)


class TestDatasetYml:
    def test_all_of_it(self, house: Path) -> None:
        info = load_dataset(house, "birds")
        assert info.stages == ("raw", "lists", "toy")
        assert info.image == ImageChoice(base="cpu")
        assert info.sources[0].checksum == Checksum("sha256", "a" * 64)
        assert info.sources[0].file_name == "birds.tar"
        assert info.code == house / "datasets" / "birds" / "prepare.py"
        assert info.schema.record == {"image": ArrayField(dtype="uint8", shape=(3, None, None))}
        assert (info.schema.classes, info.schema.fixed, info.made_by_code) == (("robin", "wren"), False, False)
        assert load_dataset(house, "birds") == info

    def test_cifar10_names_its_authors_archive(self) -> None:
        info = load_dataset(REPOSITORY, "cifar10")
        assert info.sources[0].checksum == Checksum("md5", "c32a1d4ab5d03f1284b67883e8d87530")
        assert info.sources[0].file_name == "cifar-10-binary.tar.gz"
        assert info.command("toy") == ("python", "datasets/cifar10/prepare.py", "toy")
        assert info.stages == ("raw", "lists", "lmdb", "toy", "readme")
        assert "cifar10" in dataset_names(REPOSITORY)

    def test_an_unknown_name_gives_the_nearest(self, house: Path) -> None:
        with pytest.raises(RunnerError, match=r"DATASET='brids': .*did you mean 'birds'\? have: birds"):
            load_dataset(house, "brids")

    @pytest.mark.parametrize("name", ["../birds", "/etc", "a\0b", "a\nb", "b" * 300, "", ".", "..", "birds/../birds"])
    def test_a_name_is_never_a_path(self, house: Path, name: str) -> None:
        with pytest.raises(RunnerError, match="DATASET="):
            load_dataset(house, name)

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("description:", "descripton:", r"unknown key 'descripton' \(known: description, source"),
            ("{base: cpu}", "cpu", r"image: found 'cpu', expected \{base: cpu\} or \{project: <name>\}"),
            ("raw, lists", "rawr, lists", r"stages: unknown stage 'rawr' \(known: raw, lists, lmdb, toy, readme\)"),
            ("[toy, raw, lists]", "toy", r"stages: found a str, expected a list of some of raw, lists, lmdb"),
            ("{train: most, val: the rest}", "[train]", r"splits: found a list, expected each split's name and how"),
            ("[robin, wren]", "[wren, wren]", r"classes: expected a list of names, each once"),
            ("encoding: image", "encoding: jpg", r"encoding: found 'jpg', expected one of binary, npy, image"),
            ("encoding: image", "encoding: npy", r"record: encoding npy has examples of one size; a shape with null"),
            ("dtype: uint8", "dtype: u8", r"record.image: found .*u8.*, expected \{dtype: …, shape: \[…\]\}"),
            ("[3, null, null]", "[3, -1]", r"record.image: found "),
            ("  image: {dtype", "  picture: {dtype", r"record: found a mapping, expected at least image:"),
            ("https://", "ftp://", r"source: found .*ftp.*, expected url: https://…/<file>"),
            ('"' + "a" * 64 + '"', "0a", r"source: sha256 '0a' is not 64 hexadecimal digits"),
            ("sha256:", "crc:", r"has the keys url, crc, expected url and one of md5, sha256"),
        ],
    )
    def test_a_mistake_is_named(self, house: Path, old: str, new: str, message: str) -> None:
        rewrite(house, old, new)
        with pytest.raises(RunnerError, match=message) as caught:
            load_dataset(house, "birds")
        assert "dataset.yml" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_one_that_says_nothing_of_its_examples_has_no_lists(self, house: Path) -> None:
        path = house / "datasets" / "birds" / "dataset.yml"
        path.write_text("image: {base: bare}\nstages: [raw, toy]\n")
        info = load_dataset(house, "birds")
        assert (info.stages, info.described) == (("raw", "toy"), None)
        with pytest.raises(
            RunnerError, match=r"data set birds: dataset.yml does not say what an example is; add encoding"
        ):
            _ = info.schema
        path.write_text("image: {base: bare}\nstages: [raw, readme]\n")
        with pytest.raises(
            RunnerError, match=r"stages: readme need lists; splits: found nothing|stages: readme need lists"
        ):
            load_dataset(house, "birds")

    def test_all_mistakes_in_one_line(self, house: Path) -> None:
        rewrite(house, "{base: cpu}", "cpu")
        rewrite(house, "description:", "title:")
        with pytest.raises(RunnerError, match=r"title.*; image: found"):
            load_dataset(house, "birds")


class TestResolve:
    def test_full_and_toy_look_the_same_inside(self, house: Path, root: Path) -> None:
        info = load_dataset(house, "birds")
        full, toy = resolve(info, root, "full"), resolve(info, root, "toy")
        assert [mount.target for mount in full.mounts] == [mount.target for mount in toy.mounts]
        assert full.mounts[0] == Mount(source=root / "birds/raw", target=PurePosixPath("/datasets/birds/raw"))
        assert toy.parts == {"raw": root / "birds/toy/raw", "lists": root / "birds/toy/lists"}
        assert resolve(info, root, "toy") == toy

    def test_lmdb_is_seen_where_it_was_made(self, house: Path, root: Path) -> None:
        (root / "birds" / "lmdb").mkdir()
        assert set(resolve(load_dataset(house, "birds"), root).parts) == {"raw", "lmdb", "lists"}

    def test_raw_on_another_disk(self, house: Path, root: Path, tmp_path: Path) -> None:
        os.rename(root / "birds" / "raw", tmp_path / "elsewhere")
        (root / "birds" / "raw").symlink_to("../../elsewhere")
        info = load_dataset(house, "birds")
        assert resolve(info, root).parts["raw"] == tmp_path / "elsewhere"
        assert is_complete(info, root, "raw")

    def test_a_missing_part_says_how_to_make_it(self, house: Path, tmp_path: Path) -> None:
        info = load_dataset(house, "birds")
        with pytest.raises(DatasetMissing, match="raw is not there; make it with `make dataset DATASET=birds`") as full:
            resolve(info, tmp_path / "empty")
        assert full.value.stage == "raw"
        with pytest.raises(DatasetMissing, match="make dataset DATASET=birds STAGE=toy") as toy:
            resolve(info, tmp_path / "empty", "toy")
        assert (toy.value.stage, toy.value.variant) == ("toy", "toy")
        assert is_missing(info, tmp_path / "empty", "toy")
        assert not (tmp_path / "empty").exists()

    def test_a_dangling_link_and_a_file_are_not_missing_but_wrong(self, house: Path, root: Path) -> None:
        info = load_dataset(house, "birds")
        os.rename(root / "birds" / "raw", root / "gone")
        (root / "birds" / "raw").symlink_to("nowhere")
        with pytest.raises(RunnerError, match=r"a symlink to .*nowhere\): found nothing, expected a folder of data"):
            resolve(info, root)
        (root / "birds" / "raw").unlink()
        (root / "birds" / "raw").write_text("")
        with pytest.raises(RunnerError, match="found something that is no folder"):
            resolve(info, root)

    def test_an_unknown_variant(self, house: Path, root: Path) -> None:
        with pytest.raises(RunnerError, match="DATA='tiny': expected one of full, toy"):
            resolve(load_dataset(house, "birds"), root, "tiny")

    def test_the_table_of_mounts(self, tmp_path: Path) -> None:
        table = tmp_path / "mountinfo"
        table.write_text(
            "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /data/with\\040space rw shared:1 - ext4 /dev/b rw\n"
        )
        assert mount_points(table) == (Path("/"), Path("/data/with space"))
        assert Path("/") in mount_points()

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
    def test_a_mount_below_a_part_is_listed_read_only(self, house: Path, root: Path, tmp_path: Path) -> None:
        """In a mount namespace of its own, so that nothing stays."""
        inner = root / "birds" / "raw" / "inner"
        inner.mkdir()
        code = (
            "import sys; from pathlib import Path; from runner.contract.dataset_file import load_dataset\n"
            "from runner.host.data.datasets import resolve\n"
            "for m in resolve(load_dataset(Path(sys.argv[1]), 'birds'), Path(sys.argv[2])).submounts:\n"
            "    print(m.source, m.target, m.read_only)"
        )
        script = 'mount -t tmpfs none "$3" && exec "$0" -c "$4" "$1" "$2"'
        command = ["unshare", "--mount", "sh", "-c", script, sys.executable, str(house), str(root), str(inner), code]
        result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
        if "Operation not permitted" in result.stderr or "ermission denied" in result.stderr:
            pytest.skip(f"this machine allows no mounts: {result.stderr.strip()}")
        assert result.stdout == f"{inner} /datasets/birds/raw/inner True\n", result.stderr


class TestPrepare:
    def test_raw_with_a_source(self, house: Path, root: Path, tmp_path: Path) -> None:
        info = load_dataset(house, "birds")
        (tmp_path / "birds.tar").write_bytes(b"")
        request = prepare_request(info, root, "raw", source=tmp_path / "birds.tar")
        assert request.argv == ("python", "datasets/birds/prepare.py", "raw")
        assert request.environment == {"DATASET_DIR": "/datasets/birds", "SOURCE_DIR": "/run/source"}
        assert [(str(m.target), m.read_only) for m in request.mounts] == [
            ("/datasets/birds", False),
            ("/run/source", True),
        ]
        assert not request.network
        assert prepare_request(info, root, "raw", source=tmp_path / "birds.tar") == request

    def test_raw_alone_has_network(self, house: Path, root: Path) -> None:
        info = load_dataset(house, "birds")
        assert [prepare_request(info, root, stage).network for stage in info.stages] == [True, False, False]

    def test_lists_see_raw_where_it_really_is(self, house: Path, root: Path, tmp_path: Path) -> None:
        os.rename(root / "birds" / "raw", tmp_path / "elsewhere")
        (root / "birds" / "raw").symlink_to(tmp_path / "elsewhere")
        request = prepare_request(load_dataset(house, "birds"), root, "lists")
        assert request.environment["RAW_DIR"] == "/run/raw"
        assert request.mounts[1] == Mount(source=tmp_path / "elsewhere", target=PurePosixPath("/run/raw"))

    def test_what_is_missing(self, house: Path, tmp_path: Path) -> None:
        info = load_dataset(house, "birds")
        with pytest.raises(DatasetMissing, match="raw is not there; lists is made from it"):
            prepare_request(info, tmp_path / "empty", "lists")
        with pytest.raises(RunnerError, match="SOURCE='/nowhere': not there"):
            prepare_request(info, tmp_path / "empty", "raw", source=Path("/nowhere"))
        with pytest.raises(RunnerError, match=r"STAGE='lmdb': there is none of that name; .*have: lists, raw, toy"):
            prepare_request(info, tmp_path / "empty", "lmdb")

    def test_complete_until_the_inputs_change(self, house: Path, root: Path) -> None:
        info = load_dataset(house, "birds")
        assert [is_complete(info, root, stage) for stage in info.stages] == [False, False, False]
        for stage in info.stages:
            complete(info, root, stage)
        assert [is_complete(info, root, stage) for stage in info.stages] == [True, True, True]
        (root / "birds" / "lists" / "a.txt").write_text("by hand")
        assert [is_complete(info, root, stage) for stage in info.stages] == [True, False, True]
        complete(info, root, "lists")
        (root / "birds" / "raw" / "a.txt").write_text("other")
        assert [is_complete(info, root, stage) for stage in info.stages] == [True, False, True]
        info.code.write_text("other\n")
        assert [is_complete(info, root, stage) for stage in info.stages] == [True, False, False]

    def test_a_marker_that_cannot_be_read_says_what_to_do(self, house: Path, root: Path) -> None:
        info = load_dataset(house, "birds")
        complete(info, root, "toy")
        StagePaths(root / "birds", "toy").marker.write_text('{"schema_version": 9}')
        with pytest.raises(RunnerError, match=r"toy.json: not a marker of schema_version 1; remove it"):
            is_complete(info, root, "toy")

    def test_no_source_is_named(self, house: Path, tmp_path: Path) -> None:
        rewrite(house, '  - {url: "https://example.org/birds.tar", sha256: "%s"}\n' % ("a" * 64), "  []\n")
        with pytest.raises(
            RunnerError, match=r"data set birds: dataset.yml names no source; give a folder or an archive"
        ):
            fetch_sources(load_dataset(house, "birds"), tmp_path)


class TestFingerprint:
    def test_the_same_data_anywhere_has_the_same(self, house: Path, root: Path, tmp_path: Path) -> None:
        pytest.importorskip("runner.contract.fingerprint")
        info = load_dataset(house, "birds")
        before = data_record(resolve(info, root), tmp_path / "cache")
        assert (before.files, before.bytes) == (2, len("raw") + len("lists"))
        os.rename(root, tmp_path / "moved")
        assert data_record(resolve(info, tmp_path / "moved")).fingerprint == before.fingerprint
        assert data_record(resolve(info, tmp_path / "moved", "toy")).fingerprint != before.fingerprint
        (tmp_path / "moved/birds/raw/a.txt").write_text("rAw")
        after = data_record(resolve(info, tmp_path / "moved"))
        assert after.fingerprint != before.fingerprint
        assert after.parts["lists"] == before.parts["lists"]
