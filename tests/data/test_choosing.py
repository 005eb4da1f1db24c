"""What is chosen from the sizes of images, and how it is explained."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinylens.data.images import ImageRule
from tinylens.data.resize_policy import Facts, Wanted, choose, facts_of

counted = st.tuples(st.integers(1, 9000), st.integers(1, 9000), st.booleans(), st.integers(1, 50))
some_sizes = st.lists(counted, min_size=1, max_size=8, unique_by=lambda one: one[:3])


def chosen(*sizes, **wanted):
    return choose(facts_of(sizes), Wanted(**wanted))


@pytest.mark.parametrize(
    ("sizes", "side"),
    [
        ([(70, 90, False, 1), (71, 91, False, 1)], 64),
        ([(70, 30, False, 1), (30, 71, False, 1), (31, 74, False, 1)], 64),  # padded
        ([(9, 9, False, 5), (12, 12, False, 5)], 16),
        ([(100, 100, False, 50), (10, 10, False, 49)], 96),
        ([(100, 100, False, 49), (10, 10, False, 51)], 16),
        ([(4000, 3000, False, 9), (3000, 4000, False, 9)], 128),
        ([(200, 129, False, 1), (200, 128, False, 1)], 128),
        ([(28, 28, True, 99), (28, 29, True, 1)], 24),
    ],
)
def test_half_of_the_images_at_least_are_not_enlarged(sizes, side):
    rule = chosen(*sizes).rule
    assert (rule.height, rule.width) == (side, side)


@given(some_sizes)
def test_a_chosen_side_suits_the_networks_and_the_images(sizes):
    facts = facts_of(sizes)
    rule = choose(facts, Wanted()).rule
    if facts.sizes == 1 and max(facts.width, facts.height) <= 128:
        assert rule == ImageRule(facts.height, facts.width, rule.channels)
        return
    assert rule.height == rule.width and rule.height % 8 == 0 and 16 <= rule.height <= 128
    if facts.sizes > 1:
        total = sum(times for *_, times in sizes)
        decides = max if rule.aspect == "pad" else min
        as_large = sum(times for w, h, _, times in sizes if decides(w, h) >= rule.height)
        assert rule.height == 16 or 2 * as_large >= total


@given(some_sizes)
def test_what_is_known_of_images_survives_json_and_does_not_depend_on_their_order(sizes):
    facts = facts_of(sizes)
    assert Facts.from_json(facts.to_json()) == facts == facts_of(sizes[::-1])


@pytest.mark.parametrize(
    ("sizes", "aspect"),
    [
        ([(200, 100, False, 9)], "stretch"),  # of one size: all are stretched alike
        ([(200, 100, False, 9), (400, 200, False, 9)], "stretch"),
        ([(64, 64, False, 1), (64, 60, False, 1)], "stretch"),
        ([(64, 64, False, 1), (64, 48, False, 1)], "pad"),
        ([(64, 64, False, 96), (64, 10, False, 4)], "stretch"),  # a few that are odd
        ([(64, 64, False, 90), (64, 10, False, 10)], "pad"),
    ],
)
def test_images_are_padded_where_their_ratios_differ(sizes, aspect):
    assert chosen(*sizes).rule.aspect == aspect
    assert any(note.startswith("aspect pad: ") for note in chosen(*sizes).notes) == (
        aspect == "pad"
    )


def test_each_choice_is_explained_and_what_was_asked_for_is_not():
    sizes = [(100, 50, True, 1), (50, 100, False, 2), (70, 70, False, 4)]
    assert chosen(*sizes).notes == (
        "images of 3 sizes were padded to 64×64",
        "size 64: half the images have a longer side of 70 pixels or more; --size N sets another",
        "aspect pad: widths are from 0.50 to 2.00 times the heights, and to stretch images would "
        "change what they show; --aspect stretch or crop sets another",
        "channels 3: 1 of 7 images have no colour and were made RGB as the others are",
    )
    assert chosen(*sizes[1:], size=40, aspect="crop").notes == (
        "images of 2 sizes were cropped to 40×40",
    )
    large = chosen((4000, 3000, False, 1), (3000, 4000, False, 1), aspect="stretch")
    assert large.notes[1] == (
        "size 128: half the images have a shorter side of 3,000 pixels or more, and more than "
        "128 is not taken unasked; --size N sets another"
    )


def test_images_that_are_alike_are_left_alone_in_silence():
    assert chosen((28, 28, True, 9)).notes == ()
    assert chosen((32, 24, False, 9)).rule == ImageRule(24, 32, 3)


def test_a_rule_that_is_given_is_taken_whole():
    rule = ImageRule(20, 30, 1, aspect="crop")
    found = chosen((100, 50, False, 1), (50, 100, False, 2), rule=rule)
    assert (found.rule, found.notes) == (rule, ("images of 2 sizes were cropped to 30×20",))
