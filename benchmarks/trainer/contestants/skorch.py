"""skorch: NeuralNet with its default callbacks, printing off, no validation split."""

from collections.abc import Callable

import torch
from skorch import NeuralNet
from task import BATCH, LEARNING_RATE, MOMENTUM, Pairs, Task
from torch import nn
from torch.utils.data import Subset


def build(task: Task) -> Callable[[int], None]:
    """A fit of n steps."""
    pairs = Pairs(task.x, task.label)

    def fit(n_steps: int) -> None:
        epochs, per_epoch = task.split(n_steps)
        net = NeuralNet(
            task.model,
            criterion=nn.CrossEntropyLoss,
            optimizer=torch.optim.SGD,
            lr=LEARNING_RATE,
            optimizer__momentum=MOMENTUM,
            batch_size=BATCH,
            iterator_train__shuffle=task.shuffle,
            train_split=None,
            max_epochs=epochs,
            verbose=0,
        )
        whole = per_epoch * BATCH == len(pairs)
        net.fit(pairs if whole else Subset(pairs, range(per_epoch * BATCH)), y=None)

    return fit
