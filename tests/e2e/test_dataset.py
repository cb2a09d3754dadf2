"""dataset+ as a user meets it: a new one, its stages, its page and its README; used in place of another; seen to have changed."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import REPO, TestHouse

SEES = """\
import json, os
from pathlib import Path
from runner.contract.dataset_schema import read_schema
from runner.inside.dataset.examples import open_raw
root = Path(os.environ["DATASETS_DIR"]) / "birds"
examples = open_raw(root, "train", read_schema(root))
out = Path(os.environ.get("OUTPUT_DIR") or os.environ["RUN_DIR"] + "/debug") / "examples.json"
out.write_text(json.dumps([len(examples), examples.images([0])[0].tolist()]))
"""


def new_dataset(house: TestHouse, name: str = "birds") -> Path:
    """As make new-dataset leaves it; its folder in the repository."""
    made = house.run("new-dataset", "--dataset", name).stdout.split()
    assert [Path(path).name for path in made] == ["README.md", "dataset.yml", "explore.ipynb", "prepare.py"]
    return house.root / "datasets" / name


def source(base: Path, shade: int = 200) -> Path:
    """A folder of images such as the template's write_raw expects."""
    code = (
        "import sys; from pathlib import Path; from PIL import Image\n"
        "for name in ('one', 'another'):\n"
        "    (Path(sys.argv[1]) / name).mkdir(parents=True)\n"
        "    for n in range(12):\n"
        "        Image.new('RGB', (9, 8), (n, int(sys.argv[2]), 40)).save(Path(sys.argv[1]) / name / f'{n:04d}.png')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(base), str(shade)], check=True)
    return base


def use_numpy_in_the_probe(house: TestHouse) -> None:
    """A project on the cpu base, whose Python has numpy and Pillow."""
    project = house.root / "projects/probe/project.yml"
    project.write_text(project.read_text().replace("base: bare", "base: cpu") + "dataset: birds\n")


def test_from_a_new_folder_to_a_page_and_a_readme(house: TestHouse) -> None:
    folder = new_dataset(house)
    assert "is there already" in house.run("new-dataset", "--dataset", "birds", check=2).stderr
    images = source(house.base / "images")
    engine = ("--engine", house.engine)
    house.run("dataset", "--dataset", "birds", "--source", str(images), *engine)
    root = Path(house.environment["DATASETS_ROOT"]) / "birds"
    names = {"raw", "lists", "lmdb", "toy", "readme", ".stages"}
    assert {path.name for path in root.iterdir()} == names
    for path in root.rglob("*"):
        assert path.stat().st_uid == os.getuid()
    card = (folder / "README.md").read_text()
    assert "train 20, val 4" in card and "| one | 10 | 2 |" in card and "facts of toy: begin" in card
    assert (folder / "samples_full.png").read_bytes()[:4] == b"\x89PNG"
    records = sorted(path.name.split("_")[0] for path in (house.outputs / "datasets/birds/prepare").iterdir())
    assert records == sorted(names - {".stages"})
    again = house.run("dataset", "--dataset", "birds", *engine)
    assert all(f"birds: {stage} is complete" in again.stderr for stage in names - {".stages"})
    assert "birds: well: full and toy agree" in house.run("lint-dataset", "--dataset", "birds", *engine).stdout
    page = Path(house.run("explore", "--dataset", "birds", *engine).stdout.strip().splitlines()[-1])
    assert page.read_text().startswith("<!doctype html>") and page.stat().st_uid == os.getuid()
    told = house.run("check-datasets").stdout
    assert told == "birds: full: as README.md tells; toy: as README.md tells\n"
    by_hand = card.replace("# birds", "# Birds of the garden").replace("train 20, val 4", "train 2000, val 4")
    (folder / "README.md").write_text(by_hand)
    assert "full: was changed between its markers" in house.run("check-datasets", check=2).stderr
    lists = root / "lists" / "train.txt"
    lists.write_text(lists.read_text().replace("one", "two", 1))
    refused = house.run("check-datasets", "--dataset", "birds", check=2).stderr
    assert "full: lists is not what it tells of" in refused and "STAGE=readme` writes it anew" in refused
    assert "though a list names it" in house.run("lint-dataset", "--dataset", "birds", *engine, check=2).stdout


def test_the_part_that_people_wrote_stays(plain_house: TestHouse) -> None:
    folder = new_dataset(plain_house)
    (folder / "README.md").write_text("# Birds\n\nSeen from my window.\n\nAnd below the facts this.\n")
    stages = ("--dataset", "birds", "--engine", "local", "--stage")
    for stage in ("toy", "readme"):
        plain_house.run("dataset", *stages, stage)
    first = (folder / "README.md").read_text()
    (folder / "README.md").write_text(first + "\n## History\n\nNone.\n")
    (folder / "prepare.py").write_text((folder / "prepare.py").read_text().replace("range(20)", "range(30)"))
    for stage in ("toy", "readme"):
        plain_house.run("dataset", *stages, stage)
    text = (folder / "README.md").read_text()
    assert text.startswith("# Birds\n\nSeen from my window.\n\nAnd below the facts this.\n\n<!-- facts of toy: begin")
    assert text.endswith("<!-- facts of toy: end -->\n\n## History\n\nNone.\n")
    assert "train 36, val 4" in first and "train 54, val 6" in text and text.count("facts of toy: begin") == 1


def test_another_data_set_in_place_of_the_runs_own(house: TestHouse) -> None:
    """The run's code reads birds; it is given wrens, and the record says so."""
    for name, shade in (("birds", 200), ("wrens", 77)):
        new_dataset(house, name)
        images = source(house.base / f"images_{name}", shade)
        for stage, more in (("raw", ("--source", str(images))), ("lists", ())):
            house.run("dataset", "--dataset", name, "--engine", house.engine, "--stage", stage, *more)
    use_numpy_in_the_probe(house)
    checkpoint = (
        "from pathlib import Path; import json, os\nfolder = Path(os.environ['RUN_DIR']) / 'checkpoints'\n"
        "(folder / 'step_00000001.pt').write_text('w')\n"
        "(folder / 'step_00000001.json').write_text(json.dumps({'step': 1, 'score': 0.5}))\n"
        "(folder / 'best').write_text('step_00000001.pt\\n')\n"
    )
    house.code(SEES + checkpoint)
    house.code(SEES, "evaluate.py")
    house.train(check=0)
    run = house.only_run()
    assert json.loads((run / "debug/examples.json").read_text())[1][1][0][0] == 200
    house.run("eval", "--run", run.name, "--dataset", "wrens")
    (seen,) = house.outputs.glob(f"probe/wrens/{run.name}/val_best_*/examples.json")
    assert json.loads(seen.read_text())[1][1][0][0] == 77
    (data,) = json.loads((seen.parent / "launch/manifest.json").read_text())["data"]
    assert (data["name"], data["variant"]) == ("wrens", "full")
    wrens = house.root / "datasets/wrens/dataset.yml"
    wrens.write_text(wrens.read_text().replace("classes: [one, another]", "classes: [one, other]"))
    refused = house.run("eval", "--run", run.name, "--dataset", "wrens", check=2).stderr
    assert "cannot take the place of birds" in refused and "classes: one, other and one, another" in refused
    assert "DATASET='robins'" in house.run("eval", "--run", run.name, "--dataset", "robins", check=2).stderr
    house.run("rm", "--run", run.name, "--yes")
    assert not seen.exists()


def test_changed_data_is_said_at_launch_with_its_files(plain_house: TestHouse) -> None:
    house = plain_house
    folder = house.root / "datasets/birds"
    folder.mkdir(parents=True)
    (folder / "dataset.yml").write_text("image: {base: bare}\nstages: [raw]\n")
    (folder / "prepare.py").write_text("")
    project = house.root / "projects/probe/project.yml"
    project.write_text(project.read_text() + "dataset: birds\n")
    raw = Path(house.environment["DATASETS_ROOT"]) / "birds" / "raw"
    raw.mkdir(parents=True)
    for name in "abcdefgh":
        (raw / name).write_text(name)
    assert "has changed" not in house.train().stderr
    assert "has changed" not in house.train().stderr
    (raw / "a").write_text("other")
    (raw / "new file").write_text("new")
    (raw / "h").unlink()
    said = house.train().stderr
    line = next(line for line in said.splitlines() if "has changed" in line)
    second = house.runs()[1]
    assert line == (
        f"note: birds (full) has changed since the last run of probe on it, {second.name}: "
        "raw/new file added, raw/h removed, raw/a changed"
    )
    assert "has changed" not in house.train().stderr
    shown = house.run("show", "--run", house.runs()[-1].name).stdout
    assert (
        re.search(r"birds \(?full", shown) and house.manifest(house.runs()[-1])["data"][0]["fingerprint"][:12] in shown
    )


def test_an_lmdb_of_other_data_is_left_out(house: TestHouse) -> None:
    """One byte of raw changed in place: what was made of the old ones must not be trained on in its stead."""
    new_dataset(house)
    engine = ("--engine", house.engine)
    house.run("dataset", "--dataset", "birds", "--source", str(source(house.base / "images")), *engine)
    use_numpy_in_the_probe(house)
    house.code(SEES)
    assert "left out" not in house.train().stderr
    assert set(house.manifest(house.only_run())["data"][0]["parts"]) == {"raw", "lists", "lmdb"}
    image = Path(house.environment["DATASETS_ROOT"]) / "birds/raw/one/0001.png"
    image.chmod(0o644)
    shutil.copy(image.with_name("0002.png"), image)
    said = house.train().stderr
    assert (
        "note: lmdb of birds was made from other data or by another prepare.py than is there now; it is left out"
        in said
    )
    assert set(house.manifest(house.runs()[-1])["data"][0]["parts"]) == {"raw", "lists"}
    refused = house.run("lint-dataset", "--dataset", "birds", *engine, check=2).stdout
    assert "is not raw/one/0001.png as raw holds it; make it again" in refused
    house.run("dataset", "--dataset", "birds", *engine)
    assert "note: lmdb" not in house.train().stderr
    assert set(house.manifest(house.runs()[-1])["data"][0]["parts"]) == {"raw", "lists", "lmdb"}


def test_what_code_alone_can_make_is_made_by_the_launch_that_needs_it(plain_house: TestHouse) -> None:
    """projects/digits on a machine that has never seen its data set."""
    for part in ("projects/digits", "datasets/digits"):
        ignored = shutil.ignore_patterns("__pycache__", "raw", "toy", "lists", "lmdb", "readme", ".stages")
        shutil.copytree(REPO / part, plain_house.root / part, ignore=ignored)
    done = plain_house.run("train", "--project", "digits", "--config", "debug", "--engine", "local")
    assert "lists: 4 files" in done.stdout + done.stderr
    run = plain_house.only_run()
    assert plain_house.manifest(run)["data"][0]["name"] == "digits"
    assert (
        "lists:" not in plain_house.run("train", "--project", "digits", "--config", "debug", "--engine", "local").stdout
    )


@pytest.mark.docker
def test_a_look_cannot_change_the_data(docker_house: TestHouse) -> None:
    folder = new_dataset(docker_house)
    docker_house.run("dataset", "--dataset", "birds", "--stage", "toy")
    code = (
        (folder / "prepare.py")
        .read_text()
        .replace("import sys\n", "import os, sys\nopen(os.environ['DATASET_DIR'] + '/owned', 'w')\n", 1)
    )
    (folder / "prepare.py").write_text(code)
    done = docker_house.run("lint-dataset", "--dataset", "birds", check=None)
    assert done.returncode != 0 and "Read-only file system: '/datasets/birds/owned'" in done.stdout
