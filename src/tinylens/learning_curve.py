"""The learning curve of a run's data set: what twice as many training pictures would give.

Networks of one recipe are trained for few steps on an eighth, a quarter, a half and all of train,
with three seeds each, and judged on val; the test part stays sealed. The passes over a part are in
inverse proportion to the root of its size: see docs/decisions/passes-of-a-learning-curve.md.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tinylens import backend as backends
from tinylens import files, stopping, training
from tinylens.data.dataset import Dataset, Labels, Splits
from tinylens.errors import DataError
from tinylens.metrics import NORMAL_975
from tinylens.power_law import PowerLaw, Wrong, fit, measure_noise
from tinylens.recipe import Recipe
from tinylens.results import CurvePoint, FittedPoint, LearningCurve, Score
from tinylens.run import Run
from tinylens.silent import Silent

if TYPE_CHECKING:
    from tinylens.fitting import Progress, Watcher

RECIPE = "fast"
SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
SEEDS = 3
PASSES = 3.0  # over all of train, and more over less of it
LEAST_STEPS = 100  # over all of train, however few pictures it has
FEWEST_PICTURES = 10  # a class in the smallest part; with fewer the error is near guessing
SMALL_VAL = 1_000  # pictures, below which the interval is mostly val's
FITTED_POINTS = 17  # a fourth of a doubling apart

Settings = Mapping[str, Any]
TrainOne = Callable[[Dataset, Recipe, Run], NDArray[np.bool_]]


@dataclass(frozen=True)
class Size:
    """How many pictures are trained on, in how many passes over them."""

    pictures: int
    share: float
    passes: float


@dataclass(frozen=True)
class Place:
    """On what is trained."""

    backend: str
    precision: str


def measure(
    run: Run, data: Splits, *, backend: str | None = None, watcher: Watcher | None = None
) -> LearningCurve:
    """Train on parts of a run's training pictures, and write what that tells into the run.

    One that was stopped goes on where it was.

    Args:
        run: finished; gets learning_curve.json.
        data: what it was trained on.
        backend: "tensorflow", "jax" or "torch"; None as `tinylens.backend.choose` says.
        watcher: told of every training, step and epoch.

    Raises:
        DataError: there is no val part to judge on, or too few pictures to take parts of.
        RunError: a live process is writing the run.
        KeyboardInterrupt: Ctrl-C came; the step was finished and the state saved before.
    """
    check(data)
    val, recipe = data.val, Recipe.load(RECIPE)
    assert val is not None  # by `check`
    sizes = choose_sizes(data.train.labels, recipe.train.batch_size)
    choice = backends.activate(backend)
    place = Place(choice.name, backends.precision(recipe.train.precision, choice.name))
    seen = watcher or Silent()

    def train_one(part: Dataset, spec: Recipe, folder: Run) -> NDArray[np.bool_]:
        return _wrong_on_val(part, val, spec, folder, place, seen)

    settings = {"fingerprint": data.fingerprint, **asdict(place)}
    with run.lock():
        wrong = train_sizes(run, data.train, recipe, sizes, settings, train_one, seen)
        curve = assemble(sizes, wrong)
        run.write_learning_curve(curve)
        shutil.rmtree(run.curve_runs)
    return curve


def check(data: Splits) -> None:
    """Raise the DataError that `measure` would raise, before anything is trained."""
    if data.val is None:
        raise DataError(
            "a learning curve is judged on val, since test stays sealed, and there is no val part; "
            "train with --val 0.1"
        )
    choose_sizes(data.train.labels, Recipe.load(RECIPE).train.batch_size)


def choose_sizes(labels: Labels, batch_size: int) -> list[Size]:
    """Return the numbers of pictures to train on, and the passes over them.

    Raises:
        DataError: the smallest part would have too few pictures of a class.

    >>> sizes = choose_sizes(np.repeat([0, 1], 4000), batch_size=500)
    >>> [(size.pictures, round(size.passes, 2)) for size in sizes]
    [(1000, 17.68), (2000, 12.5), (4000, 8.84), (8000, 6.25)]
    """
    support = np.bincount(labels)
    fewest = int(support[support > 0].min())
    if fewest * SHARES[0] < FEWEST_PICTURES:
        raise DataError(
            f"train has a class of {fewest} pictures, and the smallest part of a learning curve "
            f"is an eighth; expected at least {math.ceil(FEWEST_PICTURES / SHARES[0])} of every "
            "class: collect some first"
        )
    steps_a_pass = max(len(labels) // batch_size, 1)
    passes = max(PASSES, LEAST_STEPS / steps_a_pass)
    return [
        Size(len(nested_rows(labels, share, seed=0)), share, passes / share**0.5)
        for share in SHARES
    ]


def nested_rows(labels: Labels, share: float, seed: int) -> NDArray[np.int64]:
    """Return the rows of a share of every class, int64, ascending.

    With one seed a smaller share is a subset of a larger one; of each class as many are taken with
    any seed.

    >>> half = nested_rows(np.array([0, 0, 0, 0, 1, 1]), 0.5, seed=0)
    >>> len(half), set(half) <= set(nested_rows(np.array([0, 0, 0, 0, 1, 1]), 0.75, seed=0))
    (3, True)
    """
    random = np.random.default_rng([seed, 0xC04E])
    chosen = []
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        chosen.append(rows[: math.ceil(share * len(rows) - 1e-9)])
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def assemble(sizes: list[Size], wrong: Wrong) -> LearningCurve:
    """Return the curve that mistakes on val make.

    Args:
        sizes: rising.
        wrong: bool, shape (sizes, seeds, judged).
    """
    noise, judged = measure_noise(wrong), wrong.shape[2]
    law = fit([size.pictures for size in sizes], wrong)
    halves = NORMAL_975 * np.sqrt(np.diag(noise.covariance))
    points = tuple(
        CurvePoint(
            pictures=size.pictures,
            epochs=round(size.passes, 2),
            error=Score(float(error), (max(float(error - half), 0.0), float(error + half))),
            by_seed=tuple(map(float, by_seed)),
        )
        for size, error, half, by_seed in zip(
            sizes, noise.errors, halves, wrong.mean(axis=2), strict=True
        )
    )
    numbers = np.geomspace(law.most * SHARES[0], 2 * law.most, FITTED_POINTS)
    doubled = law.gain(2 * law.most) if law.holds else Score(None, None)
    return LearningCurve(
        recipe=RECIPE,
        judged=judged,
        points=points,
        fitted=tuple(FittedPoint(round(n), law.error(n)) for n in numbers) if law.holds else (),
        doubled=doubled,
        words=_words(law, doubled, judged),
    )


def _words(law: PowerLaw, doubled: Score, judged: int) -> str:
    """Say what twice the data would give, or that it cannot be told."""
    small = (
        f" Val, {judged:,} pictures, is small: a larger one would say it more exactly."
        if judged < SMALL_VAL
        else ""
    )
    if doubled.value is None or doubled.ci95 is None:
        return (
            "The errors do not fall along a power law "
            f"(p = {law.p_value:.3f}), so what more pictures would give cannot be told.{small}"
        )
    half = 100 * (doubled.ci95[1] - doubled.ci95[0]) / 2
    return (
        f"Twice the data: {100 * doubled.value:+.1f} ± {half:.1f} points, trained 1.4 times as "
        f"long; by a power law through the errors on val of short trainings on {law.most:,} "
        f"pictures and on an eighth, a quarter and a half of them.{small}"
    )


# --- training


class _Counted(Silent):
    """Shows the steps of one training; that of many epochs is said in one line at its end."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher

    def step(self, progress: Progress) -> None:
        """Pass the step on."""
        self.watcher.step(progress)


def train_sizes(
    run: Run,
    train: Dataset,
    recipe: Recipe,
    sizes: list[Size],
    settings: Settings,
    train_one: TrainOne,
    watcher: Watcher,
) -> Wrong:
    """Return the mistakes of all trainings; those that were done before are not done again."""
    rows: list[NDArray[np.bool_]] = []
    count = len(sizes) * SEEDS
    for size in sizes:
        for seed in range(SEEDS):
            name = f"training {len(rows) + 1} of {count}: {size.pictures:,} pictures, seed {seed}"
            watcher.phase(name)
            epochs = math.ceil(size.passes - 1e-9)
            length = {"train.epochs": epochs, "train.epoch_share": size.passes / epochs}
            spec = recipe.override({**length, "train.seed": seed})
            folder = Run(run.curve_runs / f"{size.pictures}-pictures-seed-{seed}")
            _claim(folder, {**settings, "recipe": spec.model_dump(mode="json")})
            wrong = _kept(folder)
            if wrong is None:
                part = train.subset(nested_rows(train.labels, size.share, seed))
                wrong = train_one(part, spec, folder)
                _keep(folder, wrong)
            watcher.say(f"{name}: {100 * wrong.mean():.2f} % wrong on val")
            rows.append(wrong)
    return np.stack(rows).reshape(len(sizes), SEEDS, -1)


def _wrong_on_val(
    part: Dataset, val: Dataset, recipe: Recipe, folder: Run, place: Place, watcher: Watcher
) -> NDArray[np.bool_]:
    """Train on a part, or go on with that; return which pictures of val are answered wrong."""
    from tinylens import compiling, finishing, fitting, models

    training.make_deterministic(place.backend)
    compiling.forget()
    # without a val part of its own: it is looked at once, below
    trainer = compiling.build(Splits(part, None, val), recipe, place.precision)
    with stopping.stop_signals() as asked:
        state = fitting.fit(trainer, folder, _Counted(watcher), asked.is_set)
    if asked.is_set() or not state.finished:
        raise KeyboardInterrupt
    answers = finishing.predict(models.ship(trainer.network), val.images)
    wrong: NDArray[np.bool_] = answers.argmax(axis=1) != val.labels
    return wrong


def _claim(folder: Run, settings: Settings) -> None:
    """Take the folder for a training with these settings; what others left there is removed."""
    path, text = folder.path / "settings.json", json.dumps(settings, indent=1)
    if path.is_file() and path.read_text("utf-8") == text:
        return
    shutil.rmtree(folder.path, ignore_errors=True)
    folder.path.mkdir(parents=True)
    files.write_text(path, text)


def _kept(folder: Run) -> NDArray[np.bool_] | None:
    path = folder.path / "wrong.npy"
    return np.load(path) if path.is_file() else None


def _keep(folder: Run, wrong: NDArray[np.bool_]) -> None:
    files.write_with(folder.path / "wrong.npy", lambda file: np.save(file, wrong))
    folder.remove_checkpoints()
