"""Training-image reference of the input checks, stored in model.onnx."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinylens.inference.input_checks.background import Pixels, border

VERSION = 1  # raised when an older tinylens could misread it; that then judges nothing
TOLERANCE = 12.0  # grey levels: what JPEG and noise make of a ground that fits
PLAIN_SPREAD = 24.0  # grey levels between the grounds of images, for them to count as one
PLAIN_SHARE = 0.6  # of the border of half of the images at least shows that ground
NEARLY_ALL = 0.995  # of the images: so many have no exceptions worth a word


@dataclass(frozen=True)
class Reference:
    """Statistics of the training images at network size.

    Attributes:
        shape: Height, width and channels of the network's input.
        images: Number of images.
        grey: Share of grey images.
        level: Typical border colour, one value per channel, 0 to 255.
        spread: grey levels by which the border of one image in a hundred is off that.
        share: of the border that shows the usual colour: in all but two images of a
            thousand more than the first, in the median one the second.
        fill: how much of height or width things take up, whichever is more: in two images of a
            thousand less than the first, the second in the median one; 0 where grounds differ.
        middle: Typical object center (down, right), as shares of the sides.
        off: Distance from it, exceeded by two images in a thousand.
        polarity: Weights that separate images from their negatives; see
            `tinylens.inference.input_checks.background`.
        sharpening: Sharpening that restores enlarged and downscaled images.
    """

    shape: tuple[int, int, int]
    images: int
    grey: float
    level: tuple[float, ...]
    spread: float
    share: tuple[float, float]
    fill: tuple[float, float] = (0.0, 0.0)
    middle: tuple[float, float] = (0.5, 0.5)
    off: float = 1.0
    polarity: tuple[float, ...] = ()
    sharpening: float = 0.0

    @property
    def plain(self) -> bool:
        """Whether all images share one background."""
        return self.spread <= PLAIN_SPREAD and self.share[1] >= PLAIN_SHARE

    def shows_ground(self, pixels: Pixels) -> bool:
        """Return whether an image has the background of the training images.

        Args:
            pixels: uint8, shape (height, width, channels), channels as in the reference.
        """
        return bool(self.ground_share(pixels) >= self.share[0])

    def ground_share(self, pixels: Pixels) -> NDArray[np.float64]:
        """Return the share of border pixels that match the training background.

        Args:
            pixels: uint8, shape (…, height, width, channels).
        """
        apart = np.abs(border(pixels) - np.array(self.level)).max(axis=-1)
        share: NDArray[np.float64] = (apart <= TOLERANCE + self.spread).mean(axis=-1)
        return share

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"version": VERSION, **asdict(self)}

    @staticmethod
    def from_json(tree: Mapping[str, Any] | None) -> Reference | None:
        """Return what `to_json` wrote; None for nothing, and for what a newer tinylens wrote.

        Raises:
            KeyError: a value is missing.
            TypeError: a value is of another type.
        """
        if tree is None or tree["version"] > VERSION:
            return None
        values: dict[str, Any] = {each.name: tree[each.name] for each in fields(Reference)}
        for name, value in values.items():
            values[name] = tuple(value) if isinstance(value, list) else value
        return Reference(**values)
