"""keras 3 on torch, silent, from the same DataLoader. It has a model of its own, with the same weights."""

import os
from collections.abc import Callable

os.environ["KERAS_BACKEND"] = "torch"

import keras
import torch
from task import LEARNING_RATE, MOMENTUM, Pairs, Task
from torch import nn


def build(task: Task) -> Callable[[int], None]:
    """A fit of n steps."""
    hidden, last = (layer for layer in task.model if isinstance(layer, nn.Linear))  # type: ignore[attr-defined]
    layers = [keras.layers.Dense(hidden.out_features, activation="relu"), keras.layers.Dense(last.out_features)]
    model = keras.Sequential([keras.Input((hidden.in_features,)), *layers])
    for ours, theirs in zip((hidden, last), layers, strict=True):
        theirs.set_weights([ours.weight.detach().numpy().T, ours.bias.detach().numpy()])

    def fit(n_steps: int) -> None:
        epochs, per_epoch = task.split(n_steps)
        model.compile(
            optimizer=keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        loader = task.loader(Pairs(task.x, task.label))
        model.fit(loader, epochs=epochs, steps_per_epoch=per_epoch, verbose=0)
        with torch.no_grad():
            for ours, theirs in zip((hidden, last), layers, strict=True):
                weight, bias = theirs.get_weights()
                ours.weight.copy_(torch.from_numpy(weight.T))
                ours.bias.copy_(torch.from_numpy(bias))

    return fit
