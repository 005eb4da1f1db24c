"""`auto`: what is tried, what is chosen by it, and what becomes of the choice."""

from __future__ import annotations

import numpy as np
import pytest

import tinylens as tl
from conformance import tiny_dataset, tiny_splits
from tinylens.errors import RecipeError
from tinylens.progress import ProgressReporter
from tinylens.recipe import Recipe
from tinylens.training import choose_balance, loop
from tinylens.training.choose_balance import Choice, Trial

SMALL = {
    "train.epochs": 2,
    "train.batch_size": 16,
    "model.options.widths": [4],
    "model.options.dense": [8],
}
SHAPE = (12, 12, 1)
KEPT = (64, 16, 8, 1)  # of each class


class Teller(ProgressReporter):
    """Keeps what it is told."""

    def __init__(self):
        self.lines, self.phases = [], []

    def phase(self, name):
        self.phases.append(name)

    def say(self, line):
        self.lines.append(line)


@pytest.fixture(scope="module")
def uneven():
    whole = tiny_dataset(SHAPE, count=256)
    rows = [np.flatnonzero(whole.labels == label)[:kept] for label, kept in enumerate(KEPT)]
    splits = tiny_splits(SHAPE)
    return tl.Splits(whole.subset(np.concatenate(rows)), splits.val, splits.test)


def trials(**scores):
    return [Trial(name, score, error, 0.9, 1.0) for name, (score, error) in scores.items()]


def test_the_first_within_a_standard_error_of_the_best_is_chosen():
    found = trials(
        logits=(0.80, 0.01), weights=(0.84, 0.01), sampling=(0.845, 0.01), none=(0.7, 0.01)
    )
    assert choose_balance._best(found) == "weights"


def test_none_is_chosen_only_where_it_is_surely_better():
    close = trials(
        logits=(0.80, 0.02), weights=(0.6, 0.02), sampling=(0.6, 0.02), none=(0.81, 0.02)
    )
    assert choose_balance._best(close) == "logits"
    far = trials(logits=(0.80, 0.02), weights=(0.6, 0.02), sampling=(0.6, 0.02), none=(0.84, 0.02))
    assert choose_balance._best(far) == "none"


def test_even_classes_need_none_and_cost_nothing(monkeypatch):
    monkeypatch.setattr(loop, "fit", lambda *_: pytest.fail("something was trained"))
    choice = choose_balance.choose(
        tiny_splits(SHAPE), Recipe(name="test"), "float32", ProgressReporter()
    )
    assert choice == Choice("none", 1.0)
    assert "even enough" in choice.words


def test_a_third_of_each_class_is_set_aside_but_never_its_only_image(uneven):
    rest, aside = choose_balance._parted(uneven.train, seed=0)
    assert sorted([*rest, *aside]) == list(range(len(uneven.train)))
    assert np.bincount(uneven.train.labels[aside], minlength=4).tolist() == [21, 5, 3, 0]


def test_whoever_says_nothing_is_told_of_uneven_classes(uneven):
    assert "64 times as many images" in choose_balance.hint(uneven)
    assert choose_balance.hint(tiny_splits(SHAPE)) == ""


def test_a_budget_has_no_room_for_trials(uneven):
    with pytest.raises(RecipeError, match="--balance logits, or leave the budget out"):
        tl.train(uneven, "fast", budget=60, overrides={"train.balance": "auto"})


@pytest.mark.slow
@pytest.mark.backend
def test_auto_tries_all_tells_and_is_continued_without_trying_again(uneven, tmp_path, monkeypatch):
    changes = SMALL | {"train.balance": "auto"}
    reporter = Teller()
    run = tl.train(uneven, out=tmp_path / "run", overrides=changes, reporter=reporter)
    record = run.info.balance
    assert [each["balance"] for each in record["trials"]] == list(choose_balance.CANDIDATES)
    assert record["images"] == 21 + 5 + 3 + len(uneven.val)
    assert run.recipe.train.balance == record["chosen"]
    assert run.info.seconds["balance"] == record["seconds"] > 0
    words = f"balance: {record['chosen']}, chosen among short trainings"
    assert any(line.startswith(words) for line in reporter.lines)
    assert words in run.report.read_text("utf-8")
    assert sum(phase.startswith("trying out balance") for phase in reporter.phases) == 4

    monkeypatch.setattr(choose_balance, "choose", lambda *_: pytest.fail("tried again"))
    info = run.info
    info.state = "running"
    run.write_info(info)
    again = tl.train(uneven, out=tmp_path / "run", overrides=changes)
    assert again.info.state == "done"
    assert again.info.balance == record
    assert again.info.seconds["balance"] == record["seconds"]


@pytest.mark.slow
def test_a_wish_to_stop_ends_the_trials(uneven):
    recipe = Recipe(name="test").override(SMALL)
    with pytest.raises(KeyboardInterrupt):
        choose_balance.choose(uneven, recipe, "float32", ProgressReporter(), lambda: True)
