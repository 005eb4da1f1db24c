"""Choice of the class-imbalance method by short training runs (`--balance auto`).

Every way trains on two thirds of the training images, for half of the epochs, and is judged on
the third that was set aside and on val: of a class of 60 images that is 20 and more, where val
alone has 6. The test split is not touched. Those that are within a standard error of the best are
taken as equals; of these the first in CANDIDATES is chosen.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tinylens.data.cache import gathered
from tinylens.data.dataset import Dataset, Splits, stratified_split
from tinylens.data.groups import carve
from tinylens.progress import ProgressReporter
from tinylens.recipe import Recipe
from tinylens.run import Run
from tinylens.training import finalize
from tinylens.training import imbalance as imbalance_module
from tinylens.training import trainer as compiling
from tinylens.training.loop import fit

if TYPE_CHECKING:
    from tinylens.progress import ProgressReporter

CANDIDATES = ("logits", "weights", "sampling", "none")  # see docs/decisions/uneven-classes.md
SET_ASIDE = 1 / 3
EPOCHS = 0.5  # of the recipe's
HINTED = 5.0  # an imbalance from which on whoever said nothing of balance is told that there is one

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Trial:
    """How a way to make up for uneven classes did in its short training.

    Attributes:
        balance: which one.
        macro_f1: of `tinylens.training.imbalance.even_macro_f1`, on what was set aside and on val.
        error: its standard error.
        accuracy: on the same images, as uneven as they are.
        seconds: that it took.
    """

    balance: str
    macro_f1: float
    error: float
    accuracy: float
    seconds: float


@dataclass(frozen=True)
class Choice:
    """What was chosen, and why.

    Attributes:
        chosen: a value of `train.balance`.
        imbalance: the largest class's images over the smallest's.
        images: that every trial was judged on.
        trials: none where the classes are even.
        seconds: that all trials took.
    """

    chosen: str
    imbalance: float
    images: int = 0
    trials: tuple[Trial, ...] = ()
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values, and "words"."""
        trials = [asdict(trial) for trial in self.trials]
        return {**asdict(self), "trials": trials, "words": self.words}

    @property
    def words(self) -> str:
        """The choice in a sentence or two."""
        if not self.trials:
            return (
                f"balance: {self.chosen}; the largest class has {self.imbalance:.2g} times as many "
                "images as the smallest, which is even enough"
            )
        found = ", ".join(
            f"{each.balance} {each.macro_f1:.3f} ± {each.error:.3f}" for each in self.trials
        )
        return (
            f"balance: {self.chosen}, chosen among short trainings by their macro-F1, every class "
            f"counted alike, on {self.images:,} images of train and val: {found} (± a standard "
            f"error; within the best one's, the first counts as best); {self.seconds:.0f} s"
        )


def hint(data: Splits) -> str:
    """Return what whoever trains on uneven classes without making up for them should know, or "".

    >>> from tinylens.data.readers.synthetic import shapes
    >>> hint(shapes(n_train=20, n_test=10))
    ''
    """
    ratio = imbalance_module.imbalance(data.train.counts)
    if ratio < HINTED:
        return ""
    return (
        f"the classes are uneven: the largest has {ratio:,.0f} times as many images as the "
        "smallest; --balance auto tries out what helps the rare ones"
    )


def choose(
    data: Splits,
    recipe: Recipe,
    precision: str,
    reporter: ProgressReporter,
    should_stop: Callable[[], bool] = lambda: False,
) -> Choice:
    """Return which of CANDIDATES suits the data best; "none", and at once, where classes are even.

    Args:
        data: its train and val splits are looked at.
        recipe: what will be trained.
        precision: "float32" or "bfloat16".
        reporter: told of each trial.
        should_stop: asked after every step.

    Raises:
        KeyboardInterrupt: `should_stop` said so.
        DataError: the classes have too few groups to be parted.
    """
    ratio = imbalance_module.imbalance(data.train.counts)
    if ratio <= imbalance_module.EVEN:
        return Choice("none", ratio)
    begun = time.monotonic()
    rest, aside = _parted(data.train, recipe.data.split_seed)
    kept, evaluated = (data.train.subset(rows, gathered) for rows in (rest, aside))
    unseen = [evaluated] if data.val is None else [evaluated, data.val]
    trials = []
    for number, name in enumerate(CANDIDATES):
        reporter.phase(f"trying out balance {name}, {number + 1} of {len(CANDIDATES)}")
        epochs = max(round(EPOCHS * recipe.train.epochs), 1)
        short = recipe.override({"train.balance": name, "train.epochs": epochs})
        trials.append(_try(name, kept, unseen, short, precision, should_stop))
    return Choice(
        chosen=_best(trials),
        imbalance=ratio,
        images=sum(map(len, unseen)),
        trials=tuple(trials),
        seconds=round(time.monotonic() - begun, 3),
    )


def _best(trials: list[Trial]) -> str:
    """Return the first that is within a standard error of the best."""
    best = max(trials, key=lambda trial: trial.macro_f1)
    near = [each for each in trials if each.macro_f1 >= best.macro_f1 - best.error]
    return near[0].balance


def _parted(train: Dataset, seed: int) -> tuple[Rows, Rows]:
    """Return the rows to train on and those set aside; a class's only image is trained on."""
    if train.groups:
        return carve(train.labels, train.groups, SET_ASIDE, seed)
    several = np.flatnonzero(train.counts[train.labels] > 1)
    _, part = stratified_split(train.labels[several], SET_ASIDE, seed)
    aside = several[part]
    return np.setdiff1d(np.arange(len(train)), aside), aside


def _try(
    name: str,
    kept: Dataset,
    unseen: list[Dataset],
    recipe: Recipe,
    precision: str,
    should_stop: Callable[[], bool],
) -> Trial:
    begun = time.monotonic()
    trainer = compiling.build(Splits(kept, None, kept), recipe, precision)
    with tempfile.TemporaryDirectory() as folder:
        state = fit(trainer, Run(folder), ProgressReporter(), should_stop)
    if not state.finished:
        raise KeyboardInterrupt
    answers = np.concatenate(
        [finalize.predict(trainer.network, part.images).argmax(axis=1) for part in unseen]
    )
    labels = np.concatenate([part.labels for part in unseen])
    score, error = imbalance_module.even_macro_f1(answers, labels, len(kept.class_names))
    accuracy = float((answers == labels).mean())
    compiling.forget()
    return Trial(name, score, error, accuracy, round(time.monotonic() - begun, 3))
