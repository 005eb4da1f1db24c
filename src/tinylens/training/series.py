"""Repeated training runs: several seeds or cross-validation folds.

What one training reaches is partly luck: of its seed, and of the images that it was judged on. A
series is a folder of runs and a summary of what they have in common.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from tinylens import files
from tinylens.data import groups
from tinylens.data.dataset import Dataset, Images, Splits, joined, stratified_split
from tinylens.errors import MissingExtra, RecipeError, RunError
from tinylens.recipe import Recipe
from tinylens.results import OVERALL_FIGURES, Score, Spread, Summary
from tinylens.run import Arrays, Run

Kind = Literal["seeds", "folds"]
Train = Callable[[Splits, Recipe, Path], Run]

FEWEST, MOST = 2, 100


def train_seeds(data: Splits, recipe: Recipe, count: int, folder: Path, train: Train) -> Summary:
    """Train with the recipe's seed and the ones after it, on the same parts.

    Args:
        data: the parts.
        recipe: its `train.seed` is the first one.
        count: how many seeds.
        folder: of the series; finished runs in it are kept, so a stopped series goes on.
        train: trains one run into a folder, as `tinylens.train` does.

    Raises:
        RecipeError: fewer than 2 or more than 100.
        RunError: the folder holds a series of something else.
    """
    check_count("--seeds", count)
    _claim(folder, "seeds", count, recipe, data.fingerprint)
    first = recipe.train.seed
    runs = [
        train(data, recipe.override({"train.seed": seed}), folder / f"seed-{seed}")
        for seed in range(first, first + count)
    ]
    return _summarized("seeds", runs, len(data.test), folder)


def train_folds(
    pool: Dataset,
    recipe: Recipe,
    count: int,
    folder: Path,
    train: Train,
) -> Summary:
    """Cross-validate: every image is held out of one training, and judged by it.

    Each training carves a val split out of its folds, as the recipe says. The answers on the
    images held out are kept in out_of_fold.npz.

    Args:
        pool: the images, such as train and val together: `pool_of`.
        recipe: for every fold.
        count: how many folds.
        folder: of the series; finished runs in it are kept, so a stopped series goes on.
        train: trains one run into a folder, as `tinylens.train` does.

    Raises:
        RecipeError: fewer than 2 folds, more than 100, or more than a class has images.
        RunError: the folder holds a series of something else.
        MissingExtra: scikit-learn is not installed.
    """
    check_count("--folds", count)
    numbers = fold_numbers(pool, count, recipe.data.split_seed)
    _claim(folder, "folds", count, recipe, pool.fingerprint)
    runs = [
        train(splits, recipe, folder / f"fold-{number + 1}")
        for number, splits in enumerate(_fold_splits(pool, numbers, recipe))
    ]
    _keep_out_of_fold(folder, runs, numbers, pool)
    return _summarized("folds", runs, len(pool), folder)


def pool_of(*parts: Dataset | None) -> Dataset:
    """Return parts of a data set, such as train and val, as one; None is left out."""
    given = [part for part in parts if part is not None]
    return replace(
        given[0],
        images=joined([part.images for part in given]),
        labels=np.concatenate([part.labels for part in given]),
        paths=tuple(path for part in given for path in part.paths)
        if all(part.paths for part in given)
        else (),
        groups=tuple(group for part in given for group in part.groups),
    )


def fold_numbers(pool: Dataset, count: int, seed: int) -> NDArray[np.int64]:
    """Return the fold of each image, from 0, every class spread evenly; int64, shape (n,).

    Images of one group stay in one fold.

    Raises:
        RecipeError: a class has fewer images than folds.
        DataError: there are fewer groups than folds.
        MissingExtra: scikit-learn is not installed.
    """
    try:
        from sklearn.model_selection import StratifiedKFold
    except ImportError:
        raise MissingExtra(
            "folds need scikit-learn, which is not installed; type: pip install 'tinylens[train]'"
        ) from None
    labels = pool.labels
    present = np.bincount(labels)
    fewest = int(present[present > 0].min())
    if fewest < count:
        raise RecipeError(
            f"--folds {count}: a class has {fewest} images, expected at least {count}, one for "
            "each fold: take fewer folds"
        )
    if pool.groups:
        return groups.fold_numbers(labels, pool.groups, count, seed)
    folds = StratifiedKFold(count, shuffle=True, random_state=seed)
    numbers = np.empty(len(labels), np.int64)
    for number, (_, held_out) in enumerate(folds.split(labels, labels)):
        numbers[held_out] = number
    return numbers


def summarize(kind: Kind, scores: Sequence[Score]) -> Spread:
    """Return mean, standard deviation and 95 % interval of a figure over trainings.

    Of seeds the interval holds both kinds of luck: that of k seeds, Student's t times sd / √k, and
    that of the test images, half the width of one run's own interval, which no number of seeds
    makes smaller; the root of their squares' sum. Of folds it is the corrected t interval, since
    trainings that share images are alike: the variance is taken (1/k + 1/(k - 1)) times, not 1/k
    times (Nadeau & Bengio 2003, Machine Learning 52).

    >>> spread = summarize("folds", [Score(x, (0, 1)) for x in (0.90, 0.92, 0.91)])
    >>> f"{spread.mean:.3f} ± {spread.sd:.3f}, {spread.ci95[0]:.3f} to {spread.ci95[1]:.3f}"
    '0.910 ± 0.010, 0.871 to 0.949'
    """
    values = [score.value for score in scores if score.value is not None]
    count = len(values)
    mean, sd = statistics.mean(values), statistics.stdev(values)
    t = float(scipy.stats.t.ppf(0.975, count - 1))
    if kind == "folds":
        half = t * sd * (1 / count + 1 / (count - 1)) ** 0.5
    else:
        widths = [score.ci95[1] - score.ci95[0] for score in scores if score.ci95 is not None]
        half = float(np.hypot(t * sd / count**0.5, statistics.mean(widths) / 2))
    return Spread(mean, sd, (mean - half, mean + half), tuple(values))


# --- folds


def _fold_splits(pool: Dataset, numbers: NDArray[np.int64], recipe: Recipe) -> Iterator[Splits]:
    count = int(numbers.max()) + 1
    for number in range(count):
        rows = {"train": np.flatnonzero(numbers != number)}
        if recipe.data.val:
            rest, val = _val_of(pool, rows["train"], recipe)
            rows = {"train": rows["train"][rest], "val": rows["train"][val]}
        parts = pool.split(rows)
        note = (
            f"fold {number + 1} of {count}: what is called test here is the fold that was held "
            "out; the data set's own test split was not looked at"
        )
        held_out = pool.subset(np.flatnonzero(numbers == number))
        yield Splits(parts["train"], parts.get("val"), held_out, (note,))


def _val_of(
    pool: Dataset, rows: NDArray[np.int64], recipe: Recipe
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    labels, share, seed = pool.labels[rows], recipe.data.val, recipe.data.split_seed
    if pool.groups:
        return groups.carve(labels, [pool.groups[row] for row in rows], share, seed)
    return stratified_split(labels, share, seed)


def _keep_out_of_fold(
    folder: Path, runs: Sequence[Run], numbers: NDArray[np.int64], pool: Dataset
) -> None:
    """Write out_of_fold.npz: every image's probabilities by the run that had not seen it."""
    probabilities = np.empty((len(pool), len(pool.class_names)), np.float32)
    for number, run in enumerate(runs):
        rows = np.flatnonzero(numbers == number)
        arrays = run.predictions
        probabilities[rows[arrays["test_indices"]]] = arrays["test_probabilities"]
    kept: dict[str, Any] = {"probabilities": probabilities, "labels": pool.labels, "fold": numbers}
    files.write_with(folder / "out_of_fold.npz", lambda file: np.savez_compressed(file, **kept))


def out_of_fold(folder: Path) -> Arrays:
    """Return what a series of folds answered on images that it had not seen.

    Returns:
        "probabilities" float32 (n, classes), "labels" and "fold" int64 (n,), in the order of
        the images.

    Raises:
        RunError: the series is not finished.
    """
    path = folder / "out_of_fold.npz"
    if not path.is_file():
        raise RunError(f"{folder} has no out_of_fold.npz: its folds are not all trained yet")
    with path.open("rb") as file, np.load(file) as content:
        return {name: content[name] for name in content.files}


def mean_answers(runs: Sequence[Run], images: Images) -> NDArray[np.float32]:
    """Return the mean of what the networks of several runs answer, float32, shape (n, classes).

    Args:
        runs: of one series, so that their classes are in one order.
        images: uint8, that none of them was trained on.
    """
    from tinylens.inference.classifier import Classifier

    answers = [Classifier.open(run.model).probabilities(images) for run in runs]
    mean: NDArray[np.float32] = np.mean(answers, axis=0, dtype=np.float32)
    return mean


# --- the folder of a series


def next_folder(root: Path, stem: str) -> Path:
    """Return the newest folder `root/stem-N` whose series is not finished, or the next free one."""
    return files.next_numbered(root, stem, lambda path: (path / "summary.json").is_file())


def check_count(option: str, count: int) -> None:
    """Raise a RecipeError where a series would have too few or too many trainings."""
    if not FEWEST <= count <= MOST:
        raise RecipeError(f"{option} {count}: expected {FEWEST} to {MOST}, such as 5")


def claim(path: Path, settings: Mapping[str, Any], what: str) -> None:
    """Write the settings to a file, or check that it holds the same ones.

    Args:
        path: the file, in the folder that is claimed.
        settings: as JSON values.
        what: the folder is of, in words.

    Raises:
        RunError: it holds other settings, or is damaged.
    """
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(path, json.dumps(settings, indent=1, ensure_ascii=False) + "\n")
        return
    try:
        before = dict(json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise RunError(f"{path} cannot be read: {error}; remove it, or start anew") from None
    different = [name for name, value in settings.items() if before.get(name) != value]
    if different:
        raise RunError(
            f"{path.parent} holds another {what}, of another {', '.join(different)}; give the "
            "same settings to continue it, or another --out to start anew"
        )


def _claim(folder: Path, kind: Kind, count: int, recipe: Recipe, fingerprint: str) -> None:
    settings = {"kind": kind, "count": count, "recipe": recipe.model_dump(mode="json")}
    described = {**settings, "fingerprint": fingerprint}
    claim(folder / "series.json", described, "series of trainings")


def _summarized(kind: Kind, runs: Sequence[Run], images: int, folder: Path) -> Summary:
    tested = [run.evaluation.splits["test"] for run in runs]
    figures = {
        name: summarize(kind, [getattr(scores, name) for scores in tested])
        for name in OVERALL_FIGURES
        if all(getattr(scores, name).value is not None for scores in tested)
    }
    found = Summary(
        kind=kind,
        runs=tuple(run.path.name for run in runs),
        images=images,
        figures=figures,
        words=_words(kind, len(runs), images, figures["accuracy"]),
    )
    text = json.dumps(found.to_json(), indent=1, ensure_ascii=False)
    files.write_text(folder / "summary.json", text + "\n")
    return found


def _words(kind: Kind, count: int, images: int, accuracy: Spread) -> str:
    low, high = (100 * end for end in accuracy.ci95)
    evaluated = (
        f"{count} seeds, each judged on the same {images:,} test images"
        if kind == "seeds"
        else f"{count} folds of {images:,} images in all"
    )
    return (
        f"accuracy {100 * accuracy.mean:.2f} ± {100 * accuracy.sd:.2f} % over {evaluated}; expect "
        f"{low:.1f} to {high:.1f} % of another training on images like these"
    )
