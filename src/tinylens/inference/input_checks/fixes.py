"""The input checks: what is unlike the training images about an image, and putting that right.

It knows nothing of any data set: a small reference, worked out from the training images when a
model is exported (`study`), is all that it judges by (`examine`). What it is allowed to, it puts
right (`treat`). It sees decoded images before they are made small, and opens none itself.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace

import numpy as np

from tinylens.errors import RecipeError, did_you_mean
from tinylens.inference.input_checks import margins
from tinylens.inference.input_checks.background import WHOLE, Pixels
from tinylens.inference.input_checks.examine import (
    KINDS,
    NO_GROUND,
    Examination,
    Finding,
    examine,
)
from tinylens.inference.input_checks.reference import Reference

_ALL = frozenset(KINDS)


@dataclass(frozen=True)
class InputChecks:
    """Who examines and treats images for a model.

    Attributes:
        reference: what the training images are like; without it nothing is judged.
        allowed: kinds of findings that may be fixed.
    """

    reference: Reference | None
    allowed: frozenset[str] = frozenset()

    def see(self, pixels: Pixels, orientation: int = 1) -> tuple[Pixels, tuple[Finding, ...]]:
        """Return an image, treated as far as is allowed, and what was found.

        Args:
            pixels: uint8, shape (height, width, 1 or 3), upright and of its own size.
            orientation: what its EXIF said, 1 to 8; the decoder has set it upright.
        """
        return treat(pixels, examine(pixels, self.reference, orientation), self.allowed)


def allowed_kinds(text: str) -> frozenset[str]:
    """Return the kinds that "all", "" or a list parted by commas allows to be fixed.

    Raises:
        RecipeError: a kind that is none.

    >>> sorted(allowed_kinds("inverted, margins"))
    ['inverted', 'margins']
    """
    named = [word.strip() for word in text.split(",") if word.strip()]
    for word in named:
        if word not in (*KINDS, "all"):
            raise RecipeError(
                f"fix {text}: there is no {word!r}{did_you_mean(word, KINDS)}; expected all, or "
                f"some of {', '.join(KINDS)}, parted by commas"
            )
    return _ALL if "all" in named else frozenset(named)


def treat(
    pixels: Pixels, examination: Examination, allowed: Set[str]
) -> tuple[Pixels, tuple[Finding, ...]]:
    """Return an image with what is allowed put right, and the findings, marked as fixed.

    Args:
        pixels: uint8, shape (height, width, 1 or 3): what was examined.
        examination: of `examine`.
        allowed: kinds that may be fixed.

    Returns:
        The very same array where nothing is done to it; else uint8 of any size.
    """
    doing = frozenset(allowed) & {
        finding.kind for finding in examination.findings if _can_fix(finding, examination)
    }
    reference = examination.reference
    if not doing or reference is None:
        return pixels, examination.findings
    ground = examination.ground or NO_GROUND[pixels.shape[2]]
    window = examination.window if "margins" in doing else WHOLE
    framed = margins.frame(pixels, window, ground, reference)
    treated = margins.compose(
        framed,
        reference,
        negative="inverted" in doing,
        background="background" in doing,
        grey="colour" in doing or reference.shape[2] == 1,
    )
    if "upscaled" in doing:
        treated = margins.sharpened(margins.small(treated, reference), reference.sharpening)
    findings = tuple(
        replace(each, fixed=each.fixed or each.kind in doing) for each in examination.findings
    )
    return np.ascontiguousarray(treated), findings


def _can_fix(finding: Finding, examination: Examination) -> bool:
    """Return whether there is something to be done that is not done already."""
    reference = examination.reference
    if finding.fixed or reference is None:
        return False
    if finding.kind == "colour":
        return reference.grey > 0.5  # colour can be taken away, and not be given
    return finding.kind == "upscaled" or examination.ground is not None
