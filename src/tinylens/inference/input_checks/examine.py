"""Examination of an image for deviations from the training images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from tinylens.inference.input_checks import margins as framing
from tinylens.inference.input_checks.background import (
    WHOLE,
    Ground,
    Mask,
    Pixels,
    Window,
    box_of,
    difference,
    fit_ground,
    looks,
    reduced,
    resized,
    thing,
)
from tinylens.inference.input_checks.margins import Framed
from tinylens.inference.input_checks.reference import NEARLY_ALL, Reference

KINDS = ("rotation", "colour", "inverted", "background", "margins", "upscaled")
UNEXAMINED = "unjudged"  # the kind of what is said where there is nothing to judge by

LOOKED_AT = 112  # pixels of the longer side: enough to tell a thing from its ground
COLOURED = 32  # grey levels between a pixel's channels; JPEG makes up to 20 of none
COLOURED_SHARE = 0.02  # of the pixels
ROUGH = 30.0  # grey levels: a border rougher than that shows no ground
LEAST_THING, MOST_THING = 0.005, 0.98  # of the image
SLACK = 0.07  # of a side, for margins: two pixels of 28
OPPOSITE = 4.0  # log odds that a ground of the opposite brightness adds for a negative
LARGER = 2.5  # times the network's sides: smaller images cannot be told to be enlarged
DETAIL = 2  # times the network's sides: what has no more detail than that counts as enlarged
LOST = (
    0.02  # of the variance: enlarged images lose 0.002 to 0.017 at that size, photos 0.03 to 0.08
)


# black: all that is seen counts as the thing, where no ground can be told
NO_GROUND = {channels: Ground.flat([0.0] * channels) for channels in (1, 3)}


@dataclass(frozen=True)
class Finding:
    """Deviation from the training images.

    Attributes:
        kind: One of `KINDS`, or "unjudged".
        message: Description.
        fixed: Whether it was fixed before inference.
    """

    kind: str
    message: str
    fixed: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return kind, message and fixed as JSON values."""
        return {"kind": self.kind, "message": self.message, "fixed": self.fixed}


@dataclass(frozen=True, eq=False)
class Examination:
    """Findings, with the data needed to fix them.

    Attributes:
        findings: Findings in the order of `KINDS`.
        reference: Training-image reference, or None if the model has none.
        ground: Background of the image, or None if undetected.
        window: Crop in which the object is as large as in the training images.
    """

    findings: tuple[Finding, ...]
    reference: Reference | None = None
    ground: Ground | None = None
    window: Window = WHOLE

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of the findings."""
        return frozenset(finding.kind for finding in self.findings)


def examine(pixels: Pixels, reference: Reference | None, orientation: int = 1) -> Examination:
    """Find an image's deviations from the training images.

    Args:
        pixels: uint8, shape (height, width, 1 or 3), upright, unscaled.
        reference: Training-image reference, or None if the model has none.
        orientation: EXIF orientation, 1 to 8, already applied by the decoder.

    >>> examine(np.zeros((8, 8, 1), np.uint8), None).findings[0].kind
    'unjudged'
    """
    if reference is None:
        message = (
            "the model does not know what its training images were like, so this one is "
            "not judged; train again to have that in the file"
        )
        return Examination((Finding(UNEXAMINED, message),))
    findings = [*_rotation(orientation), *_colour(pixels, reference)]
    ground, window = None, WHOLE
    if reference.plain:
        ground, window, more = _against_the_ground(pixels, reference)
        findings += more
    findings += _upscaled(pixels, window, ground, reference)
    return Examination(tuple(findings), reference, ground, window)


def in_its_channels(pixels: Pixels, reference: Reference) -> Pixels:
    """Convert an image to the channel count of the training images."""
    if reference.shape[2] == 1:
        return framing.without_colour(pixels)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


# --- each kind


def _rotation(orientation: int) -> list[Finding]:
    if orientation == 1:
        return []
    message = f"turned or mirrored by its EXIF (orientation {orientation}), and set upright"
    return [Finding("rotation", message, fixed=True)]


def _colour(pixels: Pixels, reference: Reference) -> list[Finding]:
    coloured = is_coloured(pixels)
    if coloured and reference.grey >= NEARLY_ALL:
        message = "has colours, and the training images are grey"
        by_the_rule = reference.shape[2] == 1
        return [Finding("colour", message, fixed=by_the_rule)]
    if not coloured and reference.grey <= 1 - NEARLY_ALL:
        message = "is grey, and the training images have colours, which nothing can bring back"
        return [Finding("colour", message)]
    return []


def is_coloured(pixels: Pixels) -> bool:
    """Return whether more than a few pixels are coloured."""
    if pixels.shape[2] == 1:
        return False
    few = reduced(pixels, LOOKED_AT).astype(np.int16)
    return bool((np.ptp(few, axis=2) > COLOURED).mean() > COLOURED_SHARE)


def _against_the_ground(
    pixels: Pixels, reference: Reference
) -> tuple[Ground | None, Window, list[Finding]]:
    """Return the background, the window around the object and their findings."""
    few = reduced(pixels, LOOKED_AT)
    as_trained = reference.shows_ground(in_its_channels(few, reference))
    if as_trained and _in_place(few, reference):
        return None, WHOLE, []
    ground = _ground_of(few, reference, as_trained=as_trained)
    if ground.roughness > ROUGH:
        message = "has no even ground, as the training images have, to tell a thing from"
        return None, WHOLE, [Finding("background", message)]
    where = thing(difference(few, ground) > ground.contrast)
    if not LEAST_THING <= where.mean() <= MOST_THING:
        return None, WHOLE, []
    box = box_of(where)
    margins = _margins(box, reference, as_trained=as_trained)
    window = framing.window_around(box, pixels.shape, reference) if margins else WHOLE
    if as_trained:
        return ground, window, margins
    framed = framing.frame(pixels, window, ground, reference)
    inverted = _inverted(framed, ground, reference)
    shown = 255 - few if inverted else few
    fits = reference.shows_ground(in_its_channels(shown, reference))
    background = [] if fits else [_background(ground, reference)]
    return ground, window, [*inverted, *background, *margins]


def _in_place(few: Pixels, reference: Reference) -> bool:
    """Return whether the object of a network-size image is placed as in training.

    Fast path on single pixels: 40 µs instead of 400.
    """
    if few.shape != reference.shape:
        return False
    ground = Ground.flat(reference.level)
    apart = difference(few, ground) > ground.contrast
    return bool(apart.any()) and not _margins(box_of(apart), reference, as_trained=True)


def _ground_of(few: Pixels, reference: Reference, *, as_trained: bool) -> Ground:
    """Return the background; that of the reference if the border matches it."""
    if as_trained and few.shape == reference.shape:
        return Ground.flat(reference.level)
    return fit_ground(few)


def _inverted(framed: Framed, ground: Ground, reference: Reference) -> list[Finding]:
    if not reference.polarity:
        return []
    grey = framing.small(framing.compose(framed, reference, **_GREY), reference)[..., 0]
    negative = framing.small(framing.compose(framed, reference, **_NEGATIVE), reference)[..., 0]
    where = _small_mask(framed, reference)
    given, other = (looks(each.astype(np.float64), where) for each in (grey, negative))
    weights = np.array(reference.polarity)
    # a ground as bright as theirs speaks against a negative, the opposite for one
    here, theirs = float(ground.middle.mean()), float(np.mean(reference.level))
    away = (abs(here - theirs) - abs(255 - here - theirs)) / 255
    if float((other - given) @ weights) + OPPOSITE * away <= 0:
        return []
    message = "looks like a negative of the training images: what is bright there is dark here"
    return [Finding("inverted", message)]


_GREY = {"negative": False, "background": True, "grey": True}
_NEGATIVE = {**_GREY, "negative": True}


def _small_mask(framed: Framed, reference: Reference) -> Mask:
    height, width = reference.shape[:2]
    covered = Image.fromarray(np.rint(255 * framed.covered).astype(np.uint8))
    return np.asarray(covered.resize((width, height), Image.Resampling.BOX)) > 127


def _background(ground: Ground, reference: Reference) -> Finding:
    here, theirs = _in_words(ground.middle), _in_words(np.array(reference.level))
    return Finding("background", f"its ground is {here}; that of the training images is {theirs}")


def _in_words(colour: np.ndarray[Any, Any]) -> str:
    mean = float(colour.mean())
    shade = "dark" if mean < 85 else "of middle brightness" if mean < 170 else "bright"
    tint = ", and coloured" if np.ptp(colour) > COLOURED else ""
    return f"{shade} (about {mean:.0f} of 255{tint})"


def _margins(box: Window, reference: Reference, *, as_trained: bool) -> list[Finding]:
    """Report an object that is smaller or placed differently than in training images.

    On a matching background only beyond their extremes, since the image may be one of them; on
    another background it need only be smaller than most.
    """
    least = reference.fill[0] - SLACK if as_trained else reference.fill[1] - SLACK / 2
    fill = max(box.height, box.width)
    off = max(abs(a - b) for a, b in zip(box.middle, reference.middle, strict=True))
    if fill >= least and off <= reference.off + SLACK:
        return []
    if fill < least:
        words = f"takes up {fill:.0%} of its height or width, whichever is more"
        words += f", where the training images' take up {reference.fill[1]:.0%}"
    else:
        words = f"lies {off:.0%} of a side away from where the training images' lie"
    return [Finding("margins", f"the thing in it {words}")]


def _upscaled(
    pixels: Pixels, window: Window, ground: Ground | None, reference: Reference
) -> list[Finding]:
    """Report an image that loses no detail when downscaled to network size."""
    sides = pixels.shape[0] * window.height, pixels.shape[1] * window.width
    wanted = reference.shape[:2]
    if min(have / want for have, want in zip(sides, wanted, strict=True)) < LARGER:
        return []
    seen = framing.frame(pixels, window, ground or NO_GROUND[pixels.shape[2]], reference)
    fine = framing.without_colour(seen.pixels)
    height, width = (round(DETAIL * side) for side in wanted)
    coarse = resized(fine, (width, height), Image.Resampling.BICUBIC)
    back = resized(coarse, (fine.shape[1], fine.shape[0]), Image.Resampling.BICUBIC)
    where = seen.covered > 0 if seen.covered.any() else np.ones_like(seen.covered, bool)
    lost = float((fine.astype(np.float64) - back)[where].var())
    if lost >= LOST * float(fine[where].astype(np.float64).var()):  # also where nothing is shown
        return []
    message = (
        f"shows no more detail than {width}×{height} pixels hold: it was small and was enlarged, "
        "or is out of focus"
    )
    return [Finding("upscaled", message)]
