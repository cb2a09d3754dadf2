"""A launch from end to end, on both engines: what a user types, what is on disk afterwards, what is recorded."""

import json
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

from runner.contract.names import session_name
from runner.host.machine import machine_name
from tests.e2e.conftest import CHECKPOINT, TestHouse, interrupt, read_or_empty, wait_for


def test_a_run_folder_holds_what_was_promised(house: TestHouse) -> None:
    house.code(CHECKPOINT + "print('hello from inside')\n")
    done = house.train("--config", "fast", "--set", "learning_rate=1e-3 model.depth=4", "--tag", "first try")
    run = house.only_run()
    assert "hello from inside" in done.stdout
    assert str(run) in done.stderr and "0.2500" in done.stderr and f"make eval RUN={run.name}" in done.stderr
    assert run.name.endswith("_first-try") and run.parent == house.checkpoints / "probe" / "no-dataset"
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert {
        "attempts/1/manifest.json",
        "attempts/1/config.yml",
        "attempts/1/config.json",
        "attempts/1/exit.json",
        "attempts/1/outcome.json",
        "config.yml",
        "logs.txt",
        "metrics.jsonl",
        "checkpoints/best",
        "inputs/source.tar",
        "inputs/project.yml",
        "inputs/requirements/bare.txt",
    } <= names
    config = json.loads((run / "attempts/1/config.json").read_text())
    assert (config["learning_rate"], config["steps"], config["model"]["depth"], config["tag"]) == (
        1e-3,
        1,
        4,
        "first try",
    )
    assert isinstance(config["resources"]["threads"], int)
    assert (run / "logs.txt").read_text() == "hello from inside\n"
    outcome, manifest = house.outcome(run), house.manifest(run)
    assert (outcome["state"], outcome["exit_code"], outcome["score"], outcome["step"]) == ("COMPLETED", 0, 0.25, 3)
    assert manifest["engine"]["kind"] == house.engine and manifest["number"] == 1 and manifest["reproducible"]
    assert manifest["overrides"] == ["learning_rate=1e-3", "model.depth=4"]


def test_files_belong_to_the_caller_with_normal_modes(house: TestHouse) -> None:
    house.code(
        CHECKPOINT
        + "import os\nos.makedirs(os.environ['RUN_DIR'] + '/debug/a'); open(os.environ['RUN_DIR'] + '/debug/a/b', 'w')\n"
    )
    house.train()
    for path in house.only_run().rglob("*"):
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (os.getuid(), os.getgid()), path
        assert status.st_mode & 0o777 in (0o755, 0o644), f"{path}: {status.st_mode:o}"


def test_the_callers_umask_holds_for_the_whole_run(house: TestHouse) -> None:
    """Also for what is linked from the cache, where everything may be read by all."""
    house.code(CHECKPOINT)
    before = os.umask(0o077)
    try:
        house.train()
    finally:
        os.umask(before)
    for path in (house.only_run(), *house.only_run().rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, f"{path}: {path.stat().st_mode:o}"


def test_the_exit_code_is_the_commands_own(house: TestHouse) -> None:
    house.code("import sys\nprint('about to fail'); sys.exit(3)\n")
    house.train(check=3)
    run = house.only_run()
    assert house.outcome(run)["state"] == "FAILED"
    page = house.run("show", "--run", "latest").stdout
    assert "FAILED (exit code 3" in page and "| about to fail" in page


def test_a_traceback_is_in_the_log(house: TestHouse) -> None:
    house.code("raise ValueError('the reason')\n")
    house.train(check=1)
    text = (house.only_run() / "logs.txt").read_text()
    assert "Traceback (most recent call last)" in text and text.endswith("ValueError: the reason\n")


SLOW = """\
import os, signal, sys, time
def ask(number, frame):
    print("asked by", signal.Signals(number).name, flush=True)
    {then}
signal.signal(signal.SIGINT, ask); signal.signal(signal.SIGTERM, ask)
print("ready", flush=True)
time.sleep(100)
time.sleep(100)
"""


def test_ctrl_c_once_asks_and_the_run_is_interrupted(house: TestHouse) -> None:
    house.code(SLOW.format(then="sys.exit(130)"))
    process = house.start("train", "--project", "probe", "--engine", house.engine)
    wait_for(lambda: house.runs() and "ready" in read_or_empty(house.only_run() / "logs.txt"), "the run is ready")
    interrupt(process)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "asked by SIGINT" in out and "asked the run to stop" in err
    outcome = house.outcome(house.only_run())
    assert outcome["state"] == "INTERRUPTED" and "SIGINT" in outcome["reason"]


def test_ctrl_c_twice_kills(house: TestHouse) -> None:
    house.code(SLOW.format(then="pass"))
    process = house.start("train", "--project", "probe", "--engine", house.engine)
    wait_for(lambda: house.runs() and "ready" in read_or_empty(house.only_run() / "logs.txt"), "the run is ready")
    interrupt(process)
    wait_for(lambda: "asked by" in read_or_empty(house.only_run() / "logs.txt"), "the first was passed on")
    interrupt(process)
    process.communicate(timeout=60)
    assert process.returncode == 137
    assert house.outcome(house.only_run())["state"] == "KILLED"


def test_the_grace_time_ends_in_a_kill(house: TestHouse) -> None:
    house.code(SLOW.format(then="pass"))
    process = house.start("train", "--project", "probe", "--engine", house.engine, "--set", "resources.grace_s=1")
    wait_for(lambda: house.runs() and "ready" in read_or_empty(house.only_run() / "logs.txt"), "the run is ready")
    interrupt(process, signal.SIGTERM)
    process.communicate(timeout=60)
    assert house.outcome(house.only_run())["state"] == "KILLED"


def test_a_deadline_stops_the_run(house: TestHouse) -> None:
    house.code(SLOW.format(then="sys.exit(1)"))
    house.train("--set", "resources.timeout_s=2", check=1)
    assert house.outcome(house.only_run())["state"] == "TIMED_OUT"
    house.code(SLOW.format(then="sys.exit(0)"))
    house.train("--set", "resources.timeout_s=2", check=1)


WAITS = """\
import os, time
print("ready", flush=True)
while not os.path.exists(os.environ["RUN_DIR"] + "/debug/go"):
    time.sleep(0.05)
print("went on")
"""


def test_a_dead_launcher_loses_nothing(house: TestHouse) -> None:
    """The launcher is killed; the run goes on, ends, and the next look at it records how."""
    house.code(WAITS)
    process = house.start("train", "--project", "probe", "--engine", house.engine)
    wait_for(lambda: house.runs() and "ready" in read_or_empty(house.only_run() / "logs.txt"), "the run is ready")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    run = house.only_run()
    assert json.loads(house.run("ls", "--json").stdout)[0]["state"] == "RUNNING"
    (run / "debug" / "go").touch()
    wait_for(lambda: "went on" in read_or_empty(run / "logs.txt"), "the run goes on")
    wait_for(lambda: json.loads(house.run("ls", "--json").stdout)[0]["state"] == "COMPLETED", "its end is seen")
    outcome = house.outcome(run)
    assert (outcome["recorded_by"], outcome["exit_code"]) == ("reconcile", 0)


def test_detached_returns_at_once_and_is_recorded(house: TestHouse) -> None:
    house.code("import time\ntime.sleep(1.5); print('done')\n")
    done = house.train("--detach")
    run = Path(done.stdout.strip())
    assert run == house.only_run() and not (run / "attempts/1/outcome.json").exists()
    wait_for((run / "attempts/1/outcome.json").exists, "the end is recorded by the follower")
    assert (house.outcome(run)["state"], house.outcome(run)["recorded_by"]) == ("COMPLETED", "follow")


def test_stop_ends_a_detached_run(house: TestHouse) -> None:
    house.code(SLOW.format(then="sys.exit(143)"))
    house.train("--detach")
    wait_for(lambda: "ready" in read_or_empty(house.only_run() / "logs.txt"), "the run is ready")
    assert house.run("stop", "--run", "latest").stdout.endswith("INTERRUPTED\n")


def test_two_launches_in_one_second_get_two_folders(house: TestHouse) -> None:
    processes = [house.start("train", "--project", "probe", "--engine", house.engine) for _ in range(3)]
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    runs = house.runs()
    assert len(runs) == 3
    assert sorted(house.manifest(run)["number"] for run in runs) == [1, 2, 3]


def test_runs_of_two_projects_in_one_second_get_two_names(house: TestHouse) -> None:
    """A name is a container's too, and what people type as RUN=."""
    now = datetime.now(UTC)
    for second in range(20):
        name = session_name(machine_name(), now + timedelta(seconds=second), "default")
        (house.checkpoints / "other/no-dataset" / name).mkdir(parents=True)
    house.train()
    (run,) = house.checkpoints.glob("probe/*/session_*")
    assert run.name.endswith("_default_2")


def test_typed_text_stays_text(house: TestHouse) -> None:
    """Nothing that a user types is ever run by a shell, and a tag may hold anything that fits on a line."""
    mark = house.base / "owned"
    tag, override = f'x"; touch {mark}; "', f"model.file=$(touch {mark})"
    house.train("--tag", tag, "--set", f"'{override}'")
    run = house.only_run()
    config = json.loads((run / "attempts/1/config.json").read_text())
    assert (config["tag"], config["model"]["file"]) == (tag, f"$(touch {mark})")
    assert not mark.exists()


def test_the_code_is_a_snapshot(house: TestHouse) -> None:
    """A dirty tree with an untracked file runs exactly as it stands, and later edits never reach the run."""
    house.code(
        "import pathlib\nfrom projects.probe import extra\nprint(extra.VALUE, pathlib.Path('notes with space.txt').read_bytes())\n"
    )
    house.code("VALUE = 41\n", "extra.py")
    (house.root / "notes with space.txt").write_bytes(b"a\r\nb\n")
    before = {path: path.stat().st_mtime_ns for path in (house.root / ".git").rglob("*")}
    done = house.train()
    assert "41 b'a\\r\\nb\\n'" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in (house.root / ".git").rglob("*")} == before
    source = house.manifest(house.only_run())["source"]
    assert set(source["dirty"]) == {"projects/probe/train.py", "projects/probe/extra.py", "notes with space.txt"}
    assert source["commit"] == house.git("rev-parse", "HEAD").strip() and source["branch"] == "main"


def test_evaluation_uses_the_runs_own_code_and_writes_only_outputs(house: TestHouse) -> None:
    house.code(CHECKPOINT)
    house.train("--set", "learning_rate=0.5")
    run = house.only_run()
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    house.code("raise SystemExit('the working tree must not be used')\n", "evaluate.py")
    (house.root / "projects/probe/project.yml").unlink()
    done = house.run("eval", "--run", "latest", "--split", "test")
    (folder,) = house.outputs.glob(f"probe/no-dataset/{run.name}/test_best_*")
    seen = json.loads((folder / "seen.json").read_text())
    assert seen["weights"] == "weights" and seen["lr"] == 0.5 and "test" in seen["argv"]
    assert json.loads((folder / "launch/outcome.json").read_text())["score"] == 0.5
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert str(folder) in done.stderr
    manifest = json.loads((folder / "launch/manifest.json").read_text())
    assert (manifest["parent"], manifest["checkpoint"], manifest["split"]) == (run.name, "step_00000003.pt", "test")


def test_a_run_can_be_rebuilt_when_its_clone_is_gone(house: TestHouse) -> None:
    """From inputs/ alone: another house evaluates the run after the first one was deleted and the cache emptied of it."""
    import shutil

    from tests.e2e.conftest import make_house

    house.code(CHECKPOINT)
    house.train()
    run = house.only_run()
    shutil.rmtree(house.root)
    other = make_house(house.base, Path(house.environment["CACHE_ROOT"]), house.engine, "other")
    shutil.rmtree(other.root / "projects" / "probe")
    other.run("eval", "--run", str(run))
    assert list(house.outputs.glob(f"probe/no-dataset/{run.name}/val_best_*/seen.json"))


def test_dry_runs_of_what_goes_on_from_a_run_change_nothing(house: TestHouse, tmp_path: Path) -> None:
    """Not even in the cache: no source is exported, no environment made."""
    project = house.root / "projects/probe/project.yml"
    project.write_text(project.read_text() + "resume: [python, -m, projects.probe.train]\n")
    house.code(CHECKPOINT + "raise SystemExit(7)\n")
    house.train(check=7)
    (house.only_run() / "attempts/notes.txt").touch()
    cache, house.environment["CACHE_ROOT"] = house.environment["CACHE_ROOT"], str(tmp_path / "empty")
    assert "would evaluate" in house.run("eval", "--dry-run").stdout
    assert "would train" in house.run("resume", "--dry-run").stdout
    assert "would train" in house.train("--dry-run").stdout
    written = {path.relative_to(tmp_path / "empty").parts[0] for path in (tmp_path / "empty").rglob("*")}
    assert written <= {"accounts"}  # which the printed line mounts, so that it can be pasted
    house.environment["CACHE_ROOT"] = cache
    assert "FAILED" in house.run("show", "--run", "latest").stdout


def test_a_detached_launch_prints_one_json_value(house: TestHouse) -> None:
    told = json.loads(house.train("--detach", "--json").stdout)
    run = house.only_run()
    assert told == {"folder": str(run)}
    wait_for((run / "attempts/1/outcome.json").exists, "its end is recorded")


def test_rm_deletes_a_run_and_its_evaluations(house: TestHouse) -> None:
    house.code(CHECKPOINT)
    house.train()
    house.run("eval")
    refused = house.run("rm", "--run", "latest", check=2)
    assert "YES=1" in refused.stderr and house.runs()
    house.run("rm", "--run", "latest", "--yes")
    assert not house.runs() and not list(house.outputs.glob("probe/*/session_*"))


def test_host_paths_stand_only_under_host(house: TestHouse) -> None:
    house.code(CHECKPOINT)
    house.train()
    run = house.only_run()
    for path in run.rglob("*"):
        if path.suffix not in (".json", ".yml", ".jsonl") or "inputs" in path.parts:
            continue
        text = path.read_text()
        if path.name == "manifest.json":
            manifest = json.loads(text)
            manifest.pop("host")
            text = json.dumps(manifest)
        assert str(house.base) not in text, path


FORGED = """
import json, os, signal
run = os.environ["RUN_DIR"]
with open(f"{run}/attempts/{os.environ['RUNNER_ATTEMPT']}/exit.json", "w") as handle:
    json.dump({"exit_code": 0, "received": 7, "started": 5, "finished": "x"}, handle)
with open(f"{run}/checkpoints/a_1.pt", "w"), open(f"{run}/checkpoints/a_1.json", "w") as handle:
    handle.write('{"score": NaN, "step": 1}')
with open(f"{run}/checkpoints/best", "w") as handle:
    handle.write("a_1.pt")
os.mkfifo(f"{run}/checkpoints/latest")
os.kill(os.getppid(), signal.SIGKILL)  # the supervisor
"""


def test_whatever_a_command_leaves_its_end_is_recorded(house: TestHouse) -> None:
    """It may forge exit.json, end its supervisor, and leave NaN and pipes: the engine's word stands, and lists work."""
    house.code(FORGED)
    house.train(check=137)
    outcome = house.outcome(house.only_run())
    assert (outcome["state"], outcome["exit_code"], outcome["score"], outcome["step"]) == ("KILLED", 137, None, None)
    assert json.loads(house.run("ls", "--json").stdout)[0]["state"] == "KILLED"
    assert "KILLED" in house.run("show", "--run", "latest").stdout


def test_a_run_is_named_in_many_ways(house: TestHouse) -> None:
    """RUN= is a path, a path below the root, a name, a part of one, latest or <tag>/<n>; the root may be a link."""
    project = house.root / "projects/probe/project.yml"
    project.write_text(project.read_text() + "resume: [python, -m, projects.probe.train]\n")
    house.code("raise SystemExit(7)\n")
    (house.base / "disk").mkdir()
    house.checkpoints.symlink_to("disk")
    house.train(check=7)
    run = house.only_run()
    names = (str(run), str(run.resolve()), str(run.relative_to(house.checkpoints)), run.name, run.name[8:-3])
    for attempt, name in enumerate((*names, "latest", "default/1"), start=2):
        house.run("resume", "--run", name, check=7)
        assert house.outcome(run, attempt)["state"] == "FAILED"
    elsewhere = house.base / "elsewhere/probe/no-dataset"
    elsewhere.mkdir(parents=True)
    run.rename(elsewhere / "moved")
    house.run("resume", "--run", str(elsewhere / "moved"), check=7)
    assert house.outcome(elsewhere / "moved", 9)["state"] == "FAILED"


def test_a_manifest_that_was_changed_is_called_so(house: TestHouse) -> None:
    """The outcome repeats the hash of the manifest as it was launched."""
    house.train()
    run = house.only_run()
    assert "WARNING" not in house.run("show", "--run", "latest").stdout
    manifest = run / "attempts/1/manifest.json"
    manifest.write_text(manifest.read_text().replace('"mode": "prod"', '"mode": "dev"'))
    assert "manifest.json is not the one that was launched" in house.run("show", "--run", "latest").stdout


def test_a_time_limit_holds_though_the_launcher_died(house: TestHouse) -> None:
    """It is kept inside: SIGTERM when it is over, SIGKILL when the grace time is over too."""
    house.code(SLOW.format(then="pass"))
    process = house.start(
        "train", "--project", "probe", "--engine", house.engine, "--set", "resources.timeout_s=3 resources.grace_s=1"
    )
    wait_for(lambda: house.runs() and "ready" in read_or_empty(house.only_run() / "logs.txt"), "the run is ready")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    wait_for(lambda: json.loads(house.run("ls", "--json").stdout)[0]["state"] == "TIMED_OUT", "its end is seen")
    assert "asked by SIGTERM" in read_or_empty(house.only_run() / "logs.txt")
    assert house.outcome(house.only_run())["exit_code"] == 137
