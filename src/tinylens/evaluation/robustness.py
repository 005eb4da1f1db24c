"""Robustness to corruptions, shifts, rotation and compression."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from tinylens import metrics
from tinylens.data.dataset import Dataset, Splits
from tinylens.data.load import reopen
from tinylens.errors import RecipeError
from tinylens.evaluation.evaluate import in_order_of, load_part, record_look
from tinylens.inference.classifier import Classifier
from tinylens.results import Robustness, Score
from tinylens.run import Run

FloatImages = NDArray[Any]  # floating point
Images = NDArray[np.uint8]

STRENGTHS = (1, 2, 3, 4, 5)
STRETCH = 500  # images at a time


@dataclass(frozen=True)
class Corruption:
    """A way in which images get worse.

    Attributes:
        family: "noise", "blur", "weather" or "digital".
        corrupt: takes images, a random generator and one strength's parameters.
        parameters: of each strength.
    """

    family: str
    corrupt: Callable[..., FloatImages]
    parameters: tuple[tuple[Any, ...], ...]


def corrupted(images: Images, name: str, strength: int, seed: int = 0) -> Images:
    """Return images as a corruption leaves them.

    Args:
        images: uint8, shape (n, height, width, channels).
        name: one of CORRUPTIONS.
        strength: 1 to 5.
        seed: the same seed corrupts the same images in the same way.
    """
    corruption = CORRUPTIONS[name]
    parameters = corruption.parameters[strength - 1]
    result = np.empty_like(images)
    for start in range(0, len(images), STRETCH):
        chosen = slice(start, start + STRETCH)
        number = sorted(CORRUPTIONS).index(name)
        random = np.random.default_rng([seed, number, strength, start])
        samples = np.asarray(images[chosen], np.float32) / np.float32(255)
        result[chosen] = _as_levels(corruption.corrupt(samples, random, *parameters))
    return result


def _as_levels(images: FloatImages) -> Images:
    levels: Images = np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)
    return levels


# --- noise


def _gaussian_noise(x: FloatImages, random: np.random.Generator, spread: float) -> FloatImages:
    noisy: FloatImages = x + spread * random.standard_normal(x.shape, np.float32)
    return noisy


def _shot_noise(x: FloatImages, random: np.random.Generator, photons: float) -> FloatImages:
    return (random.poisson(x * photons) / photons).astype(np.float32)


def _impulse_noise(x: FloatImages, random: np.random.Generator, share: float) -> FloatImages:
    hit, white = random.random((2, *x.shape), np.float32)
    return np.where(hit < share, (white < 0.5).astype(np.float32), x)


# --- blur


def _defocus_blur(
    x: FloatImages, _: np.random.Generator, radius: float, soft: float
) -> FloatImages:
    """Blur by a disk whose edge is softened, as an aperture that is out of focus does."""
    reach = np.arange(-8, 9)
    disk = (reach[:, None] ** 2 + reach**2 <= radius**2).astype(np.float32)
    edge = np.exp(-(np.arange(-1, 2) ** 2) / (2 * soft**2))
    edge = np.outer(edge, edge) / edge.sum() ** 2
    kernel = ndimage.convolve(disk / disk.sum(), edge)
    return np.asarray(ndimage.convolve(x, kernel[None, :, :, None], mode="mirror"), np.float32)


def _glass_blur(
    x: FloatImages, random: np.random.Generator, spread: float, reach: int, rounds: int
) -> FloatImages:
    """Swap neighbouring pixels, as frosted glass does, between two slight blurs."""
    x = np.rint(_gaussian(x, spread) * 255) / np.float32(255)
    count, height, width, _ = x.shape
    every = np.arange(count)
    for _ in range(rounds):
        for row in range(height - reach - 1, reach - 1, -1):
            for column in range(width - reach - 1, reach - 1, -1):
                down, right = random.integers(-reach, reach, (2, count))
                there = every, row + down, column + right
                kept = x[:, row, column].copy()
                x[:, row, column] = x[there]
                x[there] = kept
    return _gaussian(x, spread)


def _gaussian(x: FloatImages, spread: float) -> FloatImages:
    return np.asarray(ndimage.gaussian_filter(x, (0, spread, spread, 0)), np.float32)


def _motion_blur(
    x: FloatImages, random: np.random.Generator, radius: int, spread: float
) -> FloatImages:
    return _smeared(x, random.uniform(-45, 45, len(x)), radius, spread)


def _smeared(x: FloatImages, degrees: NDArray[Any], radius: int, spread: float) -> FloatImages:
    """Return each image as if it had moved in a direction of its own, old light fading."""
    width = 2 * radius + 1
    weights = np.exp(-(np.arange(width) ** 2) / (2 * spread**2))
    weights /= weights.sum()
    turn = np.deg2rad(degrees)
    result = np.zeros_like(x)
    for step, weight in enumerate(weights):
        down = np.rint(step * np.sin(turn)).astype(int)
        right = np.rint(step * np.cos(turn)).astype(int)
        result += float(weight) * _moved(x, down, right)
    return result


def _moved(x: FloatImages, down: NDArray[Any], right: NDArray[Any]) -> FloatImages:
    """Return each image moved by whole pixels, its border repeated."""
    count, height, width, _ = x.shape
    rows = np.clip(np.arange(height) + down[:, None], 0, height - 1)
    columns = np.clip(np.arange(width) + right[:, None], 0, width - 1)
    moved: FloatImages = x[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved


def _zoom_blur(x: FloatImages, _: np.random.Generator, largest: float, step: float) -> FloatImages:
    """Return the mean over zooms from 1 to under `largest`, as if moved towards the camera."""
    factors = np.arange(1, largest, step)
    zoomed = sum(_zoomed(x, factor) for factor in factors)
    return ((x + zoomed) / (len(factors) + 1)).astype(np.float32)


def _zoomed(x: FloatImages, factor: float) -> FloatImages:
    """Return the middle of each image at full size, linear between pixels."""
    rows, columns = (_zoom_matrix(side, factor) for side in x.shape[1:3])
    zoomed: FloatImages = np.einsum("ah,nhwc,bw->nabc", rows, x, columns, optimize=True)
    return zoomed


def _zoom_matrix(side: int, factor: float) -> NDArray[np.float32]:
    """Return what weighs the pixels of a line for each pixel of the line zoomed."""
    taken = int(np.ceil(side / factor))
    first = (side - taken) // 2
    size = round(taken * factor)
    places = np.linspace(0, taken - 1, size)[(size - side) // 2 :][:side]
    low = np.minimum(places.astype(int), max(taken - 2, 0))
    matrix = np.zeros((side, side), np.float32)
    lines = np.arange(side)
    np.add.at(matrix, (lines, first + low), 1 - (places - low))
    np.add.at(matrix, (lines, first + np.minimum(low + 1, taken - 1)), places - low)
    return matrix


# --- weather


def _snow(
    x: FloatImages,
    random: np.random.Generator,
    flake: tuple[float, float, float, float],
    streak: tuple[int, float],
    clear: float,
) -> FloatImages:
    """Let flakes fall, each a streak, and whiten the image.

    Args:
        x: images.
        random: the generator.
        flake: mean and spread of the noise they come from, its zoom, and what it must exceed.
        streak: its length and how it fades.
        clear: share of the image that keeps its colours.
    """
    mean, spread, zoom, threshold = flake
    flakes = random.normal(mean, spread, (*x.shape[:3], 1)).astype(np.float32)
    flakes = _zoomed(flakes, zoom)
    flakes[flakes < threshold] = 0
    flakes = _smeared(np.clip(flakes, 0, 1), random.uniform(-135, -45, len(x)), *streak)
    white = np.maximum(x, _grey(x) * 1.5 + 0.5)
    return clear * x + (1 - clear) * white + flakes + flakes[:, ::-1, ::-1]


def _grey(x: FloatImages) -> FloatImages:
    """Return luminance (ITU-R BT.601), shape (n, height, width, 1)."""
    if x.shape[3] == 1:
        return x
    return (x @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]


def _frost(x: FloatImages, random: np.random.Generator, clear: float, ice: float) -> FloatImages:
    """Lay crystals over the image: bright ridges of a cloud, thicker in some places."""
    first, second = (_clouds(x.shape, random, decay=1.6) for _ in range(2))
    ridges = (1 - np.abs(2 * first - 1)) ** 3
    frost = np.clip(0.35 + 0.75 * ridges * (0.4 + second), 0, 1)[..., None]
    tint = np.ones(1, np.float32) if x.shape[3] == 1 else np.array([0.9, 0.97, 1.0], np.float32)
    frosted: FloatImages = clear * x + ice * frost * tint
    return frosted


def _fog(x: FloatImages, random: np.random.Generator, thick: float, decay: float) -> FloatImages:
    """Add a cloud, and darken so that the brightest pixel stays as bright as it was."""
    brightest = x.max(axis=(1, 2, 3), keepdims=True)
    foggy = x + thick * _clouds(x.shape, random, decay)[..., None]
    fogged: FloatImages = (foggy * brightest / (brightest + thick)).astype(np.float32)
    return fogged


def _clouds(shape: tuple[int, ...], random: np.random.Generator, decay: float) -> FloatImages:
    """Return a plasma fractal an image, float32 from 0 to 1, shape (n, height, width).

    The diamond-square algorithm (Fournier, Fussell & Carpenter 1982): the middles of squares and
    then of their edges are means of their corners, moved at random, at each size by 1 / decay less.
    """
    count, height, width = shape[:3]
    side = 1 << (max(height, width) - 1).bit_length()
    grid = np.zeros((count, side, side), np.float32)
    step, wibble = side, 100.0
    while step >= 2:
        half = step // 2

        def moved(means: NDArray[Any], wibble: float = wibble) -> NDArray[Any]:
            return means / 4 + wibble * random.uniform(-wibble, wibble, means.shape)

        corners = grid[:, ::step, ::step]
        below = corners + np.roll(corners, -1, axis=1)
        grid[:, half::step, half::step] = moved(below + np.roll(below, -1, axis=2))
        middles = grid[:, half::step, half::step]
        beside = middles + np.roll(middles, 1, axis=1)
        grid[:, ::step, half::step] = moved(beside + corners + np.roll(corners, -1, axis=2))
        above = middles + np.roll(middles, 1, axis=2)
        grid[:, half::step, ::step] = moved(above + corners + np.roll(corners, -1, axis=1))
        step, wibble = half, wibble / decay
    grid -= grid.min(axis=(1, 2), keepdims=True)
    grid /= np.maximum(grid.max(axis=(1, 2), keepdims=True), 1e-12)
    return grid[:, :height, :width]


def _brightness(x: FloatImages, _: np.random.Generator, more: float) -> FloatImages:
    """Raise the value of HSV, hue and saturation left as they are."""
    value = x.max(axis=3, keepdims=True)
    raised = np.clip(value + more, 0, 1)
    brighter: FloatImages = np.where(
        value > 0, x * raised / np.maximum(value, 1e-12), raised
    ).astype(np.float32)
    return brighter


# --- digital


def _contrast(x: FloatImages, _: np.random.Generator, share: float) -> FloatImages:
    mean = x.mean(axis=(1, 2), keepdims=True)
    flatter: FloatImages = (x - mean) * share + mean
    return flatter


def _elastic(
    x: FloatImages, random: np.random.Generator, strength: float, smooth: float, shear: float
) -> FloatImages:
    """Shear each image a little and then stretch it here and there (Simard et al. 2003)."""
    count, height, width, _ = x.shape
    side = min(height, width) // 3
    middle = np.array([height // 2, width // 2], float)
    corners = middle + side * np.array([[1, 1], [-1, 1], [-1, -1]], float)
    moved = corners + random.uniform(-shear, shear, (count, 3, 2))
    # the affine map that takes the moved corners back to where they were
    known = np.concatenate([moved, np.ones((count, 3, 1))], axis=2)
    affine = np.linalg.solve(known, np.broadcast_to(corners, (count, 3, 2)))
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    plane = np.stack([rows, columns, np.ones_like(rows)], axis=-1).reshape(-1, 3)
    sheared = _sampled(x, *np.moveaxis((plane @ affine).reshape(count, height, width, 2), -1, 0))
    wild = random.uniform(-1, 1, (2, count, height, width))
    spread = (0, 0, smooth, smooth)
    down, right = strength * ndimage.gaussian_filter(wild, spread, mode="reflect", truncate=3)
    return _sampled(sheared, rows + down, columns + right)


def _sampled(x: FloatImages, rows: NDArray[Any], columns: NDArray[Any]) -> FloatImages:
    """Return the values at places between pixels, linear, the border mirrored."""
    _, height, width, _ = x.shape
    every = np.arange(len(x))[:, None, None]
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    result = np.zeros_like(x)
    for down in (0, 1):
        for right in (0, 1):
            weight = np.abs(1 - down - (rows - top)) * np.abs(1 - right - (columns - left))
            values = x[every, _mirrored(top + down, height), _mirrored(left + right, width)]
            result += weight[..., None].astype(np.float32) * values
    return result


def _mirrored(places: NDArray[Any], side: int) -> NDArray[Any]:
    folded = places % (2 * side)
    inside: NDArray[Any] = np.minimum(folded, 2 * side - 1 - folded)
    return inside


def _pixelate(x: FloatImages, _: np.random.Generator, share: float) -> FloatImages:
    box = Image.Resampling.BOX

    def coarse(image: Image.Image) -> Image.Image:
        small = (max(int(image.width * share), 1), max(int(image.height * share), 1))
        return image.resize(small, box).resize(image.size, box)

    return one_by_one(_as_levels(x), coarse) / np.float32(255)


def _jpeg(x: FloatImages, _: np.random.Generator, quality: int) -> FloatImages:
    return through_jpeg(_as_levels(x), quality) / np.float32(255)


def through_jpeg(images: Images, quality: int) -> Images:
    """Return images as they come back from a JPEG file of some quality."""

    def encoded(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return one_by_one(images, encoded)


def one_by_one(images: Images, change: Callable[[Image.Image], Image.Image]) -> Images:
    """Return each image as `change` leaves it, all of one size."""
    grey = images.shape[3] == 1
    changed = [
        np.asarray(change(Image.fromarray(levels[..., 0] if grey else levels))) for levels in images
    ]
    result: Images = np.stack(changed)
    return result[..., None] if grey else result


def _each(*values: Any) -> tuple[tuple[Any, ...], ...]:
    return tuple((value,) for value in values)


CORRUPTIONS: Mapping[str, Corruption] = {
    "gaussian_noise": Corruption("noise", _gaussian_noise, _each(0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": Corruption("noise", _shot_noise, _each(500, 250, 100, 75, 50)),
    "impulse_noise": Corruption("noise", _impulse_noise, _each(0.01, 0.02, 0.03, 0.05, 0.07)),
    "defocus_blur": Corruption(
        "blur", _defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))
    ),
    "glass_blur": Corruption(
        "blur", _glass_blur, ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))
    ),
    "motion_blur": Corruption("blur", _motion_blur, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    "zoom_blur": Corruption(
        "blur", _zoom_blur, ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01))
    ),
    "snow": Corruption(
        "weather",
        _snow,
        (
            ((0.1, 0.2, 1, 0.6), (8, 3), 0.95),
            ((0.1, 0.2, 1, 0.5), (10, 4), 0.9),
            ((0.15, 0.3, 1.75, 0.55), (10, 4), 0.9),
            ((0.25, 0.3, 2.25, 0.6), (12, 6), 0.85),
            ((0.3, 0.3, 1.25, 0.65), (14, 12), 0.8),
        ),
    ),
    "frost": Corruption(
        "weather", _frost, ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))
    ),
    "fog": Corruption("weather", _fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    "brightness": Corruption("weather", _brightness, _each(0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": Corruption("digital", _contrast, _each(0.75, 0.5, 0.4, 0.3, 0.15)),
    "elastic_transform": Corruption(
        "digital",
        _elastic,
        ((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96)),
    ),
    "pixelate": Corruption("digital", _pixelate, _each(0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": Corruption("digital", _jpeg, _each(80, 65, 58, 50, 40)),
}


Classify = Callable[[Images], NDArray[np.float32]]

SHIFTS = (1, 2, 3, 4)  # pixels, in each of eight directions
TURNS = (5, 10, 15, 20)  # degrees, to either side
JPEG_QUALITIES = (90, 75, 50, 30, 15)
IMAGES = 2_000  # enough for one point of accuracy, and 100 changes of each within a minute or two
BATCH = 500


def robustness(
    model: Run | str | Path,
    data: str | Path | Dataset | Splits | None = None,
    *,
    images: int = IMAGES,
    seed: int = 0,
    data_dir: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    command: str = "tinylens.robustness()",
) -> Robustness:
    """Measure accuracy on test images that are corrupted, shifted, rotated and compressed.

    Without `data` the result is written to robustness.json in the folder of the run;
    `tinylens.report` then shows it in the report.

    Args:
        model: a model.onnx, the folder of a run, or a `Run`.
        data: a known set's name or a path, whose test split is taken; `Splits`, likewise; or a
            `Dataset`, all of which is taken. None takes the run's own test split.
        images: how many of them, drawn with `seed`; all of them where there are fewer.
        seed: of what is drawn.
        data_dir: where files are looked for first.
        progress: called with changes done and changes in all.
        command: recorded in a run as what opened its test split.

    Raises:
        DataError: the data set cannot be used, or has other classes than the model.
        ModelError: the model file is missing or damaged.
        RecipeError: `images` is not positive, or no run says which its test images are.
        RunError: the run cannot be read or written.

    >>> robustness("runs/fast-1").mean_corruption_error.value  # doctest: +SKIP
    0.31
    """
    path = Path(model)
    run = Run(path if path.is_dir() else path.parent)
    classifier = Classifier.open(path)
    folder = None if data_dir is None else Path(data_dir)
    if isinstance(data, Dataset):
        given = data
    elif isinstance(data, Splits):
        given = data.test
    elif data is not None:
        given = load_part(str(data), "test", run, classifier.rule, folder)
    else:
        given = _own_test(run, folder)
    evaluated = in_order_of(classifier.class_names, given)
    if run.started:
        record_look(run, command)
    found = measure(
        classifier.probabilities, evaluated, images=images, seed=seed, progress=progress
    )
    if data is None:
        run.write_robustness(found)
    return found


def _own_test(run: Run, data_dir: Path | None) -> Dataset:
    """Return the test split that a run was evaluated on."""
    if not run.started:
        raise RecipeError(
            f"{run.path} is no run, so its test images are not known; name a data set: "
            "tinylens robustness MODEL DATASET"
        )
    return reopen(run, data_dir=data_dir).test


def measure(
    classify: Classify,
    data: Dataset,
    *,
    images: int = IMAGES,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Robustness:
    """Judge a classifier on images that got worse in 15 ways, moved, turned and compressed.

    Args:
        classify: uint8 images → probabilities, as for `score_classifier`.
        data: the test split, classes in the classifier's order.
        images: how many of it, drawn with `seed`; all of them where it has fewer.
        seed: of what is drawn.
        progress: called with changes judged and changes in all.

    Raises:
        RecipeError: `images` is not positive.
    """
    if images < 1:
        raise RecipeError(f"--images {images}: expected at least 1, such as {IMAGES}")
    if images < len(data):
        rows = np.random.default_rng(seed).choice(len(data), images, replace=False)
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
        images=len(worse[0]),
        clean=mean("clean", 0),
        corruptions={name: tuple(mean(name, s) for s in STRENGTHS) for name in CORRUPTIONS},
        mean_corruption_error=held.complement(),
        shifts={pixels: mean("shift", pixels) for pixels in SHIFTS},
        turns={degrees: mean("turn", degrees) for degrees in TURNS},
        mirrored=mean("mirrored", 0),
        jpeg={quality: mean("jpeg", quality) for quality in JPEG_QUALITIES},
    )


def _mean_score(right: list[NDArray[np.bool_]]) -> Score:
    """Return the mean accuracy over changes of the same images.

    Of one change the interval is Wilson's. Of several it is that of a mean over images of their
    shares of right answers, since the images are what was drawn.
    """
    shares = np.mean(right, axis=0)
    value, n = float(shares.mean()), len(shares)
    if len(right) == 1:
        return Score(value, metrics.wilson_interval(round(value * n), n))
    half = metrics.NORMAL_975 * float(shares.std(ddof=1)) / n**0.5 if n > 1 else 1.0
    return Score(value, (max(value - half, 0.0), min(value + half, 1.0)))


# --- small changes


def shifted(images: Images, down: int, right: int) -> Images:
    """Return images moved by whole pixels, their border repeated.

    >>> image = np.arange(3, dtype=np.uint8).reshape(1, 1, 3, 1)
    >>> shifted(image, 0, 1).ravel().tolist()
    [0, 0, 1]
    """
    _, height, width, _ = images.shape
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return images[:, rows[:, None], columns]


def turned(images: Images, degrees: float) -> Images:
    """Return images turned about their middle, linear between pixels, the border repeated."""
    _, height, width, _ = images.shape
    reach = max(height, width) // 2
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    rotated = one_by_one(padded, lambda one: one.rotate(degrees, Image.Resampling.BILINEAR))
    return rotated[:, reach : reach + height, reach : reach + width]
