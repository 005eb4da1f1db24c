"""Each error ends the command with the exit code that the contract gives it."""

from __future__ import annotations

import pytest

from tinylens import errors

EXIT_CODES = {
    errors.TinylensError: 1,
    errors.DataError: 4,
    errors.RecipeError: 2,
    errors.RunError: 2,
    errors.TrainingDiverged: 6,
    errors.ModelError: 5,
    errors.MissingExtra: 3,
}


def all_errors(base=errors.TinylensError):
    return {base}.union(*(all_errors(below) for below in base.__subclasses__()))


def test_every_error_has_the_exit_code_of_the_contract():
    ours = {error for error in all_errors() if error.__module__ == "tinylens.errors"}
    assert {error: error.exit_code for error in ours} == EXIT_CODES


def test_a_training_that_diverged_can_be_caught_as_a_run_error():
    with pytest.raises(errors.RunError, match="at step 3"):
        raise errors.TrainingDiverged("at step 3")


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("epoch", ", did you mean epochs?"),
        ("EPOCHS", ""),
        ("batch-size", ", did you mean batch_size?"),
        ("zebra", ""),
        ("", ""),
    ],
)
def test_the_near_word_is_offered(word, hint):
    assert errors.did_you_mean(word, ["epochs", "batch_size"]) == hint
