"""Trouble on the way: disks that are full, launchers that die, engines that fall silent, several who want the same. No
record is lost, none is half-written, none says what is not so."""

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.host.images.builders import find_builder
from tests.e2e.conftest import CHECKPOINT, TestHouse, lines_of, wait_for
from tests.e2e.test_hardened import reachable_python

RESUMABLE = "resume: [python, -m, projects.probe.train]\n"
WAITS = """\
import os, time
print("ready", flush=True)
while not os.path.exists(os.environ["RUN_DIR"] + "/debug/go"):
    time.sleep(0.05)
"""


class Proxy:
    """Stands between us and the engine's socket, and can die. `deaf_to`: a request that the engine carries out and answers,
    and whose answer never comes back."""

    def __init__(self, path: Path, deaf_to: bytes | None = None) -> None:
        self.address = f"unix://{path}"
        self._path, self._deaf_to = path, deaf_to
        self._open: list[socket.socket] = []
        self._unheard: set[socket.socket] = set()
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                ours, _ = self._listening.accept()
                theirs = socket.socket(socket.AF_UNIX)
                theirs.connect("/var/run/docker.sock")
                self._open += [ours, theirs]
                for source, target in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if source in self._unheard:
                    self.die()
                    return
                if self._deaf_to is not None and self._deaf_to in data:
                    self._unheard.add(target)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def die(self) -> None:
        self._path.unlink(missing_ok=True)
        for one in (self._listening, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"may not mount a small disk here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def resumable(house: TestHouse, code: str) -> None:
    project = house.root / "projects/probe/project.yml"
    project.write_text(project.read_text() + RESUMABLE)
    house.code(code)


def states(house: TestHouse) -> list[str]:
    return [row["state"] for row in json.loads(house.run("ls", "--json").stdout)]


@pytest.mark.parametrize("free", [0, 8, 24, 40, 60])
def test_a_disk_that_is_full_at_the_launch_gets_no_half_run(
    plain_house: TestHouse, small_disk: Path, free: int
) -> None:
    plain_house.environment["CHECKPOINTS_ROOT"] = str(small_disk)
    (small_disk / "filler").write_bytes(bytes((2048 - free) << 10))
    done = plain_house.run("train", "--project", "probe", "--engine", "local", check=2)
    line = lines_of(done.stderr)[-1]
    assert line.startswith("error: ") and "No space left on device" in line and str(small_disk) in line
    assert not list(small_disk.glob("*/*/session_*"))


def test_a_disk_that_fills_up_costs_nobody_the_end(house: TestHouse, small_disk: Path) -> None:
    """The command's exit code and state are told at once, lists go on, and the record is written when there is room."""
    house.environment["CHECKPOINTS_ROOT"] = str(small_disk)
    house.code(
        "import os\nwith open(os.environ['RUN_DIR'] + '/debug/big', 'wb', buffering=0) as big:\n"
        "    while big.write(bytes(4096)): pass\n"
    )
    done = house.train(check=1)
    (run,) = small_disk.glob("*/*/session_*")
    assert "its end cannot be written (No space left on device)" in done.stderr
    assert not (run / "attempts/1/outcome.json").exists() and states(house) == ["FAILED"]
    (run / "debug/big").unlink()
    assert states(house) == ["FAILED"]
    outcome = json.loads((run / "attempts/1/outcome.json").read_text())
    assert (outcome["exit_code"], outcome["recorded_by"]) == (1, "reconcile")


def test_a_disk_that_is_full_while_an_environment_is_made(plain_house: TestHouse, small_disk: Path) -> None:
    """One line that says so, no run; with room the same command goes on."""
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    plain_house.environment["CACHE_ROOT"] = str(small_disk)
    done = plain_house.run("train", "--project", "probe", "--engine", "local", check=2)
    line = lines_of(done.stderr)[-1]
    assert line.startswith(f"error: {small_disk}/wheels/") and "disk full while fetching wheels" in line
    assert line.endswith("make room, or set CACHE_ROOT to a larger disk") and not plain_house.runs()
    subprocess.run(["mount", "-o", "remount,size=512m", str(small_disk)], check=True)
    plain_house.run("train", "--project", "probe", "--engine", "local")
    log = (plain_house.only_run() / "inputs/build.log").read_text()  # a record: no path of this host stands in it
    assert " + pyyaml==" in log and "at: <CACHE_ROOT>/venvs/" in log and str(plain_house.base) not in log
    assert "Looking in" not in log and not re.search("^Processing /", log, re.MULTILINE)  # pip's own settings


def test_the_image_of_a_run_that_is_gone_comes_back_from_its_inputs(docker_house: TestHouse) -> None:
    """The Dockerfiles of the clone are others by now; the run is evaluated in an image of its own ones."""
    docker_house.code(CHECKPOINT)
    dockerfile = docker_house.root / "docker/Dockerfile.prod"
    own = dockerfile.read_text() + f"# {docker_house.base}\n"  # an image that no other test uses
    dockerfile.write_text(own)
    docker_house.train()
    run = docker_house.only_run()
    image = docker_house.manifest(run)["image"]
    dockerfile.write_text("FROM scratch\n")
    docker = find_builder(os.environ).docker
    try:
        subprocess.run([docker, "rmi", image["tag"]], check=True, capture_output=True)
        gone = docker_house.run("eval", check=2).stderr
        assert "is no longer here" in gone and f"`make image RUN={run.name}` builds it again" in gone
        built = json.loads(docker_house.run("image", "--run", run.name, "--json").stdout)
        assert built["key"] == image["key"] and built["tag"] == image["tag"]
        done = docker_house.run("eval")
        assert (
            built["id"] == image["id"]
        ) or f"image {image['id'][:19]} is gone; using {built['id'][:19]}" in done.stderr
        (evaluated,) = docker_house.outputs.glob("probe/*/*/*/launch/manifest.json")
        assert json.loads(evaluated.read_text())["image"]["id"] == built["id"]
    finally:
        subprocess.run([docker, "rmi", image["tag"]], check=False, capture_output=True)


def test_a_resume_that_died_while_it_was_prepared_leaves_the_run_as_it_was(house: TestHouse) -> None:
    resumable(house, CHECKPOINT + "raise SystemExit(7)\n")
    house.train(check=7)
    run = house.only_run()
    (run / "attempts/2").mkdir()
    assert states(house) == ["FAILED"]
    house.run("eval")
    house.run("resume", check=7)
    assert house.outcome(run, 2)["exit_code"] == 7


def test_of_two_resumes_at_once_one_goes_on(house: TestHouse) -> None:
    resumable(house, "import os, time\nif os.environ['RUNNER_ATTEMPT'] == '1': raise SystemExit(7)\ntime.sleep(1)\n")
    house.train(check=7)
    processes = [house.start("resume") for _ in range(3)]
    ends = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    assert sorted(code for _, code in ends) == [0, 2, 2], ends
    assert all(re.search("somebody else|before you resume", said) for said, code in ends if code == 2), ends
    assert sorted(path.name for path in (house.only_run() / "attempts").iterdir()) == ["1", "2"]


def test_a_run_whose_engine_is_silent_is_neither_resumed_nor_deleted(docker_house: TestHouse) -> None:
    """It may be running: nobody here can tell."""
    resumable(docker_house, WAITS)
    docker_house.train("--detach")
    docker_house.environment["DOCKER_HOST"] = f"unix://{docker_house.base}/no.sock"
    assert states(docker_house) == ["UNKNOWN"]
    for verb in (["resume"], ["rm", "--run", "latest", "--yes"]):
        assert docker_house.run(*verb, check=None).returncode != 0
    del docker_house.environment["DOCKER_HOST"]
    run = docker_house.only_run()
    assert [path.name for path in (run / "attempts").iterdir()] == ["1"]
    (run / "debug/go").touch()
    wait_for(lambda: states(docker_house) == ["COMPLETED"], "it goes on to its end")


def test_an_engine_that_falls_silent_midway_loses_nothing(docker_house: TestHouse) -> None:
    docker_house.code(WAITS)
    proxy = Proxy(docker_house.base / "p.sock")
    docker_house.environment["DOCKER_HOST"] = proxy.address
    process = docker_house.start("train", "--project", "probe")
    wait_for(lambda: list(docker_house.checkpoints.glob("*/*/*/logs.txt")), "the run has begun")
    run = docker_house.only_run()
    wait_for(lambda: "ready" in (run / "logs.txt").read_text(), "the run is ready")
    proxy.die()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 125 and "may still be going" in err and "make show" in err
    assert not (run / "attempts/1/outcome.json").exists() and states(docker_house) == ["UNKNOWN"]
    del docker_house.environment["DOCKER_HOST"]
    assert states(docker_house) == ["RUNNING"]
    (run / "debug/go").touch()
    wait_for(lambda: states(docker_house) == ["COMPLETED"], "its end is recorded")


def test_another_cache_is_another_local_engine(plain_house: TestHouse, tmp_path: Path) -> None:
    """Somebody with a CACHE_ROOT of their own looks at the same checkpoints: they cannot know, and write nothing."""
    plain_house.code(WAITS)
    plain_house.run("train", "--project", "probe", "--engine", "local", "--detach")
    shared = plain_house.environment["CACHE_ROOT"]
    plain_house.environment["CACHE_ROOT"] = str(tmp_path / "another")
    assert states(plain_house) == ["UNKNOWN"]
    plain_house.environment["CACHE_ROOT"] = shared
    assert states(plain_house) == ["RUNNING"]
    (plain_house.only_run() / "debug/go").touch()
    wait_for(lambda: states(plain_house) == ["COMPLETED"], "its end is recorded")


@pytest.mark.parametrize("request_", [b"/start", b"/containers/create"])
def test_an_engine_that_falls_silent_at_the_start_is_asked_again(docker_house: TestHouse, request_: bytes) -> None:
    """It may have heard the last request: nothing is recorded before it can be asked, and nothing is said to have failed."""
    docker_house.code(WAITS)
    proxy = Proxy(docker_house.base / "p.sock", deaf_to=request_)
    docker_house.environment["DOCKER_HOST"] = proxy.address
    assert docker_house.train(check=125).stderr.splitlines()[-1].startswith("error: ")
    run = docker_house.only_run()
    assert not (run / "attempts/1/outcome.json").exists()
    del docker_house.environment["DOCKER_HOST"]
    if request_ == b"/start":
        assert states(docker_house) == ["RUNNING"]
        (run / "debug/go").touch()
        wait_for(lambda: states(docker_house) == ["COMPLETED"], "its end is recorded")
    else:
        assert states(docker_house) == ["FAILED"]
        assert "before the start" in docker_house.outcome(run)["reason"]


def test_an_engine_that_cannot_remove_does_not_change_what_came_of_a_run(docker_house: TestHouse) -> None:
    proxy = Proxy(docker_house.base / "p.sock", deaf_to=b"DELETE /")
    docker_house.environment["DOCKER_HOST"] = proxy.address
    docker_house.train(check=0)
    assert docker_house.outcome(docker_house.only_run())["state"] == "COMPLETED"


GPU_TABLE = "#!/bin/sh\necho 'GPU-1111, 0, Some GPU, 1000, 1.0'\n"


def test_a_run_without_a_gpu_stays_without(plain_house: TestHouse) -> None:
    """Also where this machine has one: the run's image may know of none, and its config must stay what it was."""
    resumable(plain_house, CHECKPOINT + "raise SystemExit(7)\n")
    tools = plain_house.base / "tools"
    tools.mkdir()
    (tools / "nvidia-smi").write_text(GPU_TABLE)
    (tools / "nvidia-smi").chmod(0o755)
    plain_house.environment["PATH"] = f"{tools}:{os.environ['PATH']}"
    plain_house.train("--set", "gpu=false", check=7)
    plain_house.run("resume", check=7)
    plain_house.run("eval")
    found = [
        *plain_house.only_run().glob("attempts/2/config.json"),
        *plain_house.outputs.glob("*/*/*/*/launch/config.json"),
    ]
    assert [json.loads(path.read_text())["gpu"] for path in found] == [False, False]


def test_a_run_that_is_being_prepared_is_not_deleted(plain_house: TestHouse) -> None:
    launch = plain_house.checkpoints / "probe/no-dataset/session_a/attempts/1"
    launch.mkdir(parents=True)
    with (launch / ".preparing").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "is CREATED" in plain_house.run("rm", "--run", "session_a", "--yes", check=2).stderr
    plain_house.run("rm", "--run", "session_a", "--yes")
    assert not launch.exists()


def test_a_run_that_is_being_evaluated_is_not_deleted(house: TestHouse) -> None:
    """Its checkpoint is read, and its outputs are written; with all of them ended everything goes, and no other run's."""
    house.code(CHECKPOINT)
    house.code(
        "import os, time\nfrom pathlib import Path\nout = Path(os.environ['OUTPUT_DIR'])\nprint('ready', flush=True)\n"
        "while not (out / 'go').exists():\n    time.sleep(0.05)\n",
        "evaluate.py",
    )
    house.train()
    run = house.only_run()
    evaluation = house.start("eval")
    wait_for(lambda: any("ready" in log.read_text() for log in house.outputs.rglob("logs.txt")), "the evaluation runs")
    (folder,) = house.outputs.glob("probe/*/*/val_best_*")
    stood_in, others = (house.outputs / "probe" / name / run.name for name in ("birds", "fish"))
    (house.checkpoints / "probe/fish" / run.name).mkdir(parents=True)
    stood_in.mkdir(parents=True)
    others.mkdir(parents=True)
    said = house.run("rm", "--run", str(run), "--yes", check=2).stderr
    assert f"{folder.name}: is RUNNING; wait for it or press Ctrl-C where it was started before you delete it" in said
    assert run.exists() and folder.exists()
    (folder / "go").touch()
    _, err = evaluation.communicate(timeout=60)
    assert evaluation.returncode == 0, err
    house.run("rm", "--run", str(run), "--yes")
    assert not run.exists() and not folder.exists() and not stood_in.exists() and others.exists()


def test_one_damaged_record_does_not_hide_the_others(plain_house: TestHouse) -> None:
    for name, manifest in (("session_a", '{"tag": "a"}'), ("session_b", '{"tag": "b", "schema_version": 99}')):
        launch = plain_house.checkpoints / "probe/no-dataset" / name / "attempts/1"
        launch.mkdir(parents=True)
        (launch / "manifest.json").write_text(manifest)
    assert states(plain_house) == ["UNKNOWN", "UNKNOWN"]


def test_rm_leaves_the_evaluations_of_another_projects_run_of_the_same_name(plain_house: TestHouse) -> None:
    for project in ("one", "two"):
        for root in (plain_house.checkpoints, plain_house.outputs):
            (root / project / "no-dataset/session_a/attempts").mkdir(parents=True)
    plain_house.run("rm", "--run", "session_a", "--project", "one", "--yes")
    assert not (plain_house.outputs / "one/no-dataset/session_a").exists()
    assert (plain_house.outputs / "two/no-dataset/session_a").exists()


def test_the_outcome_repeats_the_manifest_that_was_launched(house: TestHouse) -> None:
    """Where nothing keeps the command from rewriting its manifest (the local engine), the outcome gives it away."""
    house.code(
        "import os\npath = os.environ['RUN_DIR'] + '/attempts/1/manifest.json'\n"
        "try:\n    open(path, 'a').write(' ')\nexcept OSError as error:\n    print(error)\n"
    )
    house.train()
    run = house.only_run()
    found = subprocess.run(["sha256sum", run / "attempts/1/manifest.json"], capture_output=True, text=True, check=True)
    intact = found.stdout.split()[0] == house.outcome(run)["manifest_sha256"]
    assert intact is (house.engine == "docker")


def test_a_root_of_somebody_elses_group(plain_house: TestHouse) -> None:
    """A scratch disk: root's, and everybody may write to it."""
    if os.getuid() != 0:
        pytest.skip("needs root to make a folder of another user's")
    scratch = plain_house.base / "scratch"
    scratch.mkdir()
    scratch.chmod(0o1777)
    for parent in plain_house.base.parents:
        if str(parent).startswith("/tmp/pytest"):
            parent.chmod(0o755)
    plain_house.base.chmod(0o755)
    done = subprocess.run(
        [reachable_python()[0], "-c", MAKE_SHARED, str(scratch)],
        cwd=plain_house.root,
        user=1234,
        group=1234,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (scratch / "a/b").stat().st_uid == 1234 and (scratch / "a/b").stat().st_mode & 0o7777 == 0o1777


MAKE_SHARED = """
import sys
from pathlib import Path
from runner.host.house import shared_folder
shared_folder(Path(sys.argv[1]), Path(sys.argv[1]) / "a" / "b")
"""


def test_a_shared_caches_files_are_copied_not_linked(tmp_path: Path) -> None:
    """What stands in a run belongs to its maker, also where the cache belongs to somebody else."""
    if os.getuid() != 0:
        pytest.skip("needs root to make a file of another user's")
    from runner.host.launch.launcher import keep

    kept = tmp_path / "cached"
    kept.write_text("x")
    os.chown(kept, 1234, 1234)
    keep(kept, tmp_path / "inputs/kept")
    assert (tmp_path / "inputs/kept").stat().st_uid == 0 and (tmp_path / "inputs/kept").read_text() == "x"


def test_a_lost_terminal_changes_nothing(house: TestHouse) -> None:
    """Nobody reads our output any more: the run is still launched, followed, stopped at its deadline and recorded."""
    house.code("import time\nprint('on', flush=True)\ntime.sleep(100)\n")
    command = house.command("train", "--project", "probe", "--engine", house.engine, "--set", "resources.timeout_s=2")
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        command, cwd=house.root, env=house.env(), stdout=writing, stderr=writing, timeout=60, check=False
    )
    os.close(writing)
    assert done.returncode not in (0, 141)
    assert house.outcome(house.only_run())["state"] == "TIMED_OUT"


def test_a_launch_that_waits_for_its_data_is_interrupted_with_it(house: TestHouse) -> None:
    """Ctrl-C while the toy set is made: both end, no run is begun, no data set is half-made."""
    folder = house.root / "datasets/birds"
    folder.mkdir(parents=True)
    (folder / "dataset.yml").write_text("image: {base: bare}\nstages: [raw, toy]\n")
    (folder / "prepare.py").write_text("import time\nprint('making', flush=True)\ntime.sleep(100)\n")
    project = house.root / "projects/probe/project.yml"
    project.write_text(project.read_text() + "dataset: birds\n")
    refused = house.run("dataset", "--dataset", "birds", "--stage", "toy", "--source", "/tmp", check=2).stderr
    assert "SOURCE= is what raw is taken from" in refused
    process = house.start("train", "--project", "probe", "--engine", house.engine, "--data", "toy")
    logs = house.outputs / "datasets/birds/prepare"
    wait_for(lambda: any("making" in path.read_text() for path in logs.glob("toy_*/logs.txt")), "the toy set is begun")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, lines_of(err)[-1]) == (130, "interrupted")
    (outcome,) = logs.glob("toy_*/launch/outcome.json")
    assert json.loads(outcome.read_text())["state"] == "INTERRUPTED"
    assert not house.runs() and not list((house.base / "datasets").glob("birds/toy"))


def test_a_bad_source_is_named_as_it_was_typed(house: TestHouse) -> None:
    """Not as it is called inside, nor by where the local engine shows it."""
    folder = house.root / "datasets/birds"
    folder.mkdir(parents=True)
    (folder / "dataset.yml").write_text("image: {base: bare}\nstages: [raw]\n")
    (folder / "prepare.py").write_text(
        "import os, sys, tarfile\nsource = os.environ['SOURCE_DIR']\n"
        "if not tarfile.is_tarfile(source):\n    sys.exit(f'error: {source}: not an archive')\n"
    )
    source = house.base / "birds.tar"
    source.write_bytes(b"no archive")
    words = ("dataset", "--dataset", "birds", "--engine", house.engine, "--stage", "raw", "--source", str(source))
    line = lines_of(house.run(*words, check=2).stderr)[-1]
    assert line.startswith(f"error: birds: raw was not made: {source}: not an archive (record: ")
