"""A finished run folder, made through the Run API in a moment: its figures belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tinylens.evaluation.evaluate import assemble, confused, worst_mistakes
from tinylens.recipe import Recipe
from tinylens.results import Calibration
from tinylens.run import Run, RunInfo

ANIMALS = ("cat", "dog", "owl")
PARTS = {"train": 240, "val": 60, "test": 90}


def simulated_probabilities(labels, classes, *, strength=3.0, seed=0):
    """Softmax of noise in which the true class stands out by `strength`; float32 (n, classes)."""
    logits = np.random.default_rng(seed).normal(size=(len(labels), classes))
    logits[np.arange(len(labels)), labels] += strength
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def simulated_parts(class_names=ANIMALS, sizes=PARTS, *, seed=0):
    """(probabilities, labels) by part; train is answered better than val and test."""
    classes = len(class_names)
    parts = {}
    for number, (name, size) in enumerate(sizes.items()):
        labels = np.arange(size, dtype=np.int64) % classes
        strength = 4.5 if name == "train" else 3.0
        parts[name] = (
            simulated_probabilities(labels, classes, strength=strength, seed=seed + number),
            labels,
        )
    return parts


def simulated_history(epochs=6, *, val=True):
    rows = []
    for epoch in range(1, epochs + 1):
        row = {
            "epoch": float(epoch),
            "learning_rate": 1e-3 * (1 - epoch / epochs) + 1e-5,
            "loss": 1.2 / epoch**0.8 + 0.02,
            "accuracy": 1 - 0.5 / epoch**0.9,
        }
        if val:
            row |= {"val_loss": 1.2 / epoch**0.6, "val_accuracy": 1 - 0.52 / epoch**0.7}
        rows.append(row | {"images_per_second": 4200.0 + epoch, "seconds": 12.5})
    return rows


def make_run(
    path: Path,
    *,
    class_names=ANIMALS,
    parts=None,
    test_images=None,
    history=None,
    calibration=None,
    info=None,
    recipe=None,
) -> Run:
    """Write a run folder at `path` as training leaves it, but for models and checkpoints.

    Args:
        path: the folder; made if missing.
        class_names: one name a class.
        parts: (probabilities, labels) by part; simulated when left out.
        test_images: uint8 (n, height, width, channels); drawn at random when left out.
        history: rows of history.csv; simulated when left out, and absent when [].
        calibration: of the evaluation.
        info: fields of run.json to change.
        recipe: the recipe; all at its defaults when left out.
    """
    path.mkdir(parents=True, exist_ok=True)
    run = Run(path)
    parts = simulated_parts(class_names) if parts is None else parts
    calibration = calibration or Calibration(1.31, "val" if "val" in parts else "none", 0.31, 0.29)
    run.write_recipe(recipe or Recipe(name="classic", summary="The textbook network"))
    run.write_evaluation(assemble(parts, class_names, calibration))
    run.write_predictions(_predictions(parts, test_images))
    history = simulated_history(val="val" in parts) if history is None else history
    if history:
        run.write_history(history)
    run.write_info(_info(class_names, parts, info or {}))
    return run


def _predictions(parts, test_images):
    arrays = {}
    for name, (probabilities, labels) in parts.items():
        arrays[f"{name}_probabilities"] = probabilities
        arrays[f"{name}_labels"] = labels
        arrays[f"{name}_indices"] = np.arange(len(labels))
    if "test" in parts:
        worst = worst_mistakes(*parts["test"])
        if test_images is None:
            random = np.random.default_rng(0)
            test_images = random.integers(0, 256, (len(parts["test"][1]), 12, 12, 3), np.uint8)
        arrays |= {"worst_images": test_images[worst], "worst_indices": worst}
        rows = confused(*parts["test"], test_images.shape[1:])
        arrays |= {"confused_images": test_images[rows], "confused_indices": rows}
    return arrays


def _info(class_names, parts, changes) -> RunInfo:
    fields = {
        "state": "done",
        "command": "tinylens train animals --recipe classic",
        "seed": 7,
        "backend": "tensorflow",
        "precision": "bfloat16",
        "dataset": "animals",
        "fingerprint": "5f" * 32,
        "class_names": list(class_names),
        "splits": {
            name: {"size": len(labels), "sha256": f"{len(labels):064x}"}
            for name, (_, labels) in parts.items()
        },
        "notes": ["10 % of train was carved out as val, class by class, with split seed 0"],
        "started": "2026-11-22T10:00:00Z",
        "finished": "2026-11-22T10:02:31Z",
        "seconds": {"load": 1.2, "train": 131.0, "evaluate": 6.5, "export": 4.1, "total": 142.8},
        "test_opened": [
            {"time": "2026-11-22T10:02:20Z", "command": "tinylens train animals --recipe classic"}
        ],
        "versions": {"tinylens": "0.1.0", "keras": "3.15.1", "numpy": "2.4.6", "python": "3.11.7"},
        "hardware": {"processor": "AMD EPYC 9575F", "cores": 4, "memory_gib": 16},
    }
    return RunInfo(**(fields | changes))
