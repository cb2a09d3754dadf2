"""What must work in the hardened container, and what must not be possible in it."""

import json
import os
import shlex
import subprocess
import sys
import sysconfig
from itertools import pairwise
from pathlib import Path

import pytest

from tests.e2e.conftest import CHECKPOINT, TestHouse

pytestmark = pytest.mark.docker

TRY = """\
import os
def attempt(what, do):
    try:
        do()
    except OSError as error:
        print(what, "refused:", error.strerror, error.filename)
    else:
        print(what, "WORKED")
"""


def test_source_data_and_record_are_read_only(docker_house: TestHouse) -> None:
    """Project code cannot rewrite its manifest or config, not even by renaming folders or forging an outcome."""
    docker_house.code(
        TRY
        + """
run = os.environ["RUN_DIR"]
attempt("source", lambda: open(os.environ["WORKSPACE"] + "/new.py", "w"))
attempt("manifest", lambda: open(run + "/attempts/1/manifest.json", "w"))
attempt("config", lambda: os.remove(run + "/config.yml"))
attempt("rename", lambda: os.rename(run + "/attempts", run + "/attempts2"))
attempt("rename", lambda: os.rename(run + "/attempts/1", run + "/attempts/2"))
attempt("outcome", lambda: open(run + "/attempts/1/outcome.json", "w"))
attempt("inputs", lambda: os.remove(run + "/inputs/source.tar"))
attempt("root", lambda: open("/etc/new", "w"))
attempt("chmod", lambda: os.chmod(run + "/attempts/1", 0o777))
"""
    )
    done = docker_house.train()
    assert "WORKED" not in done.stdout and done.stdout.count("refused:") == 9
    assert "refused: Read-only file system /workspace/new.py" in done.stdout


def test_an_evaluation_cannot_touch_its_record_or_the_run(docker_house: TestHouse) -> None:
    docker_house.code(CHECKPOINT)
    docker_house.code(
        TRY
        + """
out, run = os.environ["OUTPUT_DIR"], os.environ["RUN_DIR"]
attempt("outcome", lambda: open(out + "/launch/outcome.json", "w"))
attempt("rename", lambda: os.rename(out + "/launch", out + "/gone"))
attempt("remove", lambda: os.remove(out + "/launch/manifest.json"))
attempt("weights", lambda: os.remove(run + "/checkpoints/best"))
open(out + "/result.txt", "w").write("mine")
""",
        "evaluate.py",
    )
    docker_house.train()
    done = docker_house.run("eval")
    assert "WORKED" not in done.stdout and done.stdout.count("refused:") == 4
    assert list(docker_house.outputs.rglob("result.txt"))


def test_live_code_sees_records_and_data_read_only(docker_house: TestHouse) -> None:
    """By default the roots lie in the live tree: dev code must not rewrite any run's record, nor the cache, through it."""
    for root in ("CHECKPOINTS", "OUTPUTS", "MODELS", "CACHE", "DATASETS"):
        docker_house.environment[f"{root}_ROOT"] = str(docker_house.root / root.lower())
    inside = ("checkpoints", "outputs", "models", "cache", "datasets/birds/raw")
    for folder in inside:
        (docker_house.root / folder).mkdir(parents=True)
    plan = json.loads(docker_house.train("--mode", "dev", "--dry-run", "--json").stdout)
    read_only = {mount["target"]: mount["read_only"] for mount in plan["manifest"]["mounts"]}
    assert read_only["/workspace"] is False
    assert all(read_only[f"/workspace/{folder}"] for folder in inside)
    line = docker_house.run("shell", "--project", "probe", "--engine", "docker", "--dry-run").stdout
    assert all(f"target=/workspace/{folder}," in line for folder in inside)
    touch = "for f in . " + " ".join(inside) + "; do touch /workspace/$f/new && echo made $f; done"
    tried = in_a_shell(docker_house, touch)
    assert tried.stdout.split() == ["made", "."], tried.stderr


def test_a_shell_sees_data_that_lies_on_another_disk(docker_house: TestHouse) -> None:
    datasets, disk = Path(docker_house.environment["DATASETS_ROOT"]), docker_house.base / "disk"
    for folder in ("birds/raw", "cats", "toy raw"):
        (disk / folder).mkdir(parents=True)
        (disk / folder / "file").write_text(folder)
    (datasets / "birds" / "toy").mkdir(parents=True)
    (datasets / "birds/raw").symlink_to(disk / "birds/raw")
    (datasets / "birds/toy/raw").symlink_to("../../../disk/toy raw")
    (datasets / "birds/lists").symlink_to("toy")
    (datasets / "cats").symlink_to(disk / "cats")
    (datasets / "more cats").symlink_to(disk / "cats")
    (disk / "cats/raw").symlink_to("../toy raw")
    (datasets / "gone").symlink_to(disk / "gone")
    read = "cd /datasets; cat birds/raw/file birds/toy/raw/file birds/lists/raw/file cats/file cats/raw/file; touch birds/raw/new"
    seen = in_a_shell(docker_house, read)
    assert seen.stdout == "birds/rawtoy rawtoy rawcatstoy raw" and "Read-only file system" in seen.stderr


def in_a_shell(house: TestHouse, script: str) -> subprocess.CompletedProcess[str]:
    """What `script` says in a container with the mounts of `make shell`."""
    words = shlex.split(house.run("shell", "--project", "probe", "--engine", "docker", "--dry-run").stdout)
    image = json.loads(house.run("image", "--project", "probe", "--engine", "docker", "--json").stdout)["id"]
    binds = [word for pair in pairwise(words) for word in pair if pair[0] == "--mount"]
    command = ["docker", "run", "--rm", *binds, image, "sh", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=False)


NETWORK = """
import os, socket
print(sorted(os.listdir("/sys/class/net")))
try:
    socket.create_connection(("192.0.2.1", 80), timeout=3)
except OSError as error:
    print("refused:", error.strerror)
"""


def test_no_network_in_prod(docker_house: TestHouse) -> None:
    docker_house.code(NETWORK)
    done = docker_house.train()
    assert "['lo']" in done.stdout and "refused: Network is unreachable" in done.stdout


def test_who_and_where_one_is(docker_house: TestHouse) -> None:
    """getpass, ~, the host's name, a writable home, the caller's umask and groups, no capability left."""
    docker_house.code(
        "import getpass, os, pathlib, socket\n"
        "print(getpass.getuser(), pathlib.Path('~').expanduser(), socket.gethostbyname(socket.gethostname()))\n"
        "(pathlib.Path('~/x').expanduser()).write_text('y')\n"
        "mask = os.umask(0); print(oct(mask))\n"
        "print([line for line in open('/proc/self/status') if line.startswith(('CapEff', 'NoNewPrivs'))])\n"
        "print(sorted(k for k in os.environ if 'SECRET' in k or k == 'SSH_AUTH_SOCK'), os.path.exists('/var/run/docker.sock'))\n"
    )
    docker_house.environment["MY_SECRET"] = "planted"
    process = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, sys; os.umask(0o027); os.execv(sys.argv[1], sys.argv[1:])",
            *docker_house.command("train", "--project", "probe", "--engine", "docker"),
        ],
        cwd=docker_house.root,
        env=docker_house.env(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "/tmp/home 127.0.0.1" in process.stdout and "0o27" in process.stdout
    assert "CapEff:\\t0000000000000000" in process.stdout and "NoNewPrivs:\\t1" in process.stdout
    assert "[] False" in process.stdout


def test_passed_variables_go_in_by_name_and_their_values_stay_out_of_the_record(docker_house: TestHouse) -> None:
    docker_house.code("import os\nprint(len(os.environ['API_KEY']))\n")
    docker_house.environment["API_KEY"] = "s3cr3t-value"
    docker_house.train("--set", "resources.env=[API_KEY]")
    run = docker_house.only_run()
    assert read(run / "logs.txt") == "12\n"
    for path in run.rglob("*"):
        assert not path.is_file() or b"s3cr3t-value" not in path.read_bytes(), path
    assert docker_house.manifest(run)["environment"]["API_KEY"].startswith("sha256:")
    done = docker_house.train("--set", "resources.env=[NOT_SET_HERE]", check=2)
    assert "NOT_SET_HERE, which is not set here" in done.stderr


def test_memory_limit_is_seen_as_such(docker_house: TestHouse) -> None:
    docker_house.code("x = bytearray(400 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1\n")
    docker_house.train("--set", "resources.memory_gib=0.06", check=137)
    assert docker_house.outcome(docker_house.only_run())["state"] == "OUT_OF_MEMORY"


def test_an_ordinary_user_owns_what_is_written(docker_house: TestHouse, tmp_path: Path) -> None:
    """As somebody in the docker group: nothing belongs to root afterwards, and a file of another of their groups is readable."""
    group = os.stat("/var/run/docker.sock").st_gid
    shared = docker_house.base / "datasets"
    shared.mkdir(exist_ok=True)
    for path in [docker_house.base, *docker_house.base.rglob("*")]:
        os.lchown(path, 1234, 1234)
    for parent in docker_house.base.parents:
        if str(parent).startswith("/tmp/pytest"):
            parent.chmod(0o755)
    models = docker_house.base / "models"
    models.mkdir()
    secret = models / "weights"
    secret.write_text("of the group\n")
    os.chown(secret, 0, 4321)
    secret.chmod(0o640)
    cache = docker_house.base / "cache"
    docker_house.environment |= {"CACHE_ROOT": str(cache), "HOME": str(docker_house.base)}
    docker_house.code(
        CHECKPOINT + "import os\nprint(os.getuid(), open(os.environ['MODELS_DIR'] + '/weights').read())\n"
    )
    python, packages = reachable_python()
    done = subprocess.run(
        [python, "-m", "runner", "train", "--project", "probe", "--engine", "docker"],
        cwd=docker_house.root,
        env=docker_house.env() | {"PYTHONPATH": packages},
        capture_output=True,
        text=True,
        user=1234,
        group=1234,
        extra_groups=[group, 4321],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1234 of the group" in done.stdout
    written = [path for folder in (docker_house.checkpoints, cache) for path in [folder, *folder.rglob("*")]]
    assert len(written) > 20
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in written} == {(1234, 1234)}


def reachable_python() -> tuple[str, str]:
    """A Python that an ordinary user may run: root's own often lies in a home that nobody else can enter."""
    reachable = all(parent.stat().st_mode & 0o001 for parent in Path(sys.executable).resolve().parents)
    return (sys.executable if reachable else "/usr/bin/python3.11"), sysconfig.get_path("purelib")


def read(path: Path) -> str:
    return path.read_text()


def test_dry_run_prints_a_plan_and_leaves_no_trace(docker_house: TestHouse) -> None:
    """Two dry runs print the same but for the time in the name; nothing is written anywhere."""
    before = sorted(map(str, docker_house.base.rglob("*")))
    done = docker_house.train("--dry-run", "--json")
    again = docker_house.train("--dry-run", "--json")
    assert sorted(map(str, docker_house.base.rglob("*"))) == before
    first, second = json.loads(done.stdout), json.loads(again.stdout)
    for plan in (first, second):
        name, created = plan["manifest"]["run"], plan["manifest"]["created"]
        text = json.dumps(plan).replace(name, "NAME").replace(created, "CREATED")
        plan["text"] = text.replace(plan["spec"]["labels"]["runner.manifest"], "SHA")
    assert first["text"] == second["text"]
    assert "docker run" in docker_house.train("--dry-run").stdout
