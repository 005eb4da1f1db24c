"""How a classifier holds up when pictures get worse, or are moved a little."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinylens import metrics
from tinylens.corruptions import CORRUPTIONS, STRENGTHS, corrupted, one_by_one, through_jpeg
from tinylens.data.dataset import Dataset, Images
from tinylens.errors import RecipeError
from tinylens.results import Robustness, Score

Classify = Callable[[Images], NDArray[np.float32]]

SHIFTS = (1, 2, 3, 4)  # pixels, in each of eight directions
TURNS = (5, 10, 15, 20)  # degrees, to either side
JPEG_QUALITIES = (90, 75, 50, 30, 15)
PICTURES = 2_000  # enough for one point of accuracy, and 100 changes of each within a minute or two
BATCH = 500


def measure(
    classify: Classify,
    data: Dataset,
    *,
    pictures: int = PICTURES,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Robustness:
    """Judge a classifier on pictures that got worse in 15 ways, moved, turned and compressed.

    Args:
        classify: uint8 pictures → probabilities, as for `tinylens.evaluate`.
        data: the test part, classes in the classifier's order.
        pictures: how many of it, drawn with `seed`; all of them where it has fewer.
        seed: of what is drawn.
        progress: called with changes judged and changes in all.

    Raises:
        RecipeError: `pictures` is not positive.
    """
    if pictures < 1:
        raise RecipeError(f"--pictures {pictures}: expected at least 1, such as {PICTURES}")
    if pictures < len(data):
        rows = np.random.default_rng(seed).choice(len(data), pictures, replace=False)
        data = data.subset(np.sort(rows))
    right: dict[tuple[str, float, int], NDArray[np.bool_]] = {}
    kinds = list(_changes(data.images, seed))
    for done, (kind, change) in enumerate(kinds):
        right[kind] = _right(classify, change(), data.labels)
        if progress:
            progress(done + 1, len(kinds))
    return _assembled(right)


Kind = tuple[str, float, int]  # what was done, how much of it, and to which side


def _changes(images: Images, seed: int) -> Iterator[tuple[Kind, Callable[[], Images]]]:
    """Yield every change that is judged, and what makes it."""
    yield ("clean", 0, 0), lambda: images
    for name in CORRUPTIONS:
        for strength in STRENGTHS:
            yield (name, strength, 0), partial(corrupted, images, name, strength, seed)
    for pixels in SHIFTS:
        for side, (down, right) in enumerate(_directions()):
            yield ("shift", pixels, side), partial(shifted, images, pixels * down, pixels * right)
    for degrees in TURNS:
        for side in (-1, 1):
            yield ("turn", degrees, side), partial(turned, images, side * degrees)
    yield ("mirrored", 0, 0), lambda: images[:, :, ::-1]
    for quality in JPEG_QUALITIES:
        yield ("jpeg", quality, 0), partial(through_jpeg, images, quality)


def _directions() -> list[tuple[int, int]]:
    return [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0)]


def _right(classify: Classify, images: Images, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    answers = [
        classify(np.ascontiguousarray(images[start : start + BATCH])).argmax(axis=1)
        for start in range(0, len(images), BATCH)
    ]
    right: NDArray[np.bool_] = np.concatenate(answers) == labels
    return right


def _assembled(right: Mapping[Kind, NDArray[np.bool_]]) -> Robustness:
    def mean(what: str, much: float) -> Score:
        return _mean_score(
            [each for (kind, size, _), each in right.items() if (kind, size) == (what, much)]
        )

    worse = [each for (kind, _, _), each in right.items() if kind in CORRUPTIONS]
    held = _mean_score(worse)
    return Robustness(
        pictures=len(worse[0]),
        clean=mean("clean", 0),
        corruptions={name: tuple(mean(name, s) for s in STRENGTHS) for name in CORRUPTIONS},
        mean_corruption_error=held.complement(),
        shifts={pixels: mean("shift", pixels) for pixels in SHIFTS},
        turns={degrees: mean("turn", degrees) for degrees in TURNS},
        mirrored=mean("mirrored", 0),
        jpeg={quality: mean("jpeg", quality) for quality in JPEG_QUALITIES},
    )


def _mean_score(right: list[NDArray[np.bool_]]) -> Score:
    """Return the mean accuracy over changes of the same pictures.

    Of one change the interval is Wilson's. Of several it is that of a mean over pictures of their
    shares of right answers, since the pictures are what was drawn.
    """
    shares = np.mean(right, axis=0)
    value, n = float(shares.mean()), len(shares)
    if len(right) == 1:
        return Score(value, metrics.wilson_interval(round(value * n), n))
    half = metrics.NORMAL_975 * float(shares.std(ddof=1)) / n**0.5 if n > 1 else 1.0
    return Score(value, (max(value - half, 0.0), min(value + half, 1.0)))


# --- small changes


def shifted(images: Images, down: int, right: int) -> Images:
    """Return pictures moved by whole pixels, their border repeated.

    >>> picture = np.arange(3, dtype=np.uint8).reshape(1, 1, 3, 1)
    >>> shifted(picture, 0, 1).ravel().tolist()
    [0, 0, 1]
    """
    _, height, width, _ = images.shape
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return images[:, rows[:, None], columns]


def turned(images: Images, degrees: float) -> Images:
    """Return pictures turned about their middle, linear between pixels, the border repeated."""
    _, height, width, _ = images.shape
    reach = max(height, width) // 2
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    rotated = one_by_one(padded, lambda one: one.rotate(degrees, Image.Resampling.BILINEAR))
    return rotated[:, reach : reach + height, reach : reach + width]
