"""What each epoch sees."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinylens.recipe import TrainSection
from tinylens.training.curriculum import SMALLEST_EARLY, Curriculum

SPECS = st.builds(
    TrainSection,
    epochs=st.integers(1, 60),
    progressive_resize_scale=st.floats(0.25, 1.0),
    progressive_resize_fraction=st.floats(0.0, 0.99),
    hard_example_fraction=st.floats(0.05, 1.0),
    hard_examples_from=st.floats(0.0, 0.99),
    epoch_share=st.floats(0.05, 1.0),
)


@given(SPECS, st.integers(8, 96), st.integers(8, 96))
def test_smaller_images_come_first_hard_ones_last_and_nothing_grows(spec, height, width):
    curriculum = Curriculum(spec, (height, width))
    early = [curriculum.is_early(place) for place in range(spec.epochs)]
    hard = [curriculum.is_hard(place) for place in range(spec.epochs)]
    assert early == sorted(early, reverse=True)
    assert hard == sorted(hard)
    assert not hard[0]  # there are no losses to choose by yet
    if curriculum.progressive_size is not None:
        assert all(
            small <= side and small >= min(side, SMALLEST_EARLY)
            for small, side in zip(curriculum.progressive_size, (height, width), strict=True)
        )
    assert all(
        0 < curriculum.work(place) <= curriculum.share(place) <= 1 for place in range(spec.epochs)
    )
    assert curriculum.total_work() == pytest.approx(sum(map(curriculum.work, range(spec.epochs))))


# four epochs on small images, then six on half of the whole ones: 0.5625 and 0.5 passes each
LONG = Curriculum(
    TrainSection(
        epochs=10,
        progressive_resize_scale=0.75,
        progressive_resize_fraction=0.4,
        hard_example_fraction=0.5,
        hard_examples_from=0.4,
    ),
    (32, 32),
)


def test_with_time_enough_nothing_is_dropped():
    assert LONG.without_room(1, {}, 0.0) == 0  # nothing is known yet
    assert LONG.without_room(4, {"whole": [10.0]}, 30.0) == 0
    assert LONG.without_room(4, {"early": [99.0], "whole": [9.0, 11.0]}, 30.0) == 0


def test_as_many_are_dropped_as_there_is_no_time_for():
    assert LONG.without_room(4, {"whole": [10.0]}, 29.9) == 1
    assert LONG.without_room(4, {"whole": [10.0]}, 14.0) == 4
    assert LONG.without_room(4, {"whole": [10.0]}, 0.0) == 5  # the last one stays


def test_one_slow_epoch_among_others_drops_less_than_alone():
    assert LONG.without_room(5, {"whole": [10.0, 10.0, 10.0, 20.0]}, 25.0) == 1
    assert LONG.without_room(5, {"whole": [20.0]}, 25.0) == 3


def test_small_images_say_less_of_whole_ones():
    left = 2 * 0.5625 * 10 + 6 * 0.5 * 10
    assert LONG.without_room(2, {"early": [10.0]}, left / 1.14) == 0
    assert LONG.without_room(2, {"early": [10.0]}, left / 1.16) == 1
    assert LONG.without_room(2, {"early": [10.0], "whole": [10.0]}, left / 1.14) == 1


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
def test_small_images_are_not_made_smaller(size, scale, expected):
    assert (
        Curriculum(TrainSection(progressive_resize_scale=scale), size).progressive_size == expected
    )
