"""Image fixes: cropping margins, replacing the background, inverting, removing colour."""

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
    """Downscaled image window.

    Attributes:
        pixels: uint8, shape (height, width, channels).
        covered: Object coverage of each pixel, 0 to 1, shape (height, width).
    """

    pixels: Pixels
    covered: Covered


def window_around(box: Window, shape: tuple[int, ...], reference: Reference) -> Window:
    """Return the crop that gives an object its size and position in the training images.

    Args:
        box: Bounding box of the object.
        shape: Image height and width.
        reference: Training-image reference.
    """
    sides = reference.shape[:2]
    pixels = box.height * shape[0], box.width * shape[1]
    scale = max(have / want for have, want in zip(pixels, sides, strict=True)) / reference.fill[1]
    height, width = (side * scale / whole for side, whole in zip(sides, shape[:2], strict=True))
    (down, right), (y, x) = box.middle, reference.middle
    return Window(down - y * height, right - x * width, height, width)


def frame(pixels: Pixels, window: Window, ground: Ground, reference: Reference) -> Framed:
    """Crop a window at up to `FINE` times the network's size.

    Pixels outside the image get the background colour.
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
    """Invert, replace the background of, or desaturate a framed image.

    Args:
        framed: Result of `frame`.
        reference: Reference that provides the new background.
        negative: Whether to invert brightness.
        background: Whether to replace the background.
        grey: Whether to remove colour.
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
    """Resize to network size with the decoder's interpolation."""
    height, width = reference.shape[:2]
    if pixels.shape[:2] == (height, width):
        return pixels
    return resized(pixels, (width, height), Image.Resampling.BICUBIC)


def sharpened(pixels: Pixels, amount: float) -> Pixels:
    """Sharpen an image by unsharp masking."""
    lost = details(pixels)
    return np.clip(np.rint(pixels + amount * lost), 0, 255).astype(np.uint8)


def details(pixels: Pixels) -> NDArray[np.float64]:
    """Return the high-frequency residual of a 4-neighbour blur, of the image's shape."""
    around = np.pad(pixels.astype(np.float64), ((1, 1), (1, 1), (0, 0)), mode="edge")
    neighbours = around[:-2, 1:-1] + around[2:, 1:-1] + around[1:-1, :-2] + around[1:-1, 2:]
    lost: NDArray[np.float64] = pixels / 2 - neighbours / 8
    return lost


def without_colour(pixels: Pixels) -> Pixels:
    """Convert to grey, (height, width, 1), with the decoder's weights."""
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
    """Return block means; blocks at the end may be smaller."""
    if down == across == 1:
        return pixels
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    reduced = np.asarray(image.reduce((across, down)))
    return reduced.reshape(*reduced.shape[:2], pixels.shape[2])


def _cover(cut: Pixels, ground: Ground, window: Window) -> Covered:
    """Return a soft object mask that fades around the outline."""
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
