"""How fast training steps are, and how much of the machine's matrix rate they reach.

Each contender is a recipe on random images of one shape; it is built and trained by
`tinylens.training.loop`, as `tinylens train` does, in a process of its own. The rate is that of the
median step, the first ones dropped. Its share is of the best rate that a bare matrix product was
measured to have in the same arithmetic, in the same run.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import machine
from tinylens import backend as backends
from tinylens.data.dataset import Dataset, Splits
from tinylens.progress import ProgressReporter
from tinylens.recipe import Recipe
from tinylens.run import Run

if TYPE_CHECKING:
    from tinylens.progress import StepProgress

IMAGES = 50_000  # as many as in the sets that people train on: a gather meets real cache misses
DROPPED_CALLS = 5  # compilation, and memory that is asked for the first time
LEAST_CALLS = 10


@dataclass(frozen=True)
class Subject:
    """A recipe on images of one shape.

    Attributes:
        recipe: the name of a built-in recipe.
        image_shape: height, width, channels.
        options: changes to the recipe, as `Recipe.override` takes them.
        deterministic: whether the same command gives the same bits, as `tinylens train` has it.
        by_fit: whether Keras's `fit` calls every step, also where one call could take many.
    """

    recipe: str
    image_shape: tuple[int, int, int]
    options: tuple[tuple[str, Any], ...] = ()
    deterministic: bool = True
    by_fit: bool = False


SUBJECTS = {  # extend here: a name for the table, a recipe, a shape
    "classic, grey 28": Subject("classic", (28, 28, 1)),
    "classic-augmented, colour 32": Subject("classic-augmented", (32, 32, 3)),
    "fast, grey 28": Subject("fast", (28, 28, 1)),
    "fast, colour 32": Subject("fast", (32, 32, 3)),
    "fast with ReLU alone, colour 32": Subject(
        "fast", (32, 32, 3), (("model.options.smooth_from", 3),)
    ),
    "classic-augmented, --no-deterministic": Subject(
        "classic-augmented", (32, 32, 3), deterministic=False
    ),
}


if machine.GPU.exists():
    SUBJECTS["fast, colour 32, a call a step"] = Subject("fast", (32, 32, 3), by_fit=True)
PEER = "airbench94 in PyTorch, colour 32"  # trained by benchmarks/airbench94_muon.py


class StepTimes(ProgressReporter):
    """A reporter that notes when how many steps were done, and when enough was seen."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.seen: list[tuple[float, int]] = []  # a call may take many steps

    def step(self, progress: StepProgress) -> None:
        """Note the time."""
        self.seen.append((time.perf_counter(), progress.epoch * progress.steps + progress.step))

    def enough(self) -> bool:
        """Return whether the steps that count have taken the seconds that were asked for."""
        counted = self.seen[DROPPED_CALLS:]
        return len(counted) > LEAST_CALLS and counted[-1][0] - counted[0][0] > self.seconds

    def steps(self) -> int:
        """Return how many steps count."""
        return self.seen[-1][1] - self.seen[DROPPED_CALLS - 1][1]

    def counted_seconds(self) -> float:
        """Return how long they took."""
        return self.seen[-1][0] - self.seen[DROPPED_CALLS - 1][0]

    def seconds_a_step(self) -> list[float]:
        """Return how long a step of each call took, without the first calls."""
        seconds, steps = np.diff(self.seen[DROPPED_CALLS - 1 :], axis=0).T
        return (seconds / steps).tolist()


def measure(subject: Subject, seconds: float, backend: str | None) -> dict[str, Any]:
    """Train for some seconds; return the rate, and the operations an image takes."""
    choice = backends.activate(backend)
    from tinylens.models.flops import training_flops
    from tinylens.training import trainer as compiling
    from tinylens.training.loop import fit

    if subject.deterministic and choice.name == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    # smaller images in the first epochs would be other steps than those that are counted
    whole_images = {"train.progressive_resize_scale": 1.0}
    recipe = Recipe.load(subject.recipe).override(whole_images | dict(subject.options))
    precision = backends.precision(recipe.train.precision, choice.name)
    trainer = compiling.build(_random_splits(subject.image_shape), recipe, precision)
    if subject.by_fit:
        trainer = replace(trainer, loops={})
    reporter = StepTimes(seconds)
    with tempfile.TemporaryDirectory() as folder:
        fit(trainer, Run(Path(folder)), reporter, reporter.enough)
    taken, steps, batch = reporter.seconds_a_step(), reporter.steps(), trainer.order.batch_size
    rate = batch / statistics.median(taken)
    flops = training_flops(trainer.network)
    return {
        "backend": choice.name,
        "precision": precision,
        "batch_size": batch,
        "steps": steps,
        "training_flops": flops,
        "images_per_second": round(rate, 1),
        "images_per_second_mean": round(batch * steps / reporter.counted_seconds(), 1),
        "gflops": round(rate * flops / 1e9, 1),
    }


def _random_splits(image_shape: tuple[int, int, int], classes: int = 10) -> Splits:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (IMAGES, *image_shape), np.uint8)
    labels = random.integers(0, classes, IMAGES)
    names = tuple(str(label) for label in range(classes))
    train = Dataset(images, labels, names, source="random images")
    return Splits(train, None, train.subset(range(classes)))


def compare(names: list[str], rounds: int, seconds: float, backend: str | None) -> dict[str, Any]:
    """Measure every subject in turn, and the matrix product before and after them."""
    contenders = [
        machine.Contender(
            name, [sys.executable, __file__, "--measure", name, str(seconds), backend or ""]
        )
        for name in names
    ]
    peak_seconds = seconds / 6
    peaks = {dtype: machine.matrix_peak(dtype, peak_seconds) for dtype in ("float32", "bfloat16")}
    turns = machine.take_turns(contenders, rounds)
    for dtype, before in peaks.items():
        peaks[dtype] = max(
            before, machine.matrix_peak(dtype, peak_seconds), key=lambda row: row["gflops"]
        )
    subjects = {name: _summary(rows, peaks) for name, rows in turns.items()}
    return {"peaks": peaks, "subjects": subjects}


def _summary(rows: list[dict[str, Any]], peaks: dict[str, dict[str, Any]]) -> dict[str, Any]:
    gflops = [row["gflops"] for row in rows]
    share = machine.ratio(gflops, [peaks[row["precision"]]["gflops"] for row in rows])
    share_of_bfloat16 = machine.ratio(gflops, [peaks["bfloat16"]["gflops"]] * len(rows))
    rates = [row["images_per_second"] for row in rows]
    return {
        **{key: rows[0][key] for key in ("backend", "precision", "batch_size", "training_flops")},
        "images_per_second": {
            "median": statistics.median(rates),
            "low": min(rates),
            "high": max(rates),
        },
        "share_of_own_peak": share,
        "share_of_bfloat16_peak": share_of_bfloat16,
        "rounds": rows,
    }


def show(results: dict[str, Any]) -> None:
    for dtype, peak in results["peaks"].items():
        print(
            f"{dtype} matrix product: {peak['gflops']:,.0f} GFLOP/s "
            f"({peak['library']}, {peak['size']} square)"
        )
    rows = [
        (
            name,
            f"{row['batch_size']}",
            row["precision"],
            f"{row['training_flops'] / 1e6:,.0f}",
            f"{row['images_per_second']['median']:,.0f}",
            f"{row['images_per_second']['low']:,.0f}–{row['images_per_second']['high']:,.0f}",
            f"{row['share_of_own_peak'].median:.1%}",
            f"{row['share_of_bfloat16_peak'].median:.1%}",
        )
        for name, row in results["subjects"].items()
    ]
    headings = ("subject", "batch", "arithmetic", "MFLOP/img", "img/s", "range")
    machine.print_table((*headings, "of its peak", "of bf16 peak"), rows)


def main() -> None:
    parser = machine.parser(__doc__)
    parser.add_argument(
        "--subject", action="append", choices=[*SUBJECTS, PEER], help="one of the table"
    )
    parser.add_argument("--backend", choices=backends.BACKENDS)
    parser.add_argument("--measure", nargs=3, help="for its own use: NAME SECONDS BACKEND")
    arguments = parser.parse_args()
    if arguments.measure:
        name, seconds, backend = arguments.measure
        if name == PEER:
            import airbench94_muon

            print(json.dumps(airbench94_muon.step_rate(float(seconds))))
        else:
            print(json.dumps(measure(SUBJECTS[name], float(seconds), backend or None)))
        return
    described = machine.describe()
    rounds, seconds = (2, 3.0) if arguments.quick else (5, 12.0)
    names = arguments.subject or [*SUBJECTS, PEER]
    results = {"machine": described, **compare(names, rounds, seconds, arguments.backend)}
    show(results)
    print(machine.write_results("step", results).relative_to(machine.ROOT))


if __name__ == "__main__":
    main()
