"""Curriculum: progressive resizing and hard examples, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tinylens.recipe import TrainSection

Paces = Mapping[str, Sequence[float]]

STAGES_DIFFER = 0.15  # small images take so much longer for their pixels than whole ones, at most
SMALLEST_EARLY = 24  # pixels: at 21 for 28 Fashion-MNIST lost more than the time saved brought back


@dataclass(frozen=True)
class Curriculum:
    """What the epochs of a training see, each called by its place in the recipe's plan, from 0.

    Attributes:
        spec: the recipe's train section.
        size: height and width of the images.

    >>> section = TrainSection(
    ...     epochs=4, progressive_resize_scale=0.75, hard_example_fraction=0.5
    ... )
    >>> curriculum = Curriculum(section, (32, 32))
    >>> curriculum.progressive_size
    (24, 24)
    >>> [(curriculum.is_early(epoch), curriculum.share(epoch)) for epoch in range(4)]
    [(True, 1.0), (True, 1.0), (False, 0.5), (False, 0.5)]
    >>> curriculum.work(0), curriculum.work(3)
    (0.5625, 0.5)
    """

    spec: TrainSection
    size: tuple[int, int]

    @property
    def progressive_size(self) -> tuple[int, int] | None:
        """Height and width of the first epochs' images; None where they stay as they are.

        What is small already is not made smaller than SMALLEST_EARLY.
        """
        height, width = (
            max(round(side * self.spec.progressive_resize_scale), min(side, SMALLEST_EARLY))
            for side in self.size
        )
        return None if (height, width) == self.size else (height, width)

    def is_early(self, place: int) -> bool:
        """Return whether an epoch sees smaller images."""
        early = round(self.spec.progressive_resize_fraction * self.spec.epochs)
        return self.progressive_size is not None and place < early

    def is_hard(self, place: int) -> bool:
        """Return whether an epoch sees only the images with the largest losses.

        The first one sees all: before it there are no losses.
        """
        first = max(round(self.spec.hard_examples_from * self.spec.epochs), 1)
        return self.spec.hard_example_fraction < 1 and place >= first

    def share(self, place: int) -> float:
        """Return the share of the training images that an epoch sees."""
        return self.spec.epoch_share * (
            self.spec.hard_example_fraction if self.is_hard(place) else 1.0
        )

    def work(self, place: int) -> float:
        """Return the pixels that an epoch sees as a share of all pixels of all images."""
        if self.progressive_size is None or not self.is_early(place):
            return self.share(place)
        height, width = self.size
        return (
            self.share(place)
            * self.progressive_size[0]
            * self.progressive_size[1]
            / (height * width)
        )

    def stage(self, place: int) -> str:
        """Return "early" for an epoch of smaller images, else "whole"."""
        return "early" if self.is_early(place) else "whole"

    def without_room(self, place: int, paces: Paces, seconds: float) -> int:
        """Return for how many of the epochs from `place` on there is no time; the last one stays.

        Args:
            place: of the next epoch.
            paces: seconds that a pass over all whole images would have taken, by stage, going by
                epochs that are done; by their mean, since one may have met other work.
            seconds: that are left.
        """
        known = {stage: sum(found) / len(found) for stage, found in paces.items() if found}
        if not known:
            return 0
        left = range(place, self.spec.epochs)
        if any(self.stage(later) not in known for later in left):
            seconds *= 1 + STAGES_DIFFER
        other = max(known.values())
        needed = [known.get(self.stage(later), other) * self.work(later) for later in left]
        too_many = 0
        while too_many < len(left) - 1 and sum(needed[too_many:]) > seconds:
            too_many += 1
        return too_many

    def total_work(self) -> float:
        """Return the pixels that the whole training sees, in passes over all of them."""
        return sum(self.work(place) for place in range(self.spec.epochs))
