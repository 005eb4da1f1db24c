"""Images for the tests of the input checks."""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image

from tinylens.inference.input_checks.reference import Reference
from tinylens.inference.input_checks.study import study

SIDE = 28


def make_images(count: int = 300, seed: int = 0) -> np.ndarray:
    """Return grey images, uint8 (n, 28, 28, 1): a bright thing with a darker rim on black.

    It is a box with a notch, as high as the image and of any width, or the other way round.
    """
    random = np.random.default_rng(seed)
    made = np.zeros((count, SIDE, SIDE, 1), np.uint8)
    for image in made:
        across = int(random.integers(10, 25))
        left = (SIDE - across) // 2
        thing = random.integers(170, 240, (SIDE, across)) // 10 * 10
        thing[:2], thing[-2:], thing[:, :2], thing[:, -2:] = 90, 90, 90, 90
        thing[: SIDE // 4, across // 2 - 2 : across // 2 + 2] = 0
        image[:, left : left + across, 0] = thing
        if random.random() < 0.5:
            image[...] = image.transpose(1, 0, 2)
    return made


@functools.cache
def reference() -> Reference:
    return study(make_images())


def scenes(count: int = 200, side: int = 32) -> np.ndarray:
    """Return images in colour with other grounds each, uint8 (n, side, side, 3)."""
    random = np.random.default_rng(1)
    few = random.integers(0, 256, (count, 4, 4, 3), np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(each).resize((side, side), Image.BICUBIC)) for each in few]
    )


def enlarged(image: np.ndarray, side: int) -> np.ndarray:
    """Return an image (h, w, 1) enlarged smoothly to (side, side, 1)."""
    return np.asarray(Image.fromarray(image[..., 0]).resize((side, side), Image.BICUBIC))[..., None]


def photo(
    image: np.ndarray,
    colour: tuple[int, int, int] = (250, 250, 250),
    *,
    negative: bool = True,
    size: tuple[int, int] = (240, 320),
    side: int = 150,
    at: tuple[int, int] = (30, 20),
    noise: float = 2.0,
) -> np.ndarray:
    """Return the thing of an image on a ground of that colour, uint8 (*size, 3)."""
    random = np.random.default_rng(0)
    large = enlarged(image, side).astype(float)
    covered = enlarged(np.where(image > 0, 255, 0).astype(np.uint8), side) / 255
    made = np.full((*size, 3), colour, float)
    inside = np.s_[at[0] : at[0] + side, at[1] : at[1] + side]
    made[inside] = covered * (255 - large if negative else large) + (1 - covered) * made[inside]
    made += random.normal(0, noise, made.shape)
    return np.clip(np.rint(made), 0, 255).astype(np.uint8)
