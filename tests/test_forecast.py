"""What is expected of a plan, read off from what was measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinylens.forecast import MEASURED, forecast


@pytest.mark.parametrize("name", MEASURED)
def test_what_was_measured_is_what_is_expected(name):
    for operations, accuracy in MEASURED[name]:
        assert forecast(operations).by_set[name] == pytest.approx(accuracy, abs=1e-4)


@given(st.floats(1e9, 1e18), st.floats(1.0, 100.0))
def test_more_work_is_never_expected_to_give_less(operations, factor):
    before, after = forecast(operations).by_set, forecast(operations * factor).by_set
    assert all(before[name] <= after[name] for name in MEASURED)


def test_half_way_between_two_points_the_error_is_their_geometric_mean():
    (low, before), (high, after), *_ = MEASURED["CIFAR-10 (JPEG)"]
    found = forecast((low * high) ** 0.5).by_set["CIFAR-10 (JPEG)"]
    assert 1 - found == pytest.approx(((1 - before) * (1 - after)) ** 0.5, abs=1e-4)


def test_the_band_and_the_words_name_both_sets():
    expected = forecast(1e14)
    assert expected.band == (min(expected.by_set.values()), max(expected.by_set.values()))
    assert all(name in expected.words for name in MEASURED)
