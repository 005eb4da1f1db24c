"""The plots of a search."""

from __future__ import annotations

import pytest

from tinylens.reporting import tuning


def row(number, value, state="complete"):
    return {"number": number, "state": state, "value": value}


def test_a_trial_that_was_given_up_far_below_is_drawn_on_the_axis():
    finished = [row(0, 0.93), row(2, 0.94), row(3, 0.935)]
    rows = [*finished, row(1, 0.1, "pruned"), row(4, 0.932, "pruned"), row(5, None, "pruned")]
    axes = tuning._history(rows, finished).axes[0]
    trials, given_up, best = axes.get_lines()
    bottom = axes.get_ylim()[0]
    assert bottom == pytest.approx(92)
    assert trials.get_ydata().tolist() == pytest.approx([93, 94, 93.5])
    assert given_up.get_xdata().tolist() == [1, 4]
    assert given_up.get_ydata().tolist() == pytest.approx([bottom, 93.2])
    assert best.get_ydata().tolist() == pytest.approx([93, 94, 94])


def test_where_nothing_was_finished_there_is_nothing_to_draw():
    assert tuning.history([row(0, 0.1, "pruned")]) is None
    assert tuning.importance({}) is None
