"""Synthetic `shapes` dataset, for tests, demos and offline machines."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tinylens.data.dataset import Dataset, Images, Labels, Splits

CLASS_NAMES = (
    "circle",
    "ring",
    "triangle",
    "square",
    "pentagon",
    "star",
    "cross",
    "heart",
    "crescent",
    "arrow",
)
OVERSAMPLING = 3  # drawn three times as large and shrunk: edges are smooth as in photographs
NOISE = 18.0  # standard deviation in grey levels
LEAST_CONTRAST = 90.0  # between shape and background, as a distance in RGB

Outline = NDArray[np.float64]


def shapes(n_train: int = 5000, n_test: int = 1000, seed: int = 0, size: int = 32) -> Splits:
    """Generate ten shapes of random colour, position, size and rotation, on noise.

    Colour and position carry no class information: a linear model fails, a small CNN learns.

    Args:
        n_train: Training images, about equal per class.
        n_test: Test images.
        seed: Random seed.
        size: Side in pixels.

    >>> data = shapes(n_train=20, n_test=10)
    >>> len(data.train), data.train.image_shape, data.train.counts.tolist()
    (20, (32, 32, 3), [2, 2, 2, 2, 2, 2, 2, 2, 2, 2])
    """
    parts = []
    for number, count in enumerate((n_train, n_test)):
        random = np.random.default_rng([seed, number])
        labels = random.permutation(np.arange(count) % len(CLASS_NAMES))
        parts.append(Dataset(_drawn(labels, size, random), labels, CLASS_NAMES, source="shapes"))
    return Splits(parts[0], None, parts[1])


def _drawn(labels: Labels, size: int, random: Generator) -> Images:
    images = np.empty((len(labels), size, size, 3), np.uint8)
    for row, label in enumerate(labels):
        background, colour = _two_colours(random)
        mask = _mask(CLASS_NAMES[label], size, random)
        images[row] = np.clip(background + mask * (colour - background), 0, 255)
    noise = random.normal(0, NOISE, images.shape).astype(np.float32)
    noisy: Images = np.clip(images + noise, 0, 255).astype(np.uint8)
    return noisy


def _two_colours(random: Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw background and shape colours with sufficient contrast."""
    while True:
        background, colour = random.uniform(0, 255, (2, 3))
        if np.linalg.norm(background - colour) >= LEAST_CONTRAST:
            return background, colour


def _mask(name: str, size: int, random: Generator) -> NDArray[np.float64]:
    """Return the pixel coverage of a shape, 0 to 1, shape (size, size, 1)."""
    side = size * OVERSAMPLING
    radius = random.uniform(0.26, 0.42) * side
    centre = random.uniform(radius, side - radius, 2)
    angle = random.uniform(0, 2 * math.pi)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    canvas = Image.new("L", (side, side))
    pen = ImageDraw.Draw(canvas)
    for outline, ink in _outlines(name):
        pen.polygon([tuple(point) for point in outline @ turn * radius + centre], fill=ink)
    return np.asarray(canvas.reduce(OVERSAMPLING), np.float64)[..., None] / 255


def _outlines(name: str) -> list[tuple[Outline, int]]:
    """Return (polygon, ink 255 or 0) of a shape within the unit circle."""
    if name == "ring":
        return [(_OUTLINES["circle"], 255), (_OUTLINES["circle"] * 0.6, 0)]
    if name == "crescent":
        return [(_OUTLINES["circle"], 255), (_OUTLINES["circle"] * 0.85 + [0.45, 0], 0)]
    return [(_OUTLINES[name], 255)]


def _regular(corners: int) -> Outline:
    angles = np.arange(corners) * 2 * math.pi / corners
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star(points: int, inner: float) -> Outline:
    outline = _regular(2 * points)
    outline[1::2] *= inner
    return outline


def _heart() -> Outline:
    t = np.linspace(0, 2 * math.pi, 40, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, -y], axis=1) / 17


def _cross(width: float) -> Outline:
    w = width
    corners = [(w, w), (w, 1), (-w, 1), (-w, w), (-1, w), (-1, -w), (-w, -w), (-w, -1), (w, -1)]
    return np.array([*corners, (w, -w), (1, -w), (1, w)])


def _arrow() -> Outline:
    return np.array([(1, 0), (0, 0.8), (0, 0.3), (-1, 0.3), (-1, -0.3), (0, -0.3), (0, -0.8)])


_OUTLINES: dict[str, Outline] = {
    "circle": _regular(36),
    "triangle": _regular(3),
    "square": _regular(4),
    "pentagon": _regular(5),
    "star": _star(5, 0.4),
    "cross": _cross(0.3),
    "heart": _heart(),
    "arrow": _arrow(),
}
