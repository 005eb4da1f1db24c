"""An image as a network would see it: a window of it, its ground taken away, its negative."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tinylens.inference.input_checks.background import (
    WHOLE,
    Ground,
    Pixels,
    Window,
    difference,
    resized,
    thing,
)
from tinylens.inference.input_checks.reference import Reference

COARSE = 4  # times that size: what is larger is first made smaller by whole pixels
FINE = 4  # times the network's sides: at that size a thing is parted from its ground
SOFT = 14  # of the image's side: how far from its outline a thing can still fade into the ground

Covered = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Framed:
    """A window of an image, small.

    Attributes:
        pixels: uint8, shape (height, width, channels).
        covered: how much of each pixel the thing takes up, 0 to 1, shape (height, width).
    """

    pixels: Pixels
    covered: Covered


def window_around(box: Window, shape: tuple[int, ...], reference: Reference) -> Window:
    """Return the window in which a thing fills as much, and where, as in the training images.

    Args:
        box: of the thing, in the image.
        shape: of the image: height, width.
        reference: of the training images.
    """
    sides = reference.shape[:2]
    pixels = box.height * shape[0], box.width * shape[1]
    scale = max(have / want for have, want in zip(pixels, sides, strict=True)) / reference.fill[1]
    height, width = (side * scale / whole for side, whole in zip(sides, shape[:2], strict=True))
    (down, right), (y, x) = box.middle, reference.middle
    return Window(down - y * height, right - x * width, height, width)


def frame(pixels: Pixels, window: Window, ground: Ground, reference: Reference) -> Framed:
    """Return a window of an image, at most `FINE` times as large as the network wants it.

    What lies outside of the image is filled with the ground's colour.
    """
    height, width = pixels.shape[:2]
    size = [
        min(FINE * wanted, max(wanted, math.ceil(share * side)))
        for wanted, share, side in zip(
            reference.shape[:2], (window.height, window.width), (height, width), strict=True
        )
    ]
    cut = _cut(pixels, window, ground, (size[1], size[0]))
    return Framed(cut, _cover(cut, ground, window))


def compose(
    framed: Framed, reference: Reference, *, negative: bool, background: bool, grey: bool
) -> Pixels:
    """Return a framed image as its negative, without its ground, or without colour.

    Args:
        framed: of `frame`.
        reference: whose ground is put in the place of the image's.
        negative: whether brightness is inverted.
        background: whether the ground is replaced.
        grey: whether colour is taken away.
    """
    pixels = without_colour(framed.pixels) if grey else framed.pixels
    pixels = 255 - pixels if negative else pixels
    if not background:
        return pixels
    level = np.array(reference.level) if pixels.shape[2] == len(reference.level) else None
    beneath = np.mean(reference.level) if level is None else level
    covered = framed.covered[..., None]
    return np.rint(covered * pixels + (1 - covered) * beneath).astype(np.uint8)


def small(pixels: Pixels, reference: Reference) -> Pixels:
    """Return an image at the network's size, by the interpolation that the decoder uses."""
    height, width = reference.shape[:2]
    if pixels.shape[:2] == (height, width):
        return pixels
    return resized(pixels, (width, height), Image.Resampling.BICUBIC)


def sharpened(pixels: Pixels, amount: float) -> Pixels:
    """Return an image with its details made stronger: what a small blur takes away, added."""
    lost = details(pixels)
    return np.clip(np.rint(pixels + amount * lost), 0, 255).astype(np.uint8)


def details(pixels: Pixels) -> NDArray[np.float64]:
    """Return what a blur over the four neighbours takes away, of the image's shape."""
    around = np.pad(pixels.astype(np.float64), ((1, 1), (1, 1), (0, 0)), mode="edge")
    neighbours = around[:-2, 1:-1] + around[2:, 1:-1] + around[1:-1, :-2] + around[1:-1, 2:]
    lost: NDArray[np.float64] = pixels / 2 - neighbours / 8
    return lost


def without_colour(pixels: Pixels) -> Pixels:
    """Return an image in grey, (height, width, 1), by the weights that the decoder uses."""
    if pixels.shape[2] == 1:
        return pixels
    return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]


def _cut(pixels: Pixels, window: Window, ground: Ground, size: tuple[int, int]) -> Pixels:
    height, width = pixels.shape[:2]
    if window == WHOLE and size == (width, height):
        return pixels
    # first to a few times the size, so that what is added around stays small, whatever comes
    down = max(1, int(window.height * height / size[1] / COARSE))
    across = max(1, int(window.width * width / size[0] / COARSE))
    top, bottom = (share * height / down for share in (window.top, window.top + window.height))
    left, right = (share * width / across for share in (window.left, window.left + window.width))
    pixels = _means(pixels, down, across)
    height, width = pixels.shape[:2]
    room = max(0, math.ceil(max(-top, -left, bottom - height, right - width)))
    if room:
        shape = height + 2 * room, width + 2 * room, pixels.shape[2]
        wider = np.broadcast_to(np.rint(ground.middle).astype(np.uint8), shape).copy()
        wider[room:-room, room:-room] = pixels
        pixels = wider
    ends = left + room, top + room, right + room, bottom + room
    return resized(pixels, size, Image.Resampling.BICUBIC, ends)


def _means(pixels: Pixels, down: int, across: int) -> Pixels:
    """Return the means of blocks of pixels; those at the end may be smaller."""
    if down == across == 1:
        return pixels
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    reduced = np.asarray(image.reduce((across, down)))
    return reduced.reshape(*reduced.shape[:2], pixels.shape[2])


def _cover(cut: Pixels, ground: Ground, window: Window) -> Covered:
    """Return how much of each pixel is the thing's: all within it, ever less around its outline."""
    height, width = cut.shape[:2]
    rows, columns = (
        start + share * (np.arange(side) + 0.5) / side
        for start, share, side in (
            (window.top, window.height, height),
            (window.left, window.width, width),
        )
    )
    within = ((rows >= 0) & (rows <= 1))[:, None] & ((columns >= 0) & (columns <= 1))
    apart = difference(cut, ground, window) * within
    mask = thing(apart > ground.contrast)
    reach = 2 * max(1, round(min(height, width) / SOFT / 2)) + 1
    near = Image.fromarray(mask.astype(np.uint8)).filter(ImageFilter.MaxFilter(reach))
    fading = np.minimum(apart / ground.contrast, 1) * np.asarray(near)
    covered: Covered = np.where(mask, 1.0, fading)
    return covered
