"""CIFAR-10 with the general Trainer: what this project adds is its data, its model and what to look at."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Adam
from torch.utils.data import DataLoader

from projects.cifar.data import CifarDataset
from projects.cifar.model import CifarModel
from projects.cifar.pictures import confusion_matrix, draw_confusion, draw_mistakes, write_per_class
from runner.training import AccuracyMetrics, Trainer


class CifarTrainer(Trainer):
    def create_data(self):
        # Load dataset containing input 32x32 images and corresponding labels.
        self.train_dataset = CifarDataset(mode="train", format=self.config.format)
        self.val_dataset = CifarDataset(mode="val", format=self.config.format)
        self.test_dataset = CifarDataset(mode="test", format=self.config.format)
        self.train_dataset.augment = self.config.augment

        # Create batches using DataLoader
        self.train_dataloader = DataLoader(
            self.train_dataset, self.config.batch_size, num_workers=self.config.n_workers, shuffle=True
        )
        self.val_dataloader = DataLoader(
            self.val_dataset, self.config.batch_size, num_workers=self.config.n_workers, shuffle=False
        )
        self.test_dataloader = DataLoader(
            self.test_dataset, self.config.batch_size, num_workers=self.config.n_workers, shuffle=False
        )

    def create_model(self):
        # A simple convolutional net.
        self.model = CifarModel()

    def create_loss(self):
        self.loss_fn = nn.CrossEntropyLoss()

    def create_optimiser(self):
        # Parameters of the model that are optimisable.
        parameters_with_grad = filter(lambda p: p.requires_grad, self.model.parameters())
        # Use an Adam optimiser with L2 regularisation.
        self.optimiser = Adam(parameters_with_grad, lr=self.config.learning_rate, weight_decay=self.config.weight_decay)

    def create_metrics(self):
        # Monitor the accuracy of our model (percentage of correctly classified images).
        self.train_metrics = AccuracyMetrics()
        self.val_metrics = AccuracyMetrics()

    def forward_model(self, batch):
        return self.model(batch["image"])

    def forward_loss(self, batch, output):
        return self.loss_fn(output, batch["label"])

    def visualise(self, batch, output, mode):
        # Visualise the input images to our model.
        self.tensorboard.add_images(mode + "/image", batch["image"], self.global_step)

    def write_evaluation(
        self, predictions: Mapping[str, Any], scores: Mapping[str, float], split: str, output_dir: Path
    ) -> None:
        """Beside the predictions: accuracy by class, the confusion matrix, and the surest mistakes."""
        super().write_evaluation(predictions, scores, split, output_dir)
        dataset = self.test_dataset if split == "test" else self.val_dataset
        names = dataset.schema.classes
        output, labels = predictions["output"], predictions["label"]
        matrix = confusion_matrix(labels, output.argmax(axis=1), len(names))
        images = Path(output_dir) / "images"
        images.mkdir(exist_ok=True)
        write_per_class(matrix, names, Path(output_dir) / "per_class.csv")
        draw_confusion(matrix, names, images / "confusion.png")
        draw_mistakes(dataset, output, labels, names, images / "worst_mistakes.png")
