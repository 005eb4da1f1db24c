"""Time budget (`--budget`): the network and the epochs that fit into a time.

A probe times training steps of the recipe's network and of narrower and wider ones; the widest for
which enough epochs are left is taken. What is written here about accuracy was measured: see
benchmarks/budget.py.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tinylens.data.dataset import Splits
from tinylens.errors import RecipeError
from tinylens.evaluation import out_of_distribution
from tinylens.models.build import defaults, ship
from tinylens.recipe import Recipe
from tinylens.training import trainer as compiling
from tinylens.training.curriculum import Curriculum

if TYPE_CHECKING:
    from tinylens.progress import ProgressReporter

SHARES = (0.25, 0.5, 1.0, 2.0)  # of the recipe's widths; 4 lost on Fashion-MNIST, at twice the time
WIDTH_STEP = 16  # oneDNN's kernels take other widths at half the speed
ENOUGH_EPOCHS = 4.0  # up to the recipe's widths, more width then gains more than more epochs
ENOUGH_WIDE = 12.0  # and beyond them: on CIFAR-10 8 epochs of twice the widths lost to 18 of these
CUTOUT_FROM = 18.0  # epochs, from which on cutting out squares gained 0.2 to 0.5 points on val
CUTOUT_SHARE = 0.3  # of the shorter side
MOST_EPOCHS = 40.0  # after as many the gap from train to test only grows
FEWEST_PASSES = 0.1
PROBE_IMAGES = 4_000
TIMED_STEPS = 3
RESERVE = 0.06  # of the budget, for a machine that others use too
REPORT_SECONDS = (
    10.0  # figures with intervals, the input checks's study, export, plots, report: one core
)


@dataclass(frozen=True)
class Pace:
    """What a network was seen to need on this machine, in seconds.

    Attributes:
        train: an image, in a training step on whole images.
        answer: an image, for the float32 network that ships.
        start: for the first step: tracing and compiling.
        busy: seconds that pass in one second of this process's own work; 1 on an idle machine.
    """

    train: float
    answer: float
    start: float
    busy: float


@dataclass(frozen=True)
class Plan:
    """What will be trained within the budget.

    Attributes:
        recipe: with widths, epochs and the share of images an epoch set.
        seconds: predicted, from now to the end of the report.
        fit_seconds: predicted, of training alone.
        finish_seconds: set aside for calibration, judging, export and report.
        passes: epochs in whole passes over the training images.
    """

    recipe: Recipe
    seconds: float
    fit_seconds: float
    finish_seconds: float
    passes: float

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return {
            "widths": self.recipe.model.options["widths"],
            "epochs": self.recipe.train.epochs,
            "passes": round(self.passes, 2),
            "cutout": self.recipe.augment.cutout,
            "seconds": round(self.seconds, 1),
            "fit_seconds": round(self.fit_seconds, 1),
            "finish_seconds": round(self.finish_seconds, 1),
        }

    @property
    def words(self) -> str:
        """The plan in one line."""
        widths = str(self.recipe.model.options["widths"]).strip("[]")
        cutout = self.recipe.augment.cutout
        cut = f", squares of {cutout} pixels cut out" if cutout else ""
        return (
            f"plan: widths {widths} · {self.passes:.1f} passes over the images{cut} · "
            f"{self.fit_seconds:.0f} s of training, {self.finish_seconds:.0f} s to judge and write"
        )


def plan(
    data: Splits, recipe: Recipe, seconds: float, precision: str, reporter: ProgressReporter
) -> Plan:
    """Return what to train in `seconds`, counted from now.

    Args:
        data: what will be trained on.
        recipe: of a network with the option "widths", such as fast.
        seconds: for everything from here to the report.
        precision: "float32" or "bfloat16".
        reporter: told what is tried.

    Raises:
        RecipeError: the network has no widths to choose, or the time is too short for any.
    """
    if recipe.model.name != "whitened":
        raise RecipeError(
            f"--budget plans for networks of the kind whitened; recipe {recipe.name} has "
            f"{recipe.model.name}: take --recipe fast"
        )
    begun = time.monotonic()
    best: Plan | None = None
    for share in SHARES:
        reporter.phase(f"trying out widths × {share:g}")
        scaled = _scaled(recipe, data.train.image_shape[2], share)
        pace = probe(data, scaled, precision)
        left = seconds * (1 - RESERVE) - (time.monotonic() - begun)
        fitting = _fitted(scaled, data, pace, left)
        if best is not None and (fitting is None or fitting.passes < _enough(share)):
            break
        best = fitting
        if best is None or best.passes < 2 * _enough(2 * share):
            break  # the next one takes more than twice as long an image
    if best is None:
        raise RecipeError(
            f"--budget: {seconds:.0f} s are too few for {len(data.train):,} images of "
            f"{data.train.image_shape[0]}×{data.train.image_shape[1]} pixels; loading, a probe, "
            "judging and the report take most of it: give more time"
        )
    return best


def _enough(share: float) -> float:
    """Return how many passes a network of that share of the widths must have left."""
    return ENOUGH_EPOCHS if share <= 1 else ENOUGH_WIDE


def probe(data: Splits, recipe: Recipe, precision: str) -> Pace:
    """Time the first steps of a training, and the answers of what it would ship."""
    few = data.train.subset(np.arange(min(PROBE_IMAGES, len(data.train))))
    spec = recipe.override(
        {"train.progressive_resize_scale": 1.0, "train.epochs": 1, "train.epoch_share": 1.0}
    )
    begun, worked = time.perf_counter(), time.thread_time()
    trainer = compiling.build(Splits(few, None, few), spec, precision)
    busy = (time.perf_counter() - begun) / max(time.thread_time() - worked, 1e-3)
    order = trainer.order
    indices = order.indices(0)[: order.batch_size]
    batch = [indices, order.draws(0, indices)]
    labels = trainer.labels[indices]
    seconds = []
    for _ in range(TIMED_STEPS + 1):
        begun = time.perf_counter()
        trainer.model.train_on_batch(batch, labels)
        seconds.append(time.perf_counter() - begun)
    step = float(np.median(seconds[1:]))
    return Pace(
        train=step / order.batch_size,
        answer=_answer_seconds(trainer, few.images),
        start=seconds[0],
        busy=max(busy, 1.0),
    )


def _answer_seconds(trainer: compiling.Trainer, images: Any) -> float:
    shipped = ship(trainer.network, tta_views=trainer.recipe.model.tta_views)
    few = keras.ops.convert_to_tensor(images[:250])
    shipped.predict_on_batch(few)
    begun = time.perf_counter()
    shipped.predict_on_batch(few)
    return (time.perf_counter() - begun) / len(few)


def _scaled(recipe: Recipe, channels: int, share: float) -> Recipe:
    """Return the recipe with all widths of its network times `share`."""
    options = defaults("whitened") | recipe.model.options
    grey = options["grey_widths"] if channels == 1 else []
    widths = [
        max(round(width * share / WIDTH_STEP), 1) * WIDTH_STEP
        for width in grey or options["widths"]
    ]
    changed = recipe.model.options | {"widths": widths, "grey_widths": []}
    return recipe.override({"model.options": changed})


def _fitted(recipe: Recipe, data: Splits, pace: Pace, seconds: float) -> Plan | None:
    """Return as many epochs as fit into `seconds`; None where not even a tenth of one does."""
    finish = finish_seconds(recipe, data, pace)
    left = seconds - finish - 2 * pace.start  # two sizes of images are compiled
    per_pass = _seconds_a_pass(recipe, data, pace)
    passes = min(left / per_pass, MOST_EPOCHS)
    if passes < FEWEST_PASSES:
        return None
    epochs = math.ceil(passes - 1e-9)
    changes: dict[str, Any] = {"train.epochs": epochs, "train.epoch_share": passes / epochs}
    if passes >= CUTOUT_FROM and not recipe.augment.cutout:
        changes["augment.cutout"] = round(CUTOUT_SHARE * min(data.train.image_shape[:2]))
    chosen = recipe.override(changes)
    fit = per_pass * passes + 2 * pace.start
    return Plan(chosen, fit + finish, fit, finish, passes)


def finish_seconds(recipe: Recipe, data: Splits, pace: Pace) -> float:
    """Return what judging, export and report are predicted to take, in seconds."""
    n_val, n_train = len(data.val) if data.val else 0, len(data.train)
    scored = min(recipe.train.score_train or n_train, n_train)
    # val once, train and test once in Keras, test once more in the exported file,
    # out-of-distribution images once
    answers = n_val + scored + 2 * len(data.test) + out_of_distribution.MOST_SHOWN
    return pace.answer * answers + pace.busy * REPORT_SECONDS


def lengthened(recipe: Recipe, data: Splits, pace: Pace, seconds: float, fewest: int = 1) -> Recipe:
    """Return the recipe with as many epochs as its training has room for in `seconds`.

    Args:
        recipe: of any network.
        data: what will be trained on.
        pace: of the recipe's network, from `probe`.
        seconds: for compiling and training; a tenth of a pass is trained where they are too few.
        fewest: epochs; where less than as many whole passes fit, each sees a share of train.
    """
    compiled = pace.start * (2 if recipe.train.progressive_resize_scale < 1 else 1)
    passes = (seconds - compiled) / _seconds_a_pass(recipe, data, pace)
    passes = min(max(passes, FEWEST_PASSES), MOST_EPOCHS)
    epochs = max(math.ceil(passes - 1e-9), fewest)
    return recipe.override({"train.epochs": epochs, "train.epoch_share": min(passes / epochs, 1.0)})


def _seconds_a_pass(recipe: Recipe, data: Splits, pace: Pace) -> float:
    """Return what a pass over the training images takes, with its share of looks at val."""
    looks = 1 / recipe.train.val_every if data.val else 0.0
    n_val = len(data.val) if data.val else 0
    train_seconds = len(data.train) * pace.train * _relative_work(recipe, data)
    return train_seconds + looks * n_val * pace.answer


def _relative_work(recipe: Recipe, data: Splits) -> float:
    """Return the work of an epoch of the recipe as a share of that on whole images."""
    curriculum = Curriculum(recipe.train, data.train.image_shape[:2])
    return curriculum.total_work() / recipe.train.epochs
