"""When a trial is given up."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from tinylens.tuning.study import behind, near

optuna.logging.set_verbosity(optuna.logging.ERROR)


def study_of(*at_the_second_look):
    study = optuna.create_study(direction="maximize")
    for value in at_the_second_look:
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE,
                value=value,
                intermediate_values={1: 0.9, 2: value},
                params={"rate": 0.1},
                distributions={"rate": FloatDistribution(0, 1)},
            )
        )
    return study


@pytest.mark.parametrize(
    ("value", "look", "pictures", "given_up"),
    [
        (0.912, 2, 6_000, False),  # the median is 0.920, its standard error 0.0035
        (0.909, 2, 6_000, True),
        (0.909, 2, 600, False),  # of fewer pictures less is known
        (0.5, 1, 6_000, False),  # at the first look nobody is
        (0.5, 3, 6_000, False),  # where there is nothing to compare with, neither
    ],
)
def test_a_trial_is_given_up_where_more_than_chance_is_missing(value, look, pictures, given_up):
    assert behind(study_of(0.92, 0.92, 0.919, 0.92), value, look, pictures) is given_up


def test_a_trial_is_not_given_up_while_few_are_finished():
    assert not behind(study_of(0.92, 0.92, 0.92), 0.5, 2, 6_000)


def test_the_first_trials_keep_half_of_the_default_each_another_half():
    default = {f"model.options.{letter}": letter for letter in "abcdefgh"}
    kept = near(default, seed=3)
    assert all(len(each) == 4 and each.items() <= default.items() for each in kept)
    assert len({tuple(sorted(each)) for each in kept}) > 1
    assert near(default, seed=3) == kept != near(default, seed=4)
