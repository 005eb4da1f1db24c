"""Choice of input size, aspect mode and channels from image headers.

All headers are read before decoding, so the choice is deterministic and order-independent. Each
choice is reported with the option that overrides it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from tinylens.data.dataset import Aspect
from tinylens.data.decode import CountedSize
from tinylens.data.images import ImageRule

OWN_SIDE = 128  # images of one size up to this keep it; nor is a larger side taken unasked
COMMON_SIDE = 64  # what images of one size above it are brought to
LEAST_SIDE = 16  # below it little is left to see of what an image shows
STEP = 8  # sides are multiples of it: three halvings, as in `classic`, leave no odd row
RATIO = 1.2  # between the widest and the narrowest images, above which auto pads
OUTLYING = 0.05  # share of images at either end that are not asked for that

AspectWanted = Literal["auto"] | Aspect
ASPECTS: tuple[AspectWanted, ...] = ("auto", *get_args(Aspect))

DONE = {"stretch": "stretched", "pad": "padded", "crop": "cropped"}


@dataclass(frozen=True)
class Facts:
    """Header statistics of a dataset.

    Attributes:
        count: Number of readable images.
        grey: Number of grey images.
        sizes: Number of distinct sizes.
        width: Common width in pixels, else the minimum.
        height: Common height in pixels, else the minimum.
        shorter: Median shorter side in pixels.
        longer: Median longer side in pixels.
        ratios: of width to height, of the narrowest and the widest but for `OUTLYING` on each side.
    """

    count: int
    grey: int
    sizes: int
    width: int
    height: int
    shorter: int
    longer: int
    ratios: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {**asdict(self), "ratios": list(self.ratios)}

    @staticmethod
    def from_json(tree: dict[str, Any]) -> Facts:
        """Return what `to_json` wrote."""
        return Facts(**{**tree, "ratios": tuple(tree["ratios"])})


@dataclass(frozen=True)
class Wanted:
    """Requested preprocessing; unset values are chosen.

    Attributes:
        size: Side in pixels, or None.
        aspect: "auto" chooses.
        rule: Full rule, such as a model's; disables the choice.
    """

    size: int | None = None
    aspect: AspectWanted = "auto"
    rule: ImageRule | None = None

    @property
    def any_size(self) -> bool:
        """Whether the output size is known without reading images."""
        return self.size is not None or self.rule is not None


@dataclass(frozen=True)
class Chosen:
    """Chosen preprocessing rule, with one sentence per choice."""

    rule: ImageRule
    notes: tuple[str, ...]


def facts_of(sizes: Iterable[CountedSize]) -> Facts:
    """Return the header statistics of images of these sizes.

    >>> facts_of([(40, 30, True, 1), (90, 80, False, 2)]).shorter
    80
    """
    known = sorted(sizes)
    alike = {(width, height) for width, height, *_ in known}
    width, height = min(alike)
    ratios = [(width / height, times) for width, height, _, times in known]
    return Facts(
        count=sum(times for *_, times in known),
        grey=sum(times for *_, grey, times in known if grey),
        sizes=len(alike),
        width=width,
        height=height,
        shorter=int(_at([(min(width, height), times) for width, height, _, times in known], 0.5)),
        longer=int(_at([(max(width, height), times) for width, height, _, times in known], 0.5)),
        ratios=(_at(ratios, OUTLYING), _at(ratios, 1 - OUTLYING)),
    )


def choose(facts: Facts, wanted: Wanted) -> Chosen:
    """Choose the preprocessing rule from header statistics.

    Images of one size keep it up to `OWN_SIDE`, and are 64×64 above. Of images of many sizes
    half at least are not enlarged: the side is the median of their shorter sides, or of the longer
    ones where they are padded, from 16 to 128, rounded down to a multiple of 8.

    >>> choose(facts_of([(60, 40, False, 9), (40, 50, False, 9)]), Wanted()).rule
    ImageRule(height=56, width=56, channels=3, background=(255, 255, 255), aspect='pad')
    """
    if wanted.rule is not None:
        return Chosen(wanted.rule, tuple(_brought(facts, wanted.rule)))
    aspect = wanted.aspect if wanted.aspect != "auto" else _aspect(facts)
    width, height = (wanted.size, wanted.size) if wanted.size else _size(facts, aspect)
    rule = ImageRule(height, width, 1 if facts.grey == facts.count else 3, aspect=aspect)
    notes = list(_brought(facts, rule))
    if wanted.size is None and (facts.width, facts.height) != (width, height):
        notes.append(_why_size(facts, aspect, width))
    if wanted.aspect == "auto" and aspect != "stretch":
        low, high = facts.ratios
        notes.append(
            f"aspect {aspect}: widths are from {low:.2f} to {high:.2f} times the heights, and to "
            "stretch images would change what they show; --aspect stretch or crop sets another"
        )
    if 0 < facts.grey < facts.count:
        notes.append(
            f"channels 3: {facts.grey:,} of {facts.count:,} images have no colour and were made "
            "RGB as the others are"
        )
    return Chosen(rule, tuple(notes))


def _size(facts: Facts, aspect: Aspect) -> tuple[int, int]:
    """Return width and height."""
    if facts.sizes > 1:
        enough = facts.longer if aspect == "pad" else facts.shorter
        side = min(max(enough // STEP * STEP, LEAST_SIDE), OWN_SIDE)
        return side, side
    if max(facts.width, facts.height) > OWN_SIDE:
        return COMMON_SIDE, COMMON_SIDE
    return facts.width, facts.height


def _why_size(facts: Facts, aspect: Aspect, side: int) -> str:
    if facts.sizes == 1:
        return (
            f"size {side}: the images are larger than {OWN_SIDE} pixels, and train in a fraction "
            "of the time so; --size N sets another"
        )
    which, half = ("longer", facts.longer) if aspect == "pad" else ("shorter", facts.shorter)
    bound = f", and more than {OWN_SIDE} is not taken unasked" if half > OWN_SIDE else ""
    return (
        f"size {side}: half the images have a {which} side of {half:,} pixels or more{bound}; "
        "--size N sets another"
    )


def _aspect(facts: Facts) -> Aspect:
    low, high = facts.ratios
    return "pad" if high > RATIO * low else "stretch"


def _brought(facts: Facts, rule: ImageRule) -> Iterator[str]:
    """Yield a sentence if images are resized."""
    if facts.sizes > 1:
        yield f"images of {facts.sizes} sizes were {brought_to(rule)}"
    elif (facts.width, facts.height) != (rule.width, rule.height):
        yield f"images of {facts.width}×{facts.height} pixels were {brought_to(rule)}"


def brought_to(rule: ImageRule) -> str:
    """Describe how `rule` resizes images.

    >>> brought_to(ImageRule(28, 20, 1, aspect="crop"))
    'cropped to 20×28'
    """
    return f"{DONE[rule.aspect]} to {rule.width}×{rule.height}"


def _at(values: Iterable[tuple[float, int]], share: float) -> float:
    """Return the `share` quantile of (value, count) pairs."""
    ordered = sorted(values)
    left = int(share * sum(times for _, times in ordered))
    for value, times in ordered:
        if left < times:
            return value
        left -= times
    return ordered[-1][0]
