"""Run folders as launches leave them, made without a launch: a real training by a process of its own, the real snapshot
of its code, a record written from the same classes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from runner.contract.config import Config, identity, resolve, snapshot
from runner.contract.jsonio import pretty_json
from runner.contract.layout import RunPaths
from runner.contract.records import EngineRecord, HostRecord, ImageRecord, MachineRecord, Manifest, to_json
from runner.contract.trainer_keys import DEFAULTS
from runner.contract.yaml12 import dump_yaml, load_yaml
from runner.host.source import exports
from runner.host.source.code import record_of
from runner.host.source.snapshot import snapshot as take_snapshot

REPO = Path(__file__).resolve().parents[2]
MODEL = """
from torch import nn

WIDTH = {width}


class Net(nn.Module):
    def __init__(self, n_features, n_classes):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(n_features, WIDTH), nn.ReLU())
        self.head = nn.Linear(WIDTH, n_classes)

    def forward(self, x):
        import projects.tiny.labels as labels  # long after the loading
        assert labels.VALUE == WIDTH
        return self.head(self.body(x))
"""
LABELS = "VALUE = {width}\n"
TRAINER = """
import importlib
import os
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import projects.tiny.labels
from projects.tiny import model
from projects.tiny.model import Net
from runner.training import AccuracyMetrics, Trainer

assert projects.tiny.labels.VALUE == model.WIDTH
assert importlib.import_module("projects.tiny.labels").VALUE == model.WIDTH
NOTE = (Path(__file__).parent / "note.txt").read_text()


class Points(Dataset):
    def __init__(self, seed):
        generator = torch.Generator().manual_seed(seed)
        self.label = torch.randint(0, 3, (40,), generator=generator)
        self.x = torch.randn(40, 6, generator=generator) + self.label[:, None]
        self.root = os.environ.get("DATASETS_DIR")

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return {"x": self.x[index], "label": self.label[index]}


class TinyTrainer(Trainer):
    def create_data(self):
        if os.environ.get("NO_DATA"):
            raise RuntimeError("the data were read")
        self.train_dataset, self.val_dataset = Points(1), Points(2)
        self.n_classes = 3
        self.train_dataloader = DataLoader(self.train_dataset, self.config.batch_size, shuffle=True)
        self.val_dataloader = DataLoader(self.val_dataset, self.config.batch_size)

    def create_model(self):
        self.model = Net(6, self.n_classes if self.config.ask_data else 3)

    def create_loss(self):
        self.loss_fn = nn.CrossEntropyLoss()

    def create_optimiser(self):
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=self.config.learning_rate)

    def create_metrics(self):
        self.train_metrics, self.val_metrics = AccuracyMetrics(), AccuracyMetrics()

    def forward_model(self, batch):
        return self.model(batch["x"])

    def forward_loss(self, batch, output):
        return self.loss_fn(output, batch["label"])

    def visualise(self, batch, output, mode):
        pass
"""
DEFAULT = "batch_size: 8\nlearning_rate: 0.1\nask_data: false\nn_iterations: 12\nval_iterations: 4\nkeep_last: 3\n"


def make_clone(folder: Path, *, width: int) -> Path:
    """A clone with one project, whose model is `width` wide."""
    project = folder / "projects" / "tiny"
    project.mkdir(parents=True)
    (folder / "runner.yml").write_text("")
    (folder / ".gitignore").write_text("__pycache__/\n")
    (project / "project.yml").write_text("base: cpu\ntrainer: projects.tiny.trainer:TinyTrainer\n")
    (project / "model.py").write_text(MODEL.format(width=width))
    (project / "labels.py").write_text(LABELS.format(width=width))
    (project / "trainer.py").write_text(TRAINER)
    (project / "note.txt").write_text(f"width {width}")
    shutil.copytree(REPO / "runner", folder / "runner", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def train_in(clone: Path, checkpoints: Path, name: str, values: dict[str, Any] | None = None) -> Path:
    """Train the clone's project; the run folder."""
    config = snapshot(resolve(load_yaml(DEFAULT), values or {}, (), tag=name, dataset=None, inherited=DEFAULTS))
    config["gpu"] = False
    run = RunPaths(checkpoints / "tiny" / "no-dataset" / f"session_box_{name}")
    launch = run.attempt(1)
    launch.folder.mkdir(parents=True)
    for folder in (run.inputs, run.checkpoints, run.tensorboard, run.debug):
        folder.mkdir()
    launch.config_json.write_bytes(pretty_json(config))
    run.config_yml.write_text(dump_yaml(config))
    _keep_source(clone, run, config)
    environment = {
        **os.environ,
        "RUN_DIR": str(run.folder),
        "RUNNER_CONFIG": str(launch.config_json),
        "PYTHONPATH": str(clone),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    subprocess.run(
        [sys.executable, "-m", "runner.training", "train", "projects.tiny.trainer:TinyTrainer"],
        cwd=clone,
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return run.folder


def _keep_source(clone: Path, run: RunPaths, config: dict[str, Any]) -> None:
    cache = clone.parent / "cache"
    source = take_snapshot(clone, cache, project="tiny")
    exports.place_archive(source.tree, cache, run.inputs / "source.tar")
    (run.inputs / "project.yml").write_bytes((clone / "projects/tiny/project.yml").read_bytes())
    manifest = Manifest(
        kind="train",
        run=run.folder.name,
        attempt=1,
        project="tiny",
        dataset=None,
        tag=config["tag"],
        number=1,
        created="2026-01-31T12:00:00+00:00",
        mode="prod",
        command=("python",),
        config_sha256=identity(Config(config)),
        files={},
        source=record_of(source),
        image=ImageRecord(id="none"),
        data=(),
        environment={},
        resources={},
        network=False,
        mounts=(),
        engine=EngineRecord(kind="local", id="x", boot_id="", host="box", version="1"),
        machine=MachineRecord(
            name="box", cpu="", cpu_capability="", cores=1, memory_bytes=1, kernel="", system="", gpus=()
        ),
        supervisor_sha256="",
        runner_version="0",
        reproducible=True,
        not_reproducible_because=(),
        host=HostRecord(user="me", uid=0, gid=0, root="", folder="", mounts={}, argv=()),
    )
    run.attempt(1).manifest.write_text(json.dumps(to_json(manifest)))
