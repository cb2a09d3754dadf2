"""Data for the Trainer: data sets that give whole batches, readers of a data set's files, and the exact stream of batches."""

from runner.training.data.batches import ArrayDataset, Batch, BatchDataset, BatchLoader, Fetched
from runner.training.data.feeds import Feed, make_feed
from runner.training.data.images import ImageDataset, dataset_root
from runner.training.data.streams import count_examples, is_stream

__all__ = [
    "ArrayDataset",
    "Batch",
    "BatchDataset",
    "BatchLoader",
    "Feed",
    "Fetched",
    "ImageDataset",
    "count_examples",
    "dataset_root",
    "is_stream",
    "make_feed",
]
