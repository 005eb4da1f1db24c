"""Computation of the training-image reference at export."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from tinylens.inference.input_checks import margins
from tinylens.inference.input_checks.background import (
    LEAST_CONTRAST,
    Floats,
    Ground,
    Mask,
    Pixels,
    border,
    box_of,
    difference,
    learn,
    looks,
    resized,
    thing,
)
from tinylens.inference.input_checks.examine import LEAST_THING, MOST_THING
from tinylens.inference.input_checks.reference import Reference

LOOKED_AT = 1_500  # images: one in a thousand is still seen, and it takes a second or two
SHARE_SLACK = 0.05  # of the border: a new image may show a little less ground than any before
RARE = 0.002  # of the images have less ground, smaller things or farther off than it says
EXPOSURES = (1.0, 0.85, 0.7)  # as a photo may be darker than a training image
ENLARGED = 4  # times, to learn how much detail that costs
SHARPENED = 300  # images, likewise
LEAST_THINGS = 50  # fewer say nothing about where things are


def study(images: Pixels) -> Reference:
    """Compute the reference of the training images.

    Args:
        images: uint8, shape (n, height, width, channels), at network size.
    """
    rows = np.unique(np.linspace(0, len(images) - 1, min(LOOKED_AT, len(images))).astype(np.int64))
    looked_at = np.asarray(images[rows])
    reference = replace(_grounds(looked_at), sharpening=_sharpening(looked_at))
    return _things(looked_at, reference) if reference.plain else reference


def _grounds(images: Pixels) -> Reference:
    levels = np.median(border(images), axis=1)
    level = np.median(levels, axis=0)
    colours = np.ptp(images.astype(np.int16), axis=3).max(axis=(1, 2))
    reference = Reference(
        shape=(images.shape[1], images.shape[2], images.shape[3]),
        images=len(images),
        grey=float((colours <= LEAST_CONTRAST).mean()),
        level=tuple(level.tolist()),
        spread=float(np.quantile(np.abs(levels - level).max(axis=1), 0.99)),
        share=(0.0, 0.0),
    )
    least, usual = np.quantile(reference.ground_share(images), [RARE, 0.5])
    return replace(reference, share=(float(max(0.0, least - SHARE_SLACK)), float(usual)))


def _things(images: Pixels, reference: Reference) -> Reference:
    """Add object statistics to the reference, if there are enough objects."""
    ground = Ground.flat(reference.level)
    masks = [thing(difference(pixels, ground) > ground.contrast) for pixels in images]
    seen = [
        (pixels, mask)
        for pixels, mask in zip(images, masks, strict=True)
        if LEAST_THING <= mask.mean() <= MOST_THING
    ]
    if len(seen) < LEAST_THINGS:
        return reference
    boxes = [box_of(mask) for _, mask in seen]
    fills = np.array([max(box.height, box.width) for box in boxes])
    middles = np.array([box.middle for box in boxes])
    middle = np.median(middles, axis=0)
    off = np.quantile(np.abs(middles - middle).max(axis=1), 1 - RARE)
    return replace(
        reference,
        fill=(float(np.quantile(fills, RARE)), float(np.median(fills))),
        middle=(float(middle[0]), float(middle[1])),
        off=float(off),
        polarity=tuple(np.round(_polarity(seen), 3).tolist()),
    )


def _polarity(seen: list[tuple[Pixels, Mask]]) -> Floats:
    """Fit the weights that separate training images from negatives, robust to dark photos."""
    positives, negatives = [], []
    for pixels, _ in seen:
        grey = margins.without_colour(pixels)[..., 0].astype(np.float64)
        for exposure in EXPOSURES:
            positives += [grey * exposure, 255 - exposure * (255 - grey)]
        negatives += [255 - grey for grey in positives[-2 * len(EXPOSURES) :]]
    return learn(*(_looks(rows, seen) for rows in (positives, negatives)))


def _looks(images: list[Floats], seen: list[tuple[Pixels, Mask]]) -> Floats:
    each = 2 * len(EXPOSURES)
    return np.stack([looks(grey, seen[row // each][1]) for row, grey in enumerate(images)])


def _sharpening(images: Pixels) -> float:
    """Fit the sharpening that restores enlarged images, by least squares.

    Enlarging and downscaling loses the same share of detail for any content and factor: amounts
    for 3, 6 and 10 times differ by 0.02.
    """
    height, width = images.shape[1:3]
    above = below = 0.0
    for pixels in images[:: -(-len(images) // SHARPENED)]:
        large = resized(pixels, (ENLARGED * width, ENLARGED * height), Image.Resampling.BICUBIC)
        again = resized(large, (width, height), Image.Resampling.BICUBIC)
        lost = margins.details(again)
        above += float((lost * (pixels.astype(np.float64) - again)).sum())
        below += float((lost * lost).sum())
    return round(max(0.0, above / below), 3) if below else 0.0
