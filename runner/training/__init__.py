"""The PyTorch library for projects: inherit from `Trainer`, write the research."""

from runner.training.data import ArrayDataset, BatchLoader
from runner.training.interrupts import Interrupted
from runner.training.loading import load_run
from runner.training.metrics import AccuracyMetrics, MeanMetrics, Metrics
from runner.training.spec import largest_batch, overfit_one_batch, print_model_spec
from runner.training.trainer import Trainer

__all__ = [
    "AccuracyMetrics",
    "ArrayDataset",
    "BatchLoader",
    "Interrupted",
    "MeanMetrics",
    "Metrics",
    "Trainer",
    "largest_batch",
    "load_run",
    "overfit_one_batch",
    "print_model_spec",
]
