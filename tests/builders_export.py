"""A small run that was trained in earnest, with its data set as a file: what exports start from."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from conformance import tiny_splits
from tinylens.data.load import load_by
from tinylens.recipe import Recipe
from tinylens.run import Run
from tinylens.training.train import train

NAMES = ("cat", "dog", "owl", "emu")
RECIPE = Recipe.load("fast").override(
    {
        "model.options": {"widths": [8, 16, 16]},
        "train.epochs": 3,
        "train.batch_size": 40,
        "train.precision": "float32",
    }
)


def trained_run(folder: Path, recipe: Recipe = RECIPE, backend: str | None = None) -> Run:
    """Train on images in `folder`/images.npz, which is written first."""
    parts = dict(tiny_splits((16, 16, 3), 4, 240).items())
    arrays = {f"x_{name}": part.images for name, part in parts.items()}
    labels = {f"y_{name}": part.labels for name, part in parts.items()}
    path = folder / "images.npz"
    np.savez(path, class_names=np.array(NAMES), **arrays, **labels)
    data = load_by(recipe.data, path)
    return train(data, recipe, out=folder / "run", backend=backend)


def copy_of(run: Run, folder: Path) -> Run:
    """Return a run of its own for a test that writes into it."""
    shutil.copytree(run.path, folder / "run")
    return Run(folder / "run")
