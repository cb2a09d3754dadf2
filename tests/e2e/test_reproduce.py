"""`reproduce` and `compare` with real launches: the same run again, whatever became of its clone, image and data."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runner.contract.layout import RunPaths
from runner.host.images import recipes
from runner.host.images.builders import Build, build, find_builder
from runner.host.verdict.verdict import judge
from tests.e2e.conftest import TestHouse, make_house, read_or_empty, wait_for

WALK = """\
import hashlib, json, os, random, sys
from pathlib import Path
from runner.inside import report
config = report.config()
random.seed(config.seed)
data = Path(os.environ["DATASETS_DIR"]) / "tiny" / "raw" / "a.bin"
folder = Path(os.environ["RUN_DIR"]) / "checkpoints"
value = 1.0 + (data.read_bytes()[0] / 255 if data.exists() else 0)
for step in range(1, 21):
    value *= 0.9 + 0.1 * random.random()
    report.log(step=step, split="train", loss=value)
    if step % 10 == 0:
        name = f"step_{step:08}"
        (folder / f"{name}.pt").write_text(repr(value))
        state = hashlib.sha256(repr(value).encode()).hexdigest()
        facts = {"step": step, "score": value, "state_sha256": state, "sha256": state}
        (folder / f"{name}.json").write_text(json.dumps(facts))
        (folder / "best").write_text(name + ".pt")
        (folder / "latest").write_text(name + ".pt")
"""
TINY = """\
image: {base: bare}
stages: [raw]
"""


def with_data(house: TestHouse) -> Path:
    """A data set of two files for the probe; its raw folder."""
    (house.root / "datasets/tiny").mkdir(parents=True)
    (house.root / "datasets/tiny/dataset.yml").write_text(TINY)
    (house.root / "datasets/tiny/prepare.py").write_text("")
    project = house.root / "projects/probe/project.yml"
    project.write_text(project.read_text() + "dataset: tiny\n")
    raw = Path(house.environment["DATASETS_ROOT"]) / "tiny" / "raw"
    raw.mkdir(parents=True)
    (raw / "a.bin").write_bytes(b"\x10")
    (raw / "b.bin").write_bytes(b"b")
    return raw


def reproduce(house: TestHouse, run: Path, *arguments: str, check: int = 0) -> dict[str, Any]:
    """Reproduce a run; its verdict."""
    done = house.run("reproduce", "--run", str(run), "--json", *arguments, check=check)
    verdict: dict[str, Any] = json.loads(done.stdout)
    return verdict


def held(verdict: dict[str, Any]) -> dict[str, bool | None]:
    return {item["level"]: item["holds"] for item in verdict["levels"]}


def test_a_run_is_reproduced_from_its_folder_after_its_clone_is_gone(
    house: TestHouse, tmp_path: Path, shared_cache: Path
) -> None:
    """Another checkout, at another path, that knows neither the project nor the data set; the data was moved, too, and the
    cache is new (only the local engine's environments are kept, so that nothing is fetched)."""
    raw = with_data(house)
    house.code(WALK)
    house.train("--set", "learning_rate=0.5 resources.threads=1", "--tag", "first try")
    first = house.only_run()
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    shutil.rmtree(house.root)
    (raw.parents[1] / "2026/archive").mkdir(parents=True)
    raw.parent.rename(raw.parents[1] / "2026/archive/renamed")
    other = make_house(tmp_path / "elsewhere", shared_cache, house.engine, name="clone")
    shutil.rmtree(other.root / "projects/probe")
    cache = tmp_path / "new cache"
    cache.mkdir()
    other.environment = {**house.environment, "CACHE_ROOT": str(cache)}
    other.base = house.base
    planned = other.run("reproduce", "--run", first.name, "--dry-run")
    assert "would train" in planned.stdout and house.runs() == [first]
    made = {path.relative_to(cache).parts[0] for path in cache.rglob("*") if path.is_file()}
    assert made <= {"accounts"}, "a dry run made more than the two lines of passwd for the command that it prints"
    if house.engine == "local":
        (cache / "venvs").symlink_to(shared_cache / "venvs")
    done = other.run("reproduce", "--run", "first try/1", "--project", "probe")
    assert "found by its fingerprint" in done.stderr and "bit-identical at steps 10, 20" in done.stdout
    (second,) = [run for run in house.runs() if run != first]
    manifests = house.manifest(first), house.manifest(second)
    for same in ("config_sha256", "command", "data", "environment", "resources", "experiment"):
        same_in = [dict(m, data=[{**d, "cached": 0} for d in m["data"]])[same] for m in manifests]
        assert same_in[0] == same_in[1], same
    assert manifests[0]["source"] == manifests[1]["source"] and manifests[0]["image"] == manifests[1]["image"]
    assert manifests[1]["parent"] == first.name and second.name.endswith("_first-try-reproduced")
    assert (second / "attempts/1/config.json").read_bytes() == (first / "attempts/1/config.json").read_bytes()
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before
    (kept,) = house.outputs.glob(f"probe/tiny/{second.name}/verdict_*.json")
    assert json.loads(kept.read_text())["holds"] is True
    names = [{str(p.relative_to(run / "inputs")) for p in (run / "inputs").rglob("*")} for run in (first, second)]
    assert names[0] <= names[1] and "data/tiny.raw.tsv.gz" in names[0]
    again = other.run("reproduce", "--run", second.name)  # a reproduction is a run like any other
    assert "HOLDS: the same run" in again.stdout


SECRETS = ("secret-of-a-variable", "secret-of-the-remote", "secret-of-pip", "secret-of-docker")


def test_credentials_appear_in_no_file_of_a_run(house: TestHouse) -> None:
    variable, remote, pip, docker = SECRETS
    house.git("remote", "add", "origin", f"https://me:{remote}@example.org/house.git")
    (house.base / "pip.conf").write_text(f"[global]\nextra-index-url = https://me:{pip}@example.org/simple\n")
    (house.base / "docker").mkdir()
    login = base64.b64encode(f"me:{docker}".encode()).decode()
    (house.base / "docker/config.json").write_text(json.dumps({"auths": {"example.org": {"auth": login}}}))
    house.environment |= {
        "TOKEN": variable,
        "UNASKED": variable,
        "PIP_CONFIG_FILE": str(house.base / "pip.conf"),
        "DOCKER_CONFIG": str(house.base / "docker"),
    }
    house.code(WALK + "print(sorted(name for name in os.environ if name in ('TOKEN', 'UNASKED')))\n")
    house.train("--set", "resources.env=[TOKEN]")
    run = house.only_run()
    house.run("reproduce", "--run", run.name)
    house.run("compare", "--runs", " ".join(str(found) for found in house.runs()))
    assert "['TOKEN']" in (run / "logs.txt").read_text()
    files = [path for root in (house.checkpoints, house.outputs) for path in root.rglob("*") if path.is_file()]
    assert len(files) > 30
    for path in files:
        content = path.read_bytes()
        assert not [secret for secret in (*SECRETS, login) if secret.encode() in content], path


def test_chance_without_a_seed_is_a_surprise_and_exits_1(house: TestHouse) -> None:
    house.code(WALK.replace("random.seed(config.seed)", ""))
    house.train()
    verdict = reproduce(house, house.only_run(), check=1)
    assert verdict["divergence"]["step"] == 1 and verdict["divergence"]["key"] == "loss"
    assert held(verdict)["inputs"] and not held(verdict)["metrics"] and "a surprise" in verdict["conclusion"]
    run = house.runs()[0]
    assert house.run("reproduce", "--run", str(run), "--level", "inputs").returncode == 0
    refused = house.run("reproduce", "--run", str(run), "--level", "bits", check=2)
    assert "LEVEL='bits': expected one of inputs" in refused.stderr and len(house.runs()) == 3


def test_data_that_changed_is_refused_by_the_name_of_the_file(plain_house: TestHouse) -> None:
    house = plain_house
    raw = with_data(house)
    house.code(WALK)
    house.train()
    run = house.only_run()
    (raw / "a.bin").write_bytes(b"\x11")
    (raw / "c.bin").write_bytes(b"new")
    refused = house.run("reproduce", "--run", str(run), check=2)
    assert "raw/c.bin added, raw/a.bin changed" in refused.stderr and "FORCE=1" in refused.stderr
    assert house.runs() == [run]
    verdict = reproduce(house, run, "--force", check=1)
    assert not held(verdict)["inputs"] and verdict["conclusion"].startswith("most likely because of data tiny/raw")
    (change,) = [change for change in verdict["changes"] if change["group"] == "data"]
    assert change["files"] == ["added c.bin", "changed a.bin"]
    assert not house.manifest(house.runs()[-1])["reproducible"]
    shutil.rmtree(raw)
    refused = house.run("reproduce", "--run", str(run), "--force", check=2)
    assert "which is nowhere below" in refused.stderr and "DATASETS_ROOT" in refused.stderr


@pytest.mark.docker
def test_a_further_folder_is_named_since_what_lies_in_it_is_not_recorded(docker_house: TestHouse) -> None:
    house, words = docker_house, docker_house.base / "words"
    words.mkdir()
    (words / "a.txt").write_text("2.0")
    (house.root / "runner.yml").write_text(f"mounts: {{words: {words}}}\n")
    house.code(WALK.replace("value = 1.0", "value = float(open('/mnt/words/a.txt').read())"))
    house.train("--set", "resources.mounts=[words]")
    run = house.only_run()
    because = house.manifest(run)["not_reproducible_because"]
    assert because == ["what lies in /mnt/words (resources.mounts) is not recorded"]
    assert reproduce(house, run)["holds"]
    (words / "a.txt").write_text("3.0")
    verdict = reproduce(house, run, check=1)
    assert "not everything is" in verdict["conclusion"] and "/mnt/words" in verdict["conclusion"]
    assert verdict["doubts"] == [
        f"{name}: not reproducible: {because[0]}" for name in (run.name, house.runs()[-1].name)
    ]


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()  # it may be a hard link
    path.write_bytes(content)


def test_a_run_whose_record_was_changed_is_refused(plain_house: TestHouse) -> None:
    house = plain_house
    house.code(WALK)
    house.train()
    run = house.only_run()
    good = house.base / "good"
    shutil.copytree(run, good)
    damages = {
        "attempts/1/config.json is not what was written": lambda: (run / "attempts/1/config.json").write_text(
            (good / "attempts/1/config.json").read_text().replace('"seed": 0', '"seed": 1')
        ),
        "attempts/1/manifest.json is not the one that was launched": lambda: (
            run / "attempts/1/manifest.json"
        ).write_text((good / "attempts/1/manifest.json").read_text() + "\n"),
        "checkpoints/step_00000020.pt is damaged": lambda: flip_a_bit(run / "checkpoints/step_00000020.pt"),
        "the locks in inputs/ are not those": lambda: (run / "inputs/requirements/bare.txt").write_text(
            f"added==1.0 --hash=sha256:{'0' * 64}\n"
        ),
        "inputs/project.yml is not the one in inputs/source.tar": lambda: (run / "inputs/project.yml").write_text(
            (good / "inputs/project.yml").read_text() + "# edited\n"
        ),
    }
    for why, damage in damages.items():
        (run / "inputs/requirements/bare.txt").unlink()  # hard links into the cache, which the test must not edit
        (run / "inputs/requirements/bare.txt").write_bytes((good / "inputs/requirements/bare.txt").read_bytes())
        damage()
        refused = house.run("reproduce", "--run", str(run), check=2)
        assert why in refused.stderr and "FORCE=1" in refused.stderr and len(refused.stderr.splitlines()) == 1
        assert house.runs() == [run], why
        shutil.rmtree(run)
        shutil.copytree(good, run)
    (run / "attempts/1/config.json").write_text(
        (good / "attempts/1/config.json").read_text().replace('"seed": 0', '"seed": 1')
    )
    verdict = reproduce(house, run, "--force", check=1)
    assert not held(verdict)["inputs"] and "record of" in verdict["conclusion"]
    because = house.manifest(house.runs()[-1])["not_reproducible_because"]
    assert len(because) == 1 and "its record does not hold" in because[0]


def planted(house: TestHouse, name: str) -> str:
    """Plant one difference in source or data; the settings to train with."""
    project = house.root / "projects/probe"
    raw = Path(house.environment["DATASETS_ROOT"]) / "tiny" / "raw"
    if name == "source byte":
        (project / "train.py").write_text(WALK.replace("range(1, 21)", "range(1, 22)"))
    elif name == "untracked file":
        (project / "helper.py").write_text("x = 1\n")
    elif name == "README":
        (house.root / "README.md").write_text("edited\n")
        (project / "README.md").write_text("edited\n")
    elif name == "vocabulary":
        (house.root / "common").mkdir(exist_ok=True)
        (house.root / "common/vocab.json").write_text('["a", "b"]')
    elif name == "data byte, old mtime":
        before = (raw / "b.bin").stat()
        (raw / "b.bin").write_bytes(b"B")
        os.utime(raw / "b.bin", ns=(before.st_atime_ns, before.st_mtime_ns))
    elif name == "data file added":
        (raw / "c.bin").write_bytes(b"c")
    elif name == "data permissions":
        (raw / "b.bin").chmod(0o600)
    threads = "resources.threads=1" if name == "threads" else "resources.threads=2"
    settings = {
        "config key": "learning_rate=0.7",
        "seed": "seed=7",
        "CPU limit": "resources.cpus=1",
        "variable": "resources.env=[PLANTED]",
    }
    return f"{threads} {settings.get(name, '')}".strip()


PLANTED = {
    "nothing": ([], True),
    "source byte": (["source projects/probe/train.py"], False),
    "untracked file": (["source projects/probe/helper.py"], False),
    "README": (["source projects/probe/README.md, README.md"], True),
    "vocabulary": (["source common/vocab.json"], False),
    "config key": (["config learning_rate"], False),
    "seed": (["config seed"], False),
    "threads": (["limits threads"], False),
    "CPU limit": (["limits cpus"], True),
    "CPU count": (["machine cores"], False),
    "variable": (["environment PLANTED"], False),
    "data byte, old mtime": (["data tiny/raw"], False),
    "data file added": (["data tiny/raw"], False),
    "data permissions": (["data tiny/raw permissions"], True),
}


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU: there is no smaller number to plant")
def test_each_planted_difference_alone_is_found_and_named(plain_house: TestHouse) -> None:
    house = plain_house
    raw = with_data(house)
    house.code(WALK)
    house.environment["PLANTED"] = "credential-in-a-variable"
    house.train("--set", "resources.threads=2")
    first = house.only_run()
    for name, (wanted, inputs) in PLANTED.items():
        cores = {min(os.sched_getaffinity(0))} if name == "CPU count" else os.sched_getaffinity(0)
        settings = ("--project", "probe", "--engine", house.engine, "--set", planted(house, name))
        house.run("train", *settings, preexec_fn=lambda cores=cores: os.sched_setaffinity(0, cores))
        second = house.runs()[-1]
        facts = json.loads(house.run("compare", "--runs", f"{first} {second}", "--json").stdout)
        changes = facts["runs"][1]["changes"]
        found = [f"{change['group']} {change['name']}" for change in changes]
        assert found == wanted, name
        is_input = [change for change in changes if change["effect"] != "no effect expected"]
        assert (not is_input) is inputs, name
        house.code(WALK)
        planted_files = ("README.md", "common/vocab.json", "projects/probe/README.md", "projects/probe/helper.py")
        for path in (*(house.root / file for file in planted_files), raw / "c.bin"):
            path.unlink(missing_ok=True)
        (raw / "b.bin").write_bytes(b"b")
        (raw / "b.bin").chmod(0o644)
    with_variable = next(
        run for run in house.runs() if house.manifest(run)["overrides"][-1:] == ["resources.env=[PLANTED]"]
    )
    del house.environment["PLANTED"]
    refused = house.run("reproduce", "--run", str(with_variable), check=2)
    assert "resources.env names PLANTED, which is not set here; export it" in refused.stderr
    assert "GPUS=all" in house.run("reproduce", "--run", str(first), "--gpus", "all", check=2).stderr
    for path in [*house.checkpoints.rglob("*"), *house.outputs.rglob("*")]:
        if path.is_file():
            assert b"credential-in-a-variable" not in path.read_bytes(), path


def test_compare_lays_runs_side_by_side_and_draws_their_curves(plain_house: TestHouse) -> None:
    house = plain_house
    house.code(WALK)
    house.train("--tag", "a")
    house.train("--tag", "b", "--set", "learning_rate=0.2 seed=1")
    house.train("--tag", "c")
    done = house.run("compare", "--runs", "a/1 b/1 c/1")
    lines = done.stdout.splitlines()
    (row,) = [line for line in lines if line.startswith("config seed")]
    assert row.split()[2:5] == ["0", "1", "0"] and not [line for line in lines if line.startswith("config steps")]
    assert "first differing logged step 1, train: loss" in done.stdout and "equal" in done.stdout
    assert any(line.startswith("train loss  from") for line in lines)
    (folder,) = house.outputs.glob("comparisons/compare_*")
    picture = (folder / "curves.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n") and len(picture) > 3000
    assert json.loads((folder / "compare.json").read_text())["runs"][2]["metrics_equal_first"] is True
    for runs, why in (("a/1", "name two or more"), ("a/1 a/1", "name two or more"), ("a/1 nothing", "no run matches")):
        assert why in house.run("compare", "--runs", runs, check=2).stderr


@pytest.mark.docker
def test_an_image_that_is_gone_is_built_again(docker_house: TestHouse) -> None:
    """The image is made for this test alone: its Dockerfile has a line that no other has."""
    house = docker_house
    dockerfile = house.root / "docker/Dockerfile.prod"
    dockerfile.write_text(dockerfile.read_text() + f"\n# {house.base}\n")
    house.code(WALK)
    house.train()
    run = house.only_run()
    image = house.manifest(run)["image"]
    subprocess.run(["docker", "image", "rm", "-f", image["id"]], check=True, capture_output=True)
    planned = house.run("reproduce", "--run", run.name, "--dry-run")
    assert "is gone; it would be built again" in planned.stderr and "would train" in planned.stdout
    absent = subprocess.run(["docker", "image", "inspect", image["tag"]], check=False, capture_output=True)
    assert absent.returncode != 0, "a dry run built it"
    done = house.run("reproduce", "--run", run.name)
    assert "is gone" in done.stderr and "HOLDS: the same run" in done.stdout
    built = house.manifest(house.runs()[-1])["image"]
    assert built["key"] == image["key"] and built["lock_sha256"] == image["lock_sha256"]
    subprocess.run(["docker", "image", "rm", "-f", built["id"]], check=True, capture_output=True)


@pytest.mark.docker
def test_another_base_image_is_found_and_named(docker_house: TestHouse) -> None:
    """The base image is built anew, with one Debian package of another version."""
    house = docker_house
    house.code(WALK)
    house.train()
    dockerfile, mark = house.root / "docker/Dockerfile.base", house.base.as_posix()
    change = f"RUN : {mark} && sed -i '0,/^Version: /s//Version: 9/' /var/lib/dpkg/status\n"
    dockerfile.write_text(dockerfile.read_text().replace("ENV PATH=", change + "ENV PATH="))
    house.train()
    first, second = house.runs()
    recipe = recipes.recipe(house.root, None, base="bare")
    try:
        facts = json.loads(house.run("compare", "--runs", f"{first} {second}", "--json").stdout)
    finally:
        tags = [house.manifest(second)["image"]["tag"], *(recipe.base_tag(origin) for origin in recipes.ORIGINS)]
        subprocess.run(["docker", "image", "rm", "-f", *tags], check=False, capture_output=True)
    changes = {
        f"{c['group']} {c['name']}": c for c in facts["runs"][1]["changes"] if c["effect"] != "no effect expected"
    }
    assert set(changes) == {"image Dockerfiles", "image system packages"}
    assert len(changes["image system packages"]["files"]) == 1
    assert facts["runs"][1]["metrics_equal_first"] is True


@pytest.mark.docker
def test_packages_that_a_rebuilt_image_has_are_read_inside_it(docker_house: TestHouse) -> None:
    """An image under the very tag and labels that the build would give it holds one more Python and Debian package."""
    house = docker_house
    dockerfile = house.root / "docker/Dockerfile.prod"
    dockerfile.write_text(dockerfile.read_text() + f"\n# {house.base} packages\n")
    house.code(WALK)
    house.train()
    run = house.only_run()
    image = house.manifest(run)["image"]
    kept = (run / "inputs/packages.tsv").read_text()
    assert "python\tpyyaml\t" in kept and "system\tlibc6" in kept
    drift = (
        f"FROM {image['tag']}\n"
        "RUN mkdir /opt/venv/lib/python3.11/site-packages/drift-1.0.dist-info && "
        "printf 'Name: drift\\nVersion: 1.0\\n' > /opt/venv/lib/python3.11/site-packages/drift-1.0.dist-info/METADATA && "
        "sed -i '0,/^Version: /s//Version: 9/' /var/lib/dpkg/status\n"
    )
    (house.base / "context").mkdir()
    wanted = Build(
        tag=image["tag"],
        dockerfile=drift,
        context=house.base / "context",
        arguments={},
        labels={},
        platform="linux/amd64",
        network=False,
    )
    build(find_builder(os.environ), wanted, print, sys.stderr)
    subprocess.run(["docker", "image", "rm", "-f", image["id"]], check=True, capture_output=True)
    verdict = reproduce(house, run)
    built = house.manifest(house.runs()[-1])["image"]
    subprocess.run(["docker", "image", "rm", "-f", built["id"]], check=True, capture_output=True)
    named = {f"{c['group']} {c['name']}": c for c in verdict["changes"] if c["effect"] != "no effect expected"}
    assert set(named) == {"packages drift", "image system packages"} and not held(verdict)["inputs"]
    assert named["packages drift"]["second"] == "1.0" and len(named["image system packages"]["files"]) == 1


SHORT = "n_iterations=40 val_iterations=20 print_iterations=5 checkpoint_iterations=5 resources.threads=2"


def cifar(house: TestHouse, *arguments: str, check: int | None = 0) -> None:
    house.run("train", "--project", "cifar", "--config", "toy", "--engine", house.engine, *arguments, check=check)


def test_a_resumed_run_is_reproduced_as_one_bit_by_bit(cifar_house: TestHouse) -> None:
    """Interrupted at a few steps, resumed with a longer horizon, other workers, and lines at other steps: two attempts,
    reproduced as one."""
    house = cifar_house
    process = house.start(
        *("train", "--project", "cifar", "--config", "toy", "--engine", house.engine),
        *("--set", SHORT.replace("=40", "=30"), "--tag", "broken"),
    )
    run = wait_for(lambda: next(iter(house.checkpoints.glob("cifar/*/*_broken")), None), "the run's folder", 120)
    wait_for(lambda: " 5/30" in read_or_empty(run / "logs.txt"), "its first steps", timeout_s=120)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    house.run("resume", "--run", run.name, "--set", "n_iterations=40 n_workers=2 print_iterations=4")
    verdict = reproduce(house, run)
    assert verdict["asked"]["level"] == "checkpoints" and set(held(verdict).values()) == {True}
    second = house.runs()[-1]
    assert house.outcome(second)["step"] == 40 and not (second / "attempts/2").exists()
    compared = json.loads(house.run("compare", "--runs", f"{run} {second}", "--json").stdout)
    assert [row for row in compared["differing"] if row["effect"] != "no effect expected"] == []
    assert compared["runs"][1]["metrics_equal_first"] is True
    page = house.run("compare", "--runs", f"{second} {run}").stdout
    assert "limits command" not in page and "  equal" in page


def test_cifar_is_reproduced_bit_by_bit_from_another_checkout(
    cifar_house: TestHouse, tmp_path: Path, shared_cache: Path
) -> None:
    """All 300 iterations on the toy set: in a new container, or local process; and in a process what was a container."""
    house = cifar_house
    cifar(house, "--set", "resources.threads=1 print_iterations=10")
    run = house.only_run()
    shutil.rmtree(house.root)
    other = make_house(tmp_path / "elsewhere", shared_cache, house.engine, name="clone")
    other.environment, other.base = house.environment, house.base
    verdict = reproduce(other, run)
    assert verdict["asked"]["level"] == "checkpoints" and set(held(verdict).values()) == {True}
    assert house.outcome(house.runs()[-1])["step"] == 300
    if house.engine == "local":
        return
    across = reproduce(other, run, "--engine", "local", "--level", "checkpoints")
    assert held(across)["metrics"] and held(across)["checkpoints"]
    assert [c["name"] for c in across["changes"] if c["effect"] != "no effect expected"] == ["kind"]
    default = judge(RunPaths(run), RunPaths(house.runs()[-1]), shared_cache).asked
    assert default.level == "tolerance" and "kind was docker and is local" in default.because
