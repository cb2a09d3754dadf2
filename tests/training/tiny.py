"""The smallest project that uses everything: noise in the data, dropout in the model, a schedule."""

import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from runner.training import AccuracyMetrics, Trainer

N_FEATURES, N_CLASSES = 6, 3


def base_config(**changes: Any) -> dict[str, Any]:
    """A training of 24 steps, 7 of them an epoch."""
    return {
        "seed": 5,
        "tag": "tiny",
        "gpu": False,
        "batch_size": 8,
        "n_iterations": 24,
        "print_iterations": 2,
        "val_iterations": 6,
        "vis_iterations": 6,
        "metric_iterations": 3,
        "learning_rate": 0.05,
        "n_workers": 0,
        "schedule": "none",
        **changes,
    }


class NoisyDataset(Dataset[dict[str, Any]]):
    """Examples that all three random generators have changed."""

    def __init__(self, n: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.label = torch.randint(0, N_CLASSES, (n,), generator=generator)
        self.x = torch.randn(n, N_FEATURES, generator=generator) + self.label[:, None]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Any]:
        noise = random.gauss(0, 0.1) + float(np.random.randn()) * 0.1
        return {
            "x": self.x[index] + noise + 0.1 * torch.randn(N_FEATURES),
            "label": self.label[index],
            "name": f"example {index}",
        }


class TinyTrainer(Trainer):
    """Three classes of noise."""

    def create_data(self) -> None:
        self.train_dataset, self.val_dataset = NoisyDataset(53, 1), NoisyDataset(19, 2)
        options: dict[str, Any] = {"batch_size": self.config.batch_size, "num_workers": self.config.n_workers}
        self.train_dataloader = DataLoader(self.train_dataset, shuffle=True, **options)
        self.val_dataloader = DataLoader(self.val_dataset, **options)

    def create_model(self) -> None:
        self.model = nn.Sequential(
            nn.Linear(N_FEATURES, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, N_CLASSES)
        )

    def create_loss(self) -> None:
        self.loss_fn = nn.CrossEntropyLoss()

    def create_optimiser(self) -> None:
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=self.config.learning_rate)

    def create_scheduler(self) -> None:
        if self.config.schedule == "cosine":
            self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, self.schedule_length())
        elif self.config.schedule == "step":
            self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimiser, 5, 0.5)
        elif self.config.schedule == "plateau":
            self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimiser, "max", patience=0)

    def schedule_length(self) -> int:
        """What a cosine ends at."""
        return int(self.config.n_iterations)

    def create_metrics(self) -> None:
        self.train_metrics, self.val_metrics = AccuracyMetrics(), AccuracyMetrics()

    def forward_model(self, batch: Any) -> Any:
        return self.model(batch["x"])

    def forward_loss(self, batch: Any, output: Any) -> Any:
        return self.loss_fn(output, batch["label"])

    def visualise(self, batch: Any, output: Any, mode: str) -> None:
        self.tensorboard.add_histogram(mode + "/output", output, self.global_step)


class HeavyTrainer(TinyTrainer):
    """Its checkpoints take longer than its steps, so that most kills fall into the writing of one."""

    def create_model(self) -> None:
        super().create_model()
        self.ballast = nn.Linear(1000, 700)
        self.register_state("ballast", self.ballast)

    def train_step(self) -> Any:
        with torch.no_grad():
            self.ballast.weight.mul_(0.99)
        return super().train_step()


class StoppedInValidation(TinyTrainer):
    """Its first process gets a SIGTERM in the validation after step 12, once, if its folder holds a file `stop`."""

    def visualise(self, batch: Any, output: Any, mode: str) -> None:
        stop = Path(self.session_name) / "stop"
        if mode == "val" and self.global_step == 12 and stop.exists():
            stop.unlink()
            os.kill(os.getpid(), signal.SIGTERM)
