"""A training to be killed: `python kill_run.py OUT` trains in that folder, or goes on there."""

from __future__ import annotations

import sys

from tinylens.progress import ProgressReporter
from tinylens.recipe import Recipe
from tinylens.training.train import train

OPTIONS = {
    "train.epochs": 12,
    "train.batch_size": 16,
    "train.ema": 0.9,
    "train.precision": "float32",
    "augment.flip": "alternating",
    "augment.shift": 2,
    # wide, so that a checkpoint of 12 MB is long in the writing
    "model.options": {"widths": [8], "dense": [512, 512], "dropout": 0.3},
}


class Telling(ProgressReporter):
    """Prints each phase and epoch, for whoever waits to kill."""

    def phase(self, name):
        print(name, flush=True)  # noqa: T201  the parent waits for it

    def epoch(self, row):
        print("epoch", int(row["epoch"]), flush=True)  # noqa: T201


def main(out: str) -> None:
    from conformance import tiny_splits

    train(
        tiny_splits((24, 24, 1), count=256),
        Recipe(name="kill").override(OPTIONS),
        out=out,
        deterministic=True,
        reporter=Telling(),
    )


if __name__ == "__main__":
    main(sys.argv[1])
