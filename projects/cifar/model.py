"""A small convolutional network for images of 32 x 32."""

import torch
from torch import Tensor, nn


class CifarModel(nn.Module):
    """Three blocks that halve the picture and double the channels, then one average and one linear layer."""

    mean: Tensor
    std: Tensor

    def __init__(self, n_classes: int = 10, width: int = 32) -> None:
        super().__init__()
        # Per channel, over the authors' 50,000 training images, on the scale 0..1.
        self.register_buffer("mean", torch.tensor([0.4914, 0.4822, 0.4465]).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.2470, 0.2435, 0.2616]).reshape(3, 1, 1), persistent=False)
        self.features = nn.Sequential(
            _block(3, width),
            _block(width, 2 * width),
            _block(2 * width, 4 * width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.classifier = nn.Linear(4 * width, n_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Scores before softmax, (batch, classes), of images (batch, 3, 32, 32): uint8, or floats on the scale 0..1."""
        pixels = image.float() / 255 if image.dtype == torch.uint8 else image
        scores: Tensor = self.classifier(self.features((pixels - self.mean) / self.std))
        return scores


def _block(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, padding=1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
