"""x"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

KINDS = (
    "white table",
    "coloured cloth",
    "wood",
    "dark floor",
    "grey card",
    "black margins",
    "enlarged",
)


def photo(values: np.ndarray, kind: str, random: np.random.Generator) -> bytes:
    """Return a JPEG of a Fashion-MNIST picture, uint8 (28, 28), as a photo of such a kind."""
    short = int(random.integers(200, 601))
    ratio = random.choice([1.0, 4 / 3, 3 / 4])
    height, width = (short, round(short * ratio)) if ratio >= 1 else (round(short / ratio), short)
    if kind == "enlarged":
        height = width = short
    ground = GROUNDS[kind](height, width, random)
    look, alpha = _cut_out(values)
    if kind in CAMERA:
        look = 255 - look
    share = 1.0 if kind == "enlarged" else random.uniform(0.35, 0.85)
    side = round(share * min(height, width))
    top, left = (int(random.integers(0, room - side + 1)) for room in (height, width))
    look, alpha = (
        np.asarray(Image.fromarray(each).resize((side, side), Image.Resampling.BICUBIC), np.float64)
        for each in (look, alpha)
    )
    cover = np.zeros((height, width, 1))
    cover[top : top + side, left : left + side, 0] = alpha / 255
    thing = np.zeros((height, width, 1))
    thing[top : top + side, left : left + side, 0] = look
    tint = np.ones(3)
    if kind in CAMERA and random.random() < 0.5:
        tint = random.uniform(0.6, 1.0, 3)
        tint /= tint.max()
    picture = ground * (1 - cover) + thing * tint * cover
    if kind not in ("black margins", "enlarged"):
        picture = picture * _light(height, width, random)
        picture = picture + random.normal(0, random.uniform(1, 4), picture.shape)
    image = Image.fromarray(np.clip(np.rint(picture), 0, 255).astype(np.uint8))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(random.integers(60, 96)))
    return file.getvalue()


def _cut_out(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how bright the thing is, and how much of each pixel it covers (255: all).

    Its border pixels are mixed with black; there it is as bright as the brightest neighbour.
    """
    around = np.pad(values, 1)
    brightest = np.max([around[y : y + 28, x : x + 28] for y in range(3) for x in range(3)], axis=0)
    inner = np.pad(values > 0, 1)
    whole = np.min([inner[y : y + 28, x : x + 28] for y in range(3) for x in range(3)], axis=0)
    alpha = np.where(whole, 255, np.minimum(255, values.astype(int) * 4)).astype(np.uint8)
    return np.where(whole, values, brightest).astype(np.uint8), alpha


def _light(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    angle, strength = random.uniform(0, 2 * np.pi), random.uniform(0, 0.2)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return (1 + strength * (np.cos(angle) * x + np.sin(angle) * y) / 1.4)[..., None]


def _white(height, width, random):
    return np.full((height, width, 3), random.uniform(225, 255) * random.uniform(0.96, 1, 3))


def _coloured(height, width, random):
    import colorsys

    rgb = colorsys.hsv_to_rgb(
        random.uniform(), random.uniform(0.25, 0.9), random.uniform(0.35, 0.95)
    )
    return np.full((height, width, 3), 255 * np.array(rgb))


def _wood(height, width, random):
    y, x = np.mgrid[0:height, 0:width] / min(height, width)
    if random.random() < 0.5:
        x, y = y, x
    bend = 0.15 * np.sin(2 * np.pi * (random.uniform(0.3, 1) * y + random.uniform()))
    grain = sum(
        np.sin(2 * np.pi * (f * (x + bend / k) + random.uniform())) / k
        for k, f in enumerate(random.uniform(4, 30, 4), 1)
    )
    base = random.uniform(110, 210) * np.array(
        [1, random.uniform(0.65, 0.8), random.uniform(0.4, 0.6)]
    )
    planks = 1 + 0.06 * (np.floor(x * random.uniform(2, 4)) % 2)
    return base * (planks[..., None] + random.uniform(0.04, 0.1) * grain[..., None])


def _dark(height, width, random):
    return np.full((height, width, 3), random.uniform(10, 60) * random.uniform(0.85, 1, 3))


def _grey(height, width, random):
    return np.full((height, width, 3), random.uniform(70, 180) * random.uniform(0.96, 1, 3))


def _black(height, width, random):
    return np.zeros((height, width, 3))


GROUNDS: dict[str, Callable] = {
    "white table": _white,
    "coloured cloth": _coloured,
    "wood": _wood,
    "dark floor": _dark,
    "grey card": _grey,
    "black margins": _black,
    "enlarged": _black,
}
CAMERA = {"white table", "coloured cloth", "wood", "grey card"}
