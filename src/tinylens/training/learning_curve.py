"""Learning curve: the accuracy gain from doubling the training set.

Networks of one recipe are trained for few steps on an eighth, a quarter, a half and all of train,
with three seeds each, and judged on val; the test split stays sealed. The passes over a part are in
inverse proportion to the root of its size: see docs/decisions/passes-of-a-learning-curve.md.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from tinylens import backend as backends
from tinylens import files, system
from tinylens.data.dataset import Dataset, Labels, Splits
from tinylens.data.load import reopen
from tinylens.errors import DataError
from tinylens.metrics import NORMAL_975, Floats
from tinylens.progress import ProgressReporter
from tinylens.recipe import Recipe
from tinylens.reporting.write import write as write_report
from tinylens.results import CurvePoint, FittedPoint, LearningCurve, Score
from tinylens.run import Run
from tinylens.training.train import make_deterministic

if TYPE_CHECKING:
    from tinylens.progress import StepProgress


Wrong = NDArray[np.bool_]

EXPONENTS = np.linspace(0.01, 1.0, 100)
FLOORS = np.linspace(0.0, 0.98, 50)  # c as a share of the error at the most images
CONFIDENCE = 0.95
IMPLAUSIBLE = 0.01  # a power law would miss the errors so far less often than this


@dataclass(frozen=True, eq=False)
class Noise:
    """What the measured errors are, and how they vary.

    Attributes:
        errors: the mean over seeds, float64, shape (sizes,).
        covariance: of that, over seeds and over images to judge on, shape (sizes, sizes).
        freedom: degrees of freedom of the seeds' part of it.
    """

    errors: Floats
    covariance: Floats
    freedom: int


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """The curves that explain the measured errors not much worse than the nearest one does.

    Attributes:
        most: the largest number of images that was measured.
        exponents: b, float64, shape (curves,); the nearest curve comes first.
        floors: c as a share of the error at `most`, shape (curves,).
        errors: at `most`, the middle of what explains the errors, shape (curves,).
        halves: how far to either side it may lie, shape (curves,).
        p_value: how probable it is that the errors lie so far off the nearest power law.
    """

    most: int
    exponents: Floats
    floors: Floats
    errors: Floats
    halves: Floats
    p_value: float

    @property
    def holds(self) -> bool:
        """Whether what was measured may lie on a power law."""
        return self.p_value >= IMPLAUSIBLE

    def error(self, images: float) -> Score:
        """Return the error that is to be expected from so many training images."""
        return self._range(self._relative(images))

    def gain(self, images: float) -> Score:
        """Return by how much more accurate so many would make it than `most` do.

        The interval is of the mean over seeds on images like those judged, and holds the noise of
        seeds and images and that the shape is not known. The value is its middle.
        """
        low, high = self._range(1 - self._relative(images)).ci95 or (0.0, 0.0)
        return Score((low + high) / 2, (low, high))

    def _relative(self, images: float) -> Floats:
        """Return the error at `images` as a share of that at `most`, of every curve."""
        falling: Floats = (1 - self.floors) * (images / self.most) ** -self.exponents
        return falling + self.floors

    def _range(self, factors: Floats) -> Score:
        low = float(((self.errors - self.halves) * factors).min())
        high = float(((self.errors + self.halves) * factors).max())
        return Score(float(self.errors[0] * factors[0]), (max(low, 0.0), min(high, 1.0)))


def fit(images: Sequence[int], wrong: Wrong) -> PowerLaw:
    """Return the power laws that explain what several sizes of training sets led to.

    A curve belongs to them unless its distance from the errors, squared in units of their noise,
    exceeds the nearest one's by more than noise does 19 times of 20: the profile likelihood.

    Simulated 200 times from each of 24 power laws (b from 0.1 to 0.5, c none, 30 % or 60 % of the
    error; 8 % errors on 6,000 images and 20 % on 1,000) the interval of the gain from twice the
    images held the true one 97 times of 100, in every case at least 94 times; a power law was
    rejected less than once in 100 times.

    Args:
        images: trained on, rising, shape (sizes,).
        wrong: whether each judged image was answered wrong, bool, shape (sizes, seeds, judged);
            at least 2 seeds, and the same images everywhere.
    """
    noise = measure_noise(wrong)
    sizes = np.array(images, np.float64) / images[-1]
    exponents, floors = (grid.ravel() for grid in np.meshgrid(EXPONENTS, FLOORS))
    shapes = (1 - floors[:, None]) * sizes ** -exponents[:, None] + floors[:, None]
    inverse = np.linalg.inv(noise.covariance)
    precision = np.einsum("ki,ij,kj->k", shapes, inverse, shapes)
    projected = shapes @ inverse @ noise.errors
    distances = noise.errors @ inverse @ noise.errors - projected**2 / precision
    # F's quantile, not the normal's squared: most of the noise is estimated from few seeds
    tolerance = float(scipy.stats.f.ppf(CONFIDENCE, 1, noise.freedom))
    spare = distances.min() + tolerance - distances
    near = np.argsort(distances)[: int((spare >= 0).sum())]
    freedom = max(len(sizes) - 2, 1)
    return PowerLaw(
        most=int(images[-1]),
        exponents=exponents[near],
        floors=floors[near],
        errors=(projected / precision)[near],
        halves=np.sqrt(spare[near] / precision[near]),
        p_value=float(scipy.stats.f.sf(max(distances.min(), 0) / freedom, freedom, noise.freedom)),
    )


def measure_noise(wrong: Wrong) -> Noise:
    """Return mean errors and how they vary with seeds and with the images judged.

    All sizes are judged on the same images, and hard ones are hard for all: what the choice of
    images adds to one size's error, it adds to the others', too, and little to their differences.

    Args:
        wrong: bool, shape (sizes, seeds, judged).
    """
    sizes, count, evaluated = wrong.shape
    by_seed, by_image = wrong.mean(axis=2), wrong.mean(axis=1)
    errors = by_seed.mean(axis=1)
    relative = by_seed.var(axis=1, ddof=1) / np.maximum(errors, 1 / evaluated) ** 2
    # seeds differ at least by what their mistakes, made on so many images, differ by
    own = (by_image * (1 - by_image)).mean(axis=1) * count / (count - 1) / evaluated
    by_seeds = np.maximum(relative.mean() * errors**2, own)
    # that part is in the covariance over images already
    covariance = np.cov(by_image) / evaluated + np.diag((by_seeds - own) / count)
    one_mistake = np.eye(sizes) / evaluated**2  # more or less is always possible
    return Noise(errors, covariance + one_mistake, freedom=sizes * (count - 1))


RECIPE = "fast"
SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
SEEDS = 3
PASSES = 3.0  # over all of train, and more over less of it
LEAST_STEPS = 100  # over all of train, however few images it has
FEWEST_IMAGES = 10  # a class in the smallest part; with fewer the error is near guessing
SMALL_VAL = 1_000  # images, below which the interval is mostly val's
FITTED_POINTS = 17  # a fourth of a doubling apart

Settings = Mapping[str, Any]
TrainOne = Callable[[Dataset, Recipe, Run], NDArray[np.bool_]]


@dataclass(frozen=True)
class Size:
    """How many images are trained on, in how many passes over them."""

    images: int
    share: float
    passes: float


@dataclass(frozen=True)
class Place:
    """On what is trained."""

    backend: str
    precision: str


def learning_curve(
    run: Run | str | Path,
    data: str | Path | Splits | None = None,
    *,
    backend: str | None = None,
    data_dir: str | Path | None = None,
    reporter: ProgressReporter | None = None,
) -> LearningCurve:
    """Estimate the accuracy gain from twice as many training images.

    Short trainings on subsets of train are evaluated on val. The run gets learning_curve.json and
    a new report; a measurement that was stopped is continued.

    Args:
        run: a finished `Run` or the path of its folder.
        data: what it was trained on: a known set's name, a path, or `Splits`; None takes the set
            that the run names.
        backend: "tensorflow", "jax" or "torch"; None as `tinylens.backend.choose` says.
        data_dir: where files are looked for first.
        reporter: told of every training, step and epoch.

    Raises:
        DataError: the set is not what the run was trained on, has no val split, or has too few
            images of a class.
        RunError: the run is not finished, or a live process is writing to it.
        KeyboardInterrupt: Ctrl-C came; the step was finished and the state saved before.

    >>> learning_curve("runs/fast-1").doubled.value  # doctest: +SKIP
    0.021
    """
    opened = run if isinstance(run, Run) else Run(run)
    _ = opened.evaluation  # a run that is not finished is refused before its data are read
    if isinstance(data, Splits):
        splits = data
        if splits.fingerprint != opened.info.fingerprint:
            raise DataError(
                f"{splits.source} is not what {opened.path} was trained on; give the splits as "
                "they were then, or leave data out"
            )
    else:
        splits = reopen(opened, data, None if data_dir is None else Path(data_dir))
    curve = measure(opened, splits, backend=backend, reporter=reporter)
    write_report(opened)
    return curve


def measure(
    run: Run, data: Splits, *, backend: str | None = None, reporter: ProgressReporter | None = None
) -> LearningCurve:
    """Train on parts of a run's training images, and write what that tells into the run.

    One that was stopped goes on where it was.

    Args:
        run: finished; gets learning_curve.json.
        data: what it was trained on.
        backend: "tensorflow", "jax" or "torch"; None as `tinylens.backend.choose` says.
        reporter: told of every training, step and epoch.

    Raises:
        DataError: there is no val split to judge on, or too few images to take parts of.
        RunError: a live process is writing the run.
        KeyboardInterrupt: Ctrl-C came; the step was finished and the state saved before.
    """
    check(data)
    val, recipe = data.val, Recipe.load(RECIPE)
    assert val is not None  # by `check`
    sizes = choose_sizes(data.train.labels, recipe.train.batch_size)
    choice = backends.activate(backend)
    place = Place(choice.name, backends.precision(recipe.train.precision, choice.name))
    seen = reporter or ProgressReporter()

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
            "a learning curve is evaluated on val, since test stays sealed, and there is no val "
            "split; train with --val 0.1"
        )
    choose_sizes(data.train.labels, Recipe.load(RECIPE).train.batch_size)


def choose_sizes(labels: Labels, batch_size: int) -> list[Size]:
    """Return the numbers of images to train on, and the passes over them.

    Raises:
        DataError: the smallest part would have too few images of a class.

    >>> sizes = choose_sizes(np.repeat([0, 1], 4000), batch_size=500)
    >>> [(size.images, round(size.passes, 2)) for size in sizes]
    [(1000, 17.68), (2000, 12.5), (4000, 8.84), (8000, 6.25)]
    """
    support = np.bincount(labels)
    fewest = int(support[support > 0].min())
    if fewest * SHARES[0] < FEWEST_IMAGES:
        raise DataError(
            f"train has a class of {fewest} images, and the smallest part of a learning curve "
            f"is an eighth; expected at least {math.ceil(FEWEST_IMAGES / SHARES[0])} of every "
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
    noise, evaluated = measure_noise(wrong), wrong.shape[2]
    law = fit([size.images for size in sizes], wrong)
    halves = NORMAL_975 * np.sqrt(np.diag(noise.covariance))
    points = tuple(
        CurvePoint(
            images=size.images,
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
        evaluated=evaluated,
        points=points,
        fitted=tuple(FittedPoint(round(n), law.error(n)) for n in numbers) if law.holds else (),
        doubled=doubled,
        words=_words(law, doubled, evaluated),
    )


def _words(law: PowerLaw, doubled: Score, evaluated: int) -> str:
    """Say what twice the data would give, or that it cannot be told."""
    small = (
        f" Val, {evaluated:,} images, is small: a larger one would say it more exactly."
        if evaluated < SMALL_VAL
        else ""
    )
    if doubled.value is None or doubled.ci95 is None:
        return (
            "The errors do not fall along a power law "
            f"(p = {law.p_value:.3f}), so what more images would give cannot be told.{small}"
        )
    half = 100 * (doubled.ci95[1] - doubled.ci95[0]) / 2
    return (
        f"Twice the data: {100 * doubled.value:+.1f} ± {half:.1f} points, trained 1.4 times as "
        f"long; by a power law through the errors on val of short trainings on {law.most:,} "
        f"images and on an eighth, a quarter and a half of them.{small}"
    )


# --- training


class _Counted(ProgressReporter):
    """Shows the steps of one training; that of many epochs is said in one line at its end."""

    def __init__(self, reporter: ProgressReporter) -> None:
        self.reporter = reporter

    def step(self, progress: StepProgress) -> None:
        """Pass the step on."""
        self.reporter.step(progress)


def train_sizes(
    run: Run,
    train: Dataset,
    recipe: Recipe,
    sizes: list[Size],
    settings: Settings,
    train_one: TrainOne,
    reporter: ProgressReporter,
) -> Wrong:
    """Return the mistakes of all trainings; those that were done before are not done again."""
    rows: list[NDArray[np.bool_]] = []
    count = len(sizes) * SEEDS
    for size in sizes:
        for seed in range(SEEDS):
            name = f"training {len(rows) + 1} of {count}: {size.images:,} images, seed {seed}"
            reporter.phase(name)
            epochs = math.ceil(size.passes - 1e-9)
            length = {"train.epochs": epochs, "train.epoch_share": size.passes / epochs}
            spec = recipe.override({**length, "train.seed": seed})
            folder = Run(run.curve_runs / f"{size.images}-images-seed-{seed}")
            _claim(folder, {**settings, "recipe": spec.model_dump(mode="json")})
            wrong = _kept(folder)
            if wrong is None:
                part = train.subset(nested_rows(train.labels, size.share, seed))
                wrong = train_one(part, spec, folder)
                _keep(folder, wrong)
            reporter.say(f"{name}: {100 * wrong.mean():.2f} % wrong on val")
            rows.append(wrong)
    return np.stack(rows).reshape(len(sizes), SEEDS, -1)


def _wrong_on_val(
    part: Dataset,
    val: Dataset,
    recipe: Recipe,
    folder: Run,
    place: Place,
    reporter: ProgressReporter,
) -> NDArray[np.bool_]:
    """Train on a part, or go on with that; return which images of val are answered wrong."""
    from tinylens.models.build import ship
    from tinylens.training import finalize, loop
    from tinylens.training import trainer as compiling

    make_deterministic(place.backend)
    compiling.forget()
    # without a val split of its own: it is looked at once, below
    trainer = compiling.build(Splits(part, None, val), recipe, place.precision)
    with system.stop_signals() as requested:
        state = loop.fit(trainer, folder, _Counted(reporter), requested.is_set)
    if requested.is_set() or not state.finished:
        raise KeyboardInterrupt
    answers = finalize.predict(ship(trainer.network), val.images)
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
