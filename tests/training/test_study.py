"""When a trial is given up, what is tried first, and how a budget is shared out."""

from __future__ import annotations

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from tinylens.training.tuning.folder import Folder
from tinylens.training.tuning.pruning import DEFAULT, Behind, reporting_trial
from tinylens.training.tuning.study import (
    CONFIRMED,
    RUN_SHARE,
    near,
    next_trial,
    open_study,
    share_out,
)

optuna.logging.set_verbosity(optuna.logging.ERROR)


def trial_of(state, looks, **notes):
    return create_trial(
        state=state,
        value=looks[max(looks)] if state is TrialState.COMPLETE else None,
        intermediate_values=looks,
        user_attrs=notes,
        params={"rate": 0.1},
        distributions={"rate": FloatDistribution(0, 1)},
    )


def given_up(finished, value, look, images, **notes):
    """Return the verdict on a trial of `value` at `look`, beside those that were finished."""
    study = optuna.create_study(direction="maximize")
    for each in finished:
        study.add_trial(trial_of(TrialState.COMPLETE, {1: 0.9, 2: each}))
    trial = trial_of(TrialState.RUNNING, {look: value}, **notes)
    return Behind(images).prune(study, trial)


FINISHED = (0.92, 0.92, 0.919, 0.92)


@pytest.mark.parametrize(
    ("value", "look", "images", "expected"),
    [
        (0.912, 2, 6_000, False),  # the median is 0.920, its standard error 0.0035
        (0.909, 2, 6_000, True),
        (0.909, 2, 600, False),  # of fewer images less is known
        (0.5, 1, 6_000, False),  # at the first look nobody is
        (0.5, 3, 6_000, False),  # where there is nothing to compare with, neither
    ],
)
def test_a_trial_is_given_up_where_more_than_chance_is_missing(value, look, images, expected):
    assert given_up(FINISHED, value, look, images) is expected


def test_a_trial_is_not_given_up_while_few_are_finished():
    assert not given_up(FINISHED[:3], 0.5, 2, 6_000)


def test_the_default_is_never_given_up():
    assert not given_up(FINISHED, 0.5, 2, 6_000, **{DEFAULT: True})


def test_what_was_in_flight_is_ended_by_its_record_or_asked_again(tmp_path):
    folder = Folder(tmp_path)
    study = open_study(folder, seed=0)
    study.enqueue_trial({"rate": 0.25}, user_attrs={DEFAULT: True})
    lost = study.ask()
    lost.suggest_float("rate", 0, 1)
    kept = study.ask({"rate": FloatDistribution(0, 1)})
    study.enqueue_trial({"rate": 0.75})
    folder.write(f"trials/trial-{kept.number}", {"value": 0.5})
    again = open_study(folder, seed=0)
    states = [trial.state for trial in again.trials]
    assert states == [TrialState.FAIL, TrialState.COMPLETE, *2 * [TrialState.WAITING]]
    requested = next_trial(again)
    assert requested.suggest_float("rate", 0, 1) == 0.25 and requested.user_attrs[DEFAULT]
    assert next_trial(again).suggest_float("rate", 0, 1) == 0.75


def test_another_process_reports_to_a_trial(tmp_path):
    study = open_study(Folder(tmp_path), seed=0)
    for each in FINISHED:
        study.add_trial(trial_of(TrialState.COMPLETE, {1: 0.9, 2: each}))
    trial = study.ask({"rate": FloatDistribution(0, 1)})
    there = reporting_trial(Folder(tmp_path), trial._trial_id, images=6_000)
    there.report(0.5, 1)
    assert not there.should_prune()
    there.report(0.5, 2)
    assert there.should_prune()
    assert study.trials[-1].intermediate_values == {1: 0.5, 2: 0.5}
    assert study.trials[-1].params == trial.params


def test_the_first_trials_keep_half_of_the_default_each_another_half():
    default = {f"model.options.{letter}": letter for letter in "abcdefgh"}
    kept = near(default, seed=3)
    assert all(len(each) == 4 and each.items() <= default.items() for each in kept)
    assert len({tuple(sorted(each)) for each in kept}) > 1
    assert near(default, seed=3) == kept != near(default, seed=4)


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
