"""How many trials at a time are fastest: `tinylens tune --jobs`.

The same processes as in a search train the same recipes on Fashion-MNIST at the same time, each on
its share of the processors; compared are the images a second that all of them train on together,
by the rates of their epochs, from the second one on: starting and compiling are left out.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import machine
from tinylens.data.load import load
from tinylens.recipe import Recipe
from tinylens.training.tuning.folder import Folder
from tinylens.training.tuning.jobs import Job, Places

EPOCHS, SHARE = 4, 0.2  # of train an epoch


def main() -> None:
    """Measure one, two and four at a time, there and back, for every recipe."""
    parser = machine.parser(__doc__)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--recipes", nargs="+", default=["classic", "classic-augmented", "fast"])
    requested = parser.parse_args()
    described, rows = machine.describe(), []
    with tempfile.TemporaryDirectory() as place:
        folder = Folder(Path(place))
        data = load("fashion-mnist")
        folder.write_data(data)
        for name in requested.recipes[:1] if requested.quick else requested.recipes:
            recipe = Recipe.load(name).without_search()
            for jobs in [*requested.jobs, *reversed(requested.jobs)]:
                rows.append(measure(folder, recipe, jobs))
                print(rows[-1], file=sys.stderr)
    headings = ["recipe", "at a time", "images/s together"]
    machine.print_table(headings, [list(row.values()) for row in rows])
    path = machine.write_results("tune_jobs", {"machine": described, "rows": rows})
    print(f"\nwritten: benchmarks/results/{path.name}")


def measure(folder: Folder, recipe: Recipe, jobs: int) -> dict[str, Any]:
    """Return the images a second of so many trainings side by side."""
    changes = {
        "train.epochs": EPOCHS,
        "train.epoch_share": SHARE,
        "train.hard_example_fraction": 1.0,
    }
    spec = recipe.override({**changes, "train.progressive_resize_scale": 1.0})
    settings = {"folder": str(folder.path), "backend": "tensorflow", "precision": "bfloat16"}
    together = 0.0
    with contextlib.closing(Places(settings, jobs)) as places:
        for number in range(jobs):
            places.start(Job(f"{number}", spec, None))
        left = jobs
        while left:
            heard = places.next(1.0)
            if heard is None:
                continue
            outcome = heard[1]
            if outcome["event"] != "done":
                raise RuntimeError(outcome["message"])
            rates = [row["images_per_second"] for row in outcome["history"][1:]]
            together, left = together + statistics.mean(rates), left - 1
    return {"recipe": recipe.name, "jobs": jobs, "images_a_second": round(together)}


if __name__ == "__main__":
    main()
