"""How a budget is shared out: nothing is promised twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tinylens.tuning.lengths import CONFIRMED, RUN_SHARE, share_out


@given(
    budget=st.floats(120, 86_400),
    spent_share=st.floats(0, 0.5),
    jobs=st.integers(1, 16),
    finish_share=st.floats(0.01, 0.1),
)
def test_the_stages_follow_each_other_and_end_within_the_budget(
    budget, spent_share, jobs, finish_share
):
    now, spent, finish = 1000.0, spent_share * budget, finish_share * budget
    lengths = share_out(now, budget, spent, jobs, finish)
    run = RUN_SHARE * (budget - finish)
    assert now < lengths.end <= now + budget - spent
    rounds = -(-(CONFIRMED + 1) // jobs)
    assert abs(lengths.search_until + rounds * lengths.again - lengths.again_until) < 1e-6
    assert abs(lengths.again_until + run + finish - lengths.end) < 1e-6
    assert lengths.trial < lengths.again  # a second look is the longer one
