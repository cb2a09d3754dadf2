"""Tests of the Trainer run on one thread: the models are tiny, and forked children of a threaded torch may hang."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)
