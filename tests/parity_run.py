"""Train a network for some steps on the backend that KERAS_BACKEND names; save what it answers.

Run by test_parity.py, a process a backend: `python parity_run.py NETWORK OPTIONS STEPS OUT`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np

from tinylens import fitting
from tinylens.models import ship
from tinylens.recipe import Recipe
from tinylens.run import Run
from tinylens.testing import tiny_splits
from tinylens.training import Silent

AUGMENTED = {
    "augment.flip": "random",
    "augment.shift": 3,
    "augment.cutout": 8,
    "augment.brightness": 0.1,
    "augment.contrast": 0.2,
}


def main(network: str, options: str, steps: str, out: str) -> None:
    splits = tiny_splits((32, 32, 3), num_classes=10, count=160)
    recipe = Recipe(name="parity").override(
        {
            "model.name": network,
            "train.epochs": int(steps) // 10,
            "train.batch_size": 16,
            "train.best_weights": False,
            **AUGMENTED,
            **json.loads(options),
        }
    )
    trainer = fitting.build(splits, recipe, "float32")
    with tempfile.TemporaryDirectory() as folder:
        state = fitting.fit(trainer, Run(folder), Silent(), lambda: False)
    pictures = keras.ops.convert_to_tensor(splits.test.images)
    probabilities = keras.ops.convert_to_numpy(ship(trainer.network)(pictures))
    losses = [row["loss"] for row in state.history]
    np.savez(Path(out), probabilities=probabilities, losses=losses)


if __name__ == "__main__":
    main(*sys.argv[1:])
