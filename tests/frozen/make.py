"""Freeze a run of today: `python -m tests.frozen.make` writes tests/frozen/run_schema_<n>.tar.gz, which then never changes.

One for each schema version of the records: make it when the version is about to grow. The run holds the runner's inside code
of its day, and stopped at step 3 of 6; tests/e2e/test_frozen.py goes on from there with the host of its own day.
"""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from runner.contract.records import SCHEMA_VERSION
from tests.e2e.conftest import REPO, make_house

TRAIN = """\
import json, os, sys
from pathlib import Path
from runner.inside import report

assert Path(report.__file__).resolve().is_relative_to(Path(os.environ["WORKSPACE"]).resolve())
config, attempt = report.config(), os.environ["RUNNER_ATTEMPT"]
folder = report.run_dir() / "checkpoints"
latest = folder / "latest"
done = json.loads((folder / latest.read_text().strip()).with_suffix(".json").read_text())["step"] if latest.exists() else 0
print(f"frozen code, attempt {attempt}, from step {done}")
for step in range(done + 1, config.steps + 1):
    loss = config.learning_rate / step
    report.log(step=step, split="train", loss=loss)
    name = f"step_{step:08}"
    (folder / f"{name}.pt").write_text(repr(loss))
    (folder / f"{name}.json").write_text(json.dumps({"step": step, "score": loss}))
    for pointer in ("latest", "best"):
        (folder / pointer).write_text(f"{name}.pt\\n")
    if step == 3:
        sys.exit(7)
"""
EVALUATE = """\
import sys
from pathlib import Path
from runner.inside import report

checkpoint = Path(sys.argv[sys.argv.index("--checkpoint") + 1])
report.scores(score=float(checkpoint.read_text()))
print("frozen code evaluated", report.config().model.depth)
"""


def freeze(archive: Path) -> None:
    """Make a run and write its folder to `archive`."""
    with TemporaryDirectory() as temporary:
        house = make_house(Path(temporary), Path(temporary, "cache"), "local")
        for part in ("host", "training", "__main__.py"):
            path = house.root / "runner" / part
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in (house.root / "requirements").iterdir():
            if path.stem not in ("bare", "install", "dev"):
                path.unlink()
        house.code(TRAIN)
        house.code(EVALUATE, "evaluate.py")
        project = house.root / "projects/probe/project.yml"
        project.write_text(project.read_text() + "resume: [python, -m, projects.probe.train]\n")
        house.git("add", "-A")
        house.git("commit", "-q", "-m", "frozen")
        words = (
            "train",
            "--project",
            "probe",
            "--engine",
            "local",
            "--tag",
            "frozen",
            "--set",
            "steps=6 model.depth=4",
        )
        command = [sys.executable, "-P", "-m", "runner", *words]  # -P: this checkout's host, not the house's
        done = subprocess.run(command, cwd=house.root, env={**house.env(), "PYTHONPATH": str(REPO)}, check=False)
        assert done.returncode == 7
        with tarfile.open(archive, "w:gz", compresslevel=9) as tar:
            tar.add(house.only_run(), arcname=house.only_run().name)


if __name__ == "__main__":
    os.umask(0o022)
    freeze(Path(__file__).with_name(f"run_schema_{SCHEMA_VERSION}.tar.gz"))
