"""Train a network for 20 steps on the backend that KERAS_BACKEND names; save what it answers.

Run by test_parity.py, a process a backend: `python parity_run.py NETWORK OUT`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import keras
import numpy as np

from conformance import tiny_splits
from tinylens.models.build import ship
from tinylens.progress import ProgressReporter
from tinylens.recipe import Recipe
from tinylens.run import Run
from tinylens.training import trainer as compiling
from tinylens.training.loop import fit

RECIPE = Recipe(name="parity").override(
    {
        "augment.flip": "random",
        "augment.shift": 3,
        "augment.cutout": 8,
        "augment.brightness": 0.1,
        "augment.contrast": 0.2,
        "optimizer.learning_rate": 1e-5,
        "train.epochs": 2,
        "train.batch_size": 32,
        "train.best_weights": False,
    }
)
SHAPES = {"classic": (28, 28, 1), "resnet20": (32, 32, 3), "whitened": (32, 32, 3)}
CHANGES = {
    "whitened": {
        "model.options": {"widths": [16, 32, 32]},
        "train.progressive_resize_scale": 0.75,
        "optimizer.learning_rate": 6e-4,  # its head starts so small that less would not be seen
    }
}
WITHOUT = {  # what must make a difference, if the test is to notice that it is missing
    "classic": {"augmentation": {"augment": {}}, "dropout": {"model.options": {"dropout": 0.0}}},
    "resnet20": {"augmentation": {"augment": {}}},
    "whitened": {
        "augmentation": {"augment": {}},
        "smaller images": {"train.progressive_resize_scale": 1.0},
    },
}


def main(network: str, out: str) -> None:
    recipe = RECIPE.override({"model.name": network, **CHANGES.get(network, {})})
    shape = SHAPES[network]
    probabilities, losses = train(recipe, shape)
    without = WITHOUT[network] if keras.backend.backend() == "tensorflow" else {}
    changed = {name: train(recipe.override(changes), shape)[0] for name, changes in without.items()}
    np.savez(Path(out), probabilities=probabilities, losses=losses, **changed)


def train(recipe: Recipe, shape: tuple[int, int, int]) -> tuple[np.ndarray, list[float]]:
    """Return probabilities of the test split, and the loss of each epoch."""
    splits = tiny_splits(shape, num_classes=10, count=320)  # 10 steps an epoch
    trainer = compiling.build(splits, recipe, "float32")
    with tempfile.TemporaryDirectory() as folder:
        state = fit(trainer, Run(folder), ProgressReporter(), lambda: False)
    answers = ship(trainer.network)(keras.ops.convert_to_tensor(splits.test.images))
    return keras.ops.convert_to_numpy(answers), [row["loss"] for row in state.history]


if __name__ == "__main__":
    main(*sys.argv[1:])
