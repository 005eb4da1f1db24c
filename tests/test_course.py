"""What each epoch sees."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinylens.course import SMALLEST_EARLY, Course
from tinylens.recipe import TrainSection

SPECS = st.builds(
    TrainSection,
    epochs=st.integers(1, 60),
    early_scale=st.floats(0.25, 1.0),
    early_share=st.floats(0.0, 0.99),
    hard_share=st.floats(0.05, 1.0),
    hard_from=st.floats(0.0, 0.99),
    epoch_share=st.floats(0.05, 1.0),
)


@given(SPECS, st.integers(8, 96), st.integers(8, 96))
def test_smaller_pictures_come_first_hard_ones_last_and_nothing_grows(spec, height, width):
    course = Course(spec, (height, width))
    early = [course.is_early(place) for place in range(spec.epochs)]
    hard = [course.is_hard(place) for place in range(spec.epochs)]
    assert early == sorted(early, reverse=True)
    assert hard == sorted(hard)
    assert not hard[0]  # there are no losses to choose by yet
    if course.early_size is not None:
        assert all(
            small <= side and small >= min(side, SMALLEST_EARLY)
            for small, side in zip(course.early_size, (height, width), strict=True)
        )
    assert all(0 < course.work(place) <= course.share(place) <= 1 for place in range(spec.epochs))
    assert course.total_work() == pytest.approx(sum(map(course.work, range(spec.epochs))))


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((32, 32), 0.75, (24, 24)),
        ((28, 28), 0.75, (24, 24)),
        ((96, 64), 0.75, (72, 48)),
        ((24, 24), 0.75, None),
        ((16, 16), 0.5, None),
        ((32, 20), 0.75, (24, 20)),
        ((32, 32), 1.0, None),
    ],
)
def test_small_pictures_are_not_made_smaller(size, scale, expected):
    assert Course(TrainSection(early_scale=scale), size).early_size == expected
