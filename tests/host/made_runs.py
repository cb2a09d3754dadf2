"""Run folders made by hand, of real records: what `verdict` and `changes` read."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.contract.jsonio import file_sha256, pretty_json
from runner.contract.layout import LaunchPaths, RunPaths
from runner.contract.records import (
    DataRecord,
    EngineRecord,
    GpuRecord,
    HostRecord,
    ImageRecord,
    MachineRecord,
    Manifest,
    MountRecord,
    Outcome,
    SourceRecord,
    State,
    to_json,
)

GPU = GpuRecord(uuid="GPU-1", index=0, name="H200", memory_mib=141_000, driver="560.35")
CONFIG: Mapping[str, Any] = {
    "seed": 0,
    "gpu": False,
    "learning_rate": 0.1,
    "model": {"depth": 2},
    "n_workers": 0,
    "tag": "toy",
    "resources": {"threads": 2},
}


def manifest(name: str = "session_a") -> Manifest:
    """A launch of the project `probe` on a machine without GPUs."""
    return Manifest(
        kind="train",
        run=name,
        attempt=1,
        project="probe",
        dataset="tiny",
        tag="toy",
        number=1,
        created="2026-01-01T00:00:00.000+00:00",
        mode="prod",
        command=("python", "-m", "projects.probe.train"),
        config_sha256="0" * 64,
        files={},
        source=SourceRecord(tree="a" * 40, trees={"project": "b" * 40, "runner": "c" * 40, "rest": "d" * 40}),
        image=ImageRecord(id="sha256:" + "e" * 64, base="debian:bookworm", lock_sha256="f" * 64, python="3.11"),
        data=(
            DataRecord(name="tiny", variant="full", fingerprint="1" * 64, parts={"raw": "2" * 64}, files=3, bytes=9),
        ),
        environment={"PYTHONHASHSEED": "0", "RUNNER_ATTEMPT": "1", "OMP_NUM_THREADS": "2"},
        resources={"threads": 2, "processes": 1, "gpus": "auto", "shm_bytes": 1 << 30},
        network=False,
        mounts=(MountRecord(target="/workspace", read_only=True),),
        engine=EngineRecord(kind="docker", id="one", boot_id="", host="box", version="20.10"),
        machine=MachineRecord(
            name="box",
            cpu="EPYC",
            cpu_capability="AVX512",
            cores=2,
            memory_bytes=1 << 34,
            kernel="6.1",
            system="Debian",
        ),
        supervisor_sha256="3" * 64,
        runner_version="0.1.0",
        reproducible=True,
        not_reproducible_because=(),
        host=HostRecord(user="u", uid=0, gid=0, root="/", folder="/", mounts={}, argv=()),
    )


def make_run(
    root: Path,
    name: str = "session_a",
    *,
    change: Callable[[Manifest], Manifest] = lambda found: found,
    config: Mapping[str, Any] = CONFIG,
    metrics: Sequence[Mapping[str, Any]] = (),
    states: Mapping[int, str] | None = None,
    state: State = State.COMPLETED,
    trainer: bool = True,
) -> RunPaths:
    """A finished run with these metrics and checkpoints (step → state_sha256)."""
    run = RunPaths(root / name)
    launch = run.attempt(1)
    launch.folder.mkdir(parents=True)
    run.checkpoints.mkdir()
    run.inputs.mkdir()
    record = change(manifest(name))
    launch.manifest.write_bytes(pretty_json(to_json(record)))
    launch.config_json.write_text(json.dumps(config))
    write_outcome(launch, record, state)
    (run.inputs / "project.yml").write_text("trainer: a:B\n" if trainer else "train: [python, -m, a]\n")
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in metrics))
    for step, sha in (states or {}).items():
        (run.checkpoints / f"step_{step:08}.pt").write_text("weights")
        (run.checkpoints / f"step_{step:08}.json").write_text(json.dumps({"step": step, "state_sha256": sha}))
    return run


def write_outcome(launch: LaunchPaths, record: Manifest, state: State = State.COMPLETED) -> None:
    """How the launch of this manifest ended."""
    ended = dataclasses.replace(outcome(record, state), manifest_sha256=file_sha256(launch.manifest))
    launch.outcome.write_bytes(pretty_json(to_json(ended)))


def outcome(record: Manifest, state: State) -> Outcome:
    """How it ended."""
    return Outcome(
        state=state,
        exit_code=0 if state is State.COMPLETED else 1,
        reason="",
        started=None,
        finished=None,
        duration_s=1.0,
        manifest_sha256="",
        image_id=record.image.id,
        recorded_by="follow",
        run=record.run,
        attempt=1,
        kind="train",
        project=record.project,
        dataset=record.dataset,
        tag=record.tag,
        number=record.number,
        created=record.created,
    )


def line(step: int, time: float = 0.0, split: str = "train", **values: Any) -> dict[str, Any]:
    """One line of metrics.jsonl."""
    return {"step": step, "epoch": 1, "split": split, **values, "time": time}


def machine(**values: Any) -> Callable[[Manifest], Manifest]:
    """The same launch on another machine."""
    return lambda found: dataclasses.replace(found, machine=dataclasses.replace(found.machine, **values))
