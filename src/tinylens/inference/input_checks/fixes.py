"""Input checks: detect and fix deviations from the training images.

`study` computes a small reference at export, `examine` compares decoded images with it before
downscaling, and `treat` applies the allowed fixes.
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
    """Input checks of one model.

    Attributes:
        reference: Training-image reference; None disables the checks.
        allowed: Kinds of findings that may be fixed.
    """

    reference: Reference | None
    allowed: frozenset[str] = frozenset()

    def see(self, pixels: Pixels, orientation: int = 1) -> tuple[Pixels, tuple[Finding, ...]]:
        """Examine an image and apply the allowed fixes; return it with the findings.

        Args:
            pixels: uint8, shape (height, width, 1 or 3), upright, unscaled.
            orientation: EXIF orientation, 1 to 8, already applied by the decoder.
        """
        return treat(pixels, examine(pixels, self.reference, orientation), self.allowed)


def allowed_kinds(text: str) -> frozenset[str]:
    """Parse the fixable kinds: "all", "" or a comma-separated list.

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
    """Apply the allowed fixes; return the image and the updated findings.

    Args:
        pixels: uint8, shape (height, width, 1 or 3), the examined image.
        examination: Result of `examine`.
        allowed: Kinds that may be fixed.

    Returns:
        The same array if unchanged, else uint8 of any size.
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
    """Return whether a finding can still be fixed."""
    reference = examination.reference
    if finding.fixed or reference is None:
        return False
    if finding.kind == "colour":
        return reference.grey > 0.5  # colour can be taken away, and not be given
    return finding.kind == "upscaled" or examination.ground is not None
