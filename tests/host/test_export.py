"""An export comes back whole, byte for byte, or not at all: damaged, cut, forged and clashing archives leave nothing."""

import errno
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from runner.contract.errors import EngineError, RunnerError
from runner.contract.jsonio import pretty_json
from runner.contract.layout import RunPaths
from runner.contract.records import Manifest, ModelRecord, load_record, to_json
from runner.host.engines.docker_engine import DockerEngine
from runner.host.engines.engine import Engine
from runner.host.house import House, find_house
from runner.host.source import exports
from runner.host.source.code import record_of
from runner.host.source.snapshot import snapshot
from runner.host.verbs.export import ExportRequest, export_run
from runner.host.verbs.import_run import import_run
from runner.host.verbs.release import bring
from runner.host.verbs.run_archive import PAGE, open_archive
from tests.host.made_runs import make_run, write_outcome

NAME = "session_box_2026_01_31_12_00_00_wide"


def silent(text: str) -> None:
    pass


def no_engine() -> Engine:
    raise EngineError("no engine was expected to be asked")


def house_at(folder: Path) -> House:
    folder.mkdir()
    (folder / "runner.yml").write_text("")
    return find_house(folder, {})


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A house with one run: real source, a large file, an empty folder, an odd name."""
    made = house_at(tmp_path / "here")
    (made.root / "projects").mkdir()
    (made.root / "projects/code.py").write_text("print(1)\n")
    source = snapshot(made.root, made.cache, project=None)

    def change(found: Manifest) -> Manifest:
        return replace(found, source=record_of(source))

    run = make_run(made.checkpoints / "probe" / "tiny", NAME, change=change)
    exports.place_archive(source.tree, made.cache, run.inputs / "source.tar")
    (run.folder / "checkpoints/step_00000003.pt").write_bytes(os.urandom(3 << 20))
    (run.folder / "debug/ä b").mkdir(parents=True)
    (run.folder / "debug" / ("long" * 40 + ".txt")).write_text("x")
    return made


@pytest.fixture
def there(tmp_path: Path) -> House:
    return house_at(tmp_path / "there")


def exported(house: House, file: Path) -> Path:
    return export_run(house, no_engine, ExportRequest(run=NAME, file=file, what="none"), silent).file


def content_of(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_a_run_comes_back_byte_for_byte(house: House, there: House, tmp_path: Path) -> None:
    file = exported(house, tmp_path / "run.tar")
    done = import_run(there, no_engine, file, silent)
    assert done.folder == there.checkpoints / "probe" / "tiny" / NAME and not done.was_there
    assert content_of(done.folder) == content_of(house.checkpoints / "probe" / "tiny" / NAME)
    assert (there.checkpoints / "probe/.numbers/toy/1").read_text() == f"tiny/{NAME}\n"
    again = import_run(there, no_engine, file, silent)
    assert again.was_there and again.folder == done.folder
    assert exported(there, tmp_path / "again.tar").read_bytes() == file.read_bytes()


def test_what_is_there_is_never_overwritten(house: House, there: House, tmp_path: Path) -> None:
    file = exported(house, tmp_path / "run.tar")
    with pytest.raises(RunnerError, match="is there already; name another file"):
        exported(house, file)
    folder = import_run(there, no_engine, file, silent).folder
    (folder / "config.extra").write_text("mine")
    before = content_of(folder)
    with pytest.raises(RunnerError, match=r"another run of this name is here \(config.extra differs\)"):
        import_run(there, no_engine, file, silent)
    assert content_of(folder) == before


def begun_with(house: House, tmp_path: Path) -> Path:
    """Weights models/birds/v1, and a run that began with them; the model's folder."""
    (tmp_path / "w.pt").write_bytes(b"feathers")
    model = bring(house, "birds", str(tmp_path / "w.pt"))
    run = RunPaths(house.checkpoints / "probe" / "tiny" / NAME)
    record = load_record(Manifest, run.attempt(1).manifest)
    record = replace(record, models=(ModelRecord(name="birds", version="v1", sha256=model.sha256),))
    run.attempt(1).manifest.write_bytes(pretty_json(to_json(record)))
    write_outcome(run.attempt(1), record)
    return model.folder


def test_the_model_that_a_run_began_with_comes_along(house: House, there: House, tmp_path: Path) -> None:
    model = begun_with(house, tmp_path)
    file = exported(house, tmp_path / "run.tar")
    import_run(there, no_engine, file, silent)
    assert content_of(there.models / "birds" / "v1") == content_of(model)
    assert not list(there.models.glob(".*"))
    assert import_run(there, no_engine, file, silent).was_there


def test_a_model_that_is_gone_is_named_with_its_sha256(house: House, tmp_path: Path) -> None:
    model = begun_with(house, tmp_path)
    (model / "weights.pt").unlink()
    sha256 = hashlib.sha256(b"feathers").hexdigest()
    why = rf"began with models/birds/v1 with sha256 {sha256} is not there .*`make model NAME=birds VERSION=v1 "
    with pytest.raises(RunnerError, match=why):
        export_run(house, no_engine, ExportRequest(run=NAME, file=tmp_path / "run.tar", what="wheels"), silent)
    said: list[str] = []
    export_run(house, no_engine, ExportRequest(run=NAME, file=tmp_path / "run.tar", what="none"), said.append)
    assert "without the model" in said[0]


def test_a_name_that_means_other_weights_here_is_refused(house: House, there: House, tmp_path: Path) -> None:
    begun_with(house, tmp_path)
    file = exported(house, tmp_path / "run.tar")
    (tmp_path / "other.pt").write_bytes(b"scales")
    other = bring(there, "birds", str(tmp_path / "other.pt"))
    with pytest.raises(RunnerError, match=r"models/birds/v1 with sha256 .* has other weights there"):
        import_run(there, no_engine, file, silent)
    assert other.file.read_bytes() == b"scales" and not list(there.checkpoints.rglob("session_*"))


@pytest.mark.parametrize("where", [0.0, 0.001, 0.3, 0.6, 0.95])
def test_one_flipped_bit_is_found_before_anything_is_written(
    house: House, there: House, tmp_path: Path, where: float
) -> None:
    content = bytearray(exported(house, tmp_path / "run.tar").read_bytes())
    content[int(where * len(content))] ^= 4
    (tmp_path / "flipped.tar").write_bytes(content)
    with pytest.raises(RunnerError):
        import_run(there, no_engine, tmp_path / "flipped.tar", silent)
    assert not there.checkpoints.exists()


@pytest.mark.parametrize("kept", [0, 100, 700, 100_000, -2000_000])
def test_a_cut_archive_is_refused(house: House, there: House, tmp_path: Path, kept: int) -> None:
    content = exported(house, tmp_path / "run.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(content[:kept])
    with pytest.raises(RunnerError, match=r"copy (it|the archive) again|not an export"):
        import_run(there, no_engine, tmp_path / "cut.tar", silent)
    assert not there.checkpoints.exists()


def add_file(tar: tarfile.TarFile, name: str) -> None:
    member = tarfile.TarInfo(name)
    member.size = 4
    tar.addfile(member, io.BytesIO(b"evil"))


def add_link(tar: tarfile.TarFile) -> None:
    member = tarfile.TarInfo("run/link")
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    tar.addfile(member)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tar: add_file(tar, "../../evil"),
        lambda tar: add_file(tar, "/tmp/evil"),
        lambda tar: add_file(tar, "run/logs.txt"),
        add_link,
    ],
)
def test_a_member_too_many_is_refused(
    house: House, there: House, tmp_path: Path, spoil: Callable[[tarfile.TarFile], None]
) -> None:
    file = exported(house, tmp_path / "run.tar")
    with tarfile.open(file, "a:") as tar:
        spoil(tar)
    with pytest.raises(RunnerError, match="which its page does not name there"):
        import_run(there, no_engine, file, silent)
    assert not there.checkpoints.exists()


@pytest.mark.parametrize(
    "name",
    [
        "models/a/v1/../../../evil",
        "models/a/.v1/b",
        "models/a",
        "run/../../evil",
        "/etc/cron.d/evil",
        "evil",
        "run//a",
        "run/./a",
    ],
)
def test_a_forged_page_cannot_write_elsewhere(house: House, there: House, tmp_path: Path, name: str) -> None:
    """Someone made the archive with care: every hash is right."""
    digest = hashlib.sha256(b"evil").hexdigest()
    page = {"schema_version": 1, "run": "a", "project": "p", "dataset": "d", "empty_folders": []}
    content = json.dumps({**page, "items": {name: {"size": 4, "sha256": digest}}}).encode()
    file = tmp_path / "forged.tar"
    with tarfile.open(file, "w:") as tar:
        for member, body in (
            (PAGE, content),
            ("runner-export.sha256", hashlib.sha256(content).hexdigest().encode() + b"\n"),
            (name, b"evil"),
        ):
            info = tarfile.TarInfo(member)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    with pytest.raises(RunnerError, match="which is no file of a run"):
        import_run(there, no_engine, file, silent)
    assert not there.checkpoints.exists()


def test_a_changed_record_is_neither_exported_nor_imported(house: House, tmp_path: Path) -> None:
    run = house.checkpoints / "probe" / "tiny" / NAME
    manifest = run / "attempts/1/manifest.json"
    manifest.write_text(manifest.read_text().replace('"seed"', '"sead"').replace("EPYC", "Xeon"))
    with pytest.raises(RunnerError, match=r"attempts/1/manifest.json is not the one that was launched"):
        exported(house, tmp_path / "run.tar")
    assert not list(tmp_path.glob("*.tar")) and not list(tmp_path.glob(".export-*"))


def test_a_full_disk_leaves_nothing(house: House, there: House, tmp_path: Path) -> None:
    """A file size limit stands for the disk: the kernel refuses the write in the middle of a file."""
    file = exported(house, tmp_path / "run.tar")
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from runner.host.verbs.import_run import import_run; from runner.host.house import find_house\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "from runner.contract.errors import RunnerError\n"
        "try: import_run(find_house(Path(sys.argv[1]), {}), None, Path(sys.argv[2]), print)\n"
        "except RunnerError as error: print('refused', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(there.root), str(file)],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("refused import:") and os.strerror(errno.EFBIG) in done.stdout, done.stderr
    assert not [path for path in there.checkpoints.rglob("*") if path.is_file() or path.name.startswith(".s")]


def test_the_page_says_what_is_inside(house: House, tmp_path: Path) -> None:
    with open_archive(exported(house, tmp_path / "run.tar")) as archive:
        assert (archive.page.run, archive.page.project, archive.page.dataset) == (NAME, "probe", "tiny")
        assert "run/attempts/1/manifest.json" in archive.page.items and "debug/ä b" in archive.page.empty_folders
    with tarfile.open(tmp_path / "run.tar") as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in tar} == {(0, 0, 0, "", 0o644)}


@pytest.mark.docker
def test_an_image_goes_out_and_comes_back(tmp_path: Path) -> None:
    """A tiny image of its own: saved, deleted, loaded under the same id, tagged again."""
    engine = DockerEngine(tmp_path)
    tag = f"runner/test:{uuid.uuid4().hex}"
    with tarfile.open(tmp_path / "root.tar", "w") as tar:
        add_file(tar, f"file-{tag[-8:]}")
    image = subprocess.run(
        ["docker", "import", str(tmp_path / "root.tar"), tag], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        saved = tmp_path / "image.tar"
        with saved.open("wb") as out:
            out.writelines(engine.save_image(image))
        subprocess.run(["docker", "rmi", tag], check=True, capture_output=True)
        assert engine.image(image) is None
        with saved.open("rb") as handle:
            engine.load_image(iter(lambda: handle.read(1 << 16), b""))
        assert engine.image(image) is not None
        engine.tag_image(image, tag)
        found = engine.image(tag)
        assert found is not None and found.id == image
        with pytest.raises(EngineError, match=r"cannot be loaded|stopped answering"):
            engine.load_image(iter([b"not an image"]))
    finally:
        subprocess.run(["docker", "rmi", "-f", image], check=False, capture_output=True)
