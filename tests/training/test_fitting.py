"""The loop: what is resumed ends as what was never stopped, and learning is learning."""

from __future__ import annotations

import contextlib
import math
from dataclasses import asdict, dataclass

import keras
import numpy as np
import pytest

from conformance import tiny_dataset, tiny_splits
from tinylens.data.dataset import Dataset, Splits
from tinylens.errors import RecipeError, TrainingDiverged
from tinylens.progress import ProgressReporter
from tinylens.recipe import Recipe
from tinylens.run import Run
from tinylens.training import loop
from tinylens.training import trainer as compiling

pytestmark = pytest.mark.backend

SHAPE = (12, 12, 1)
RECIPE = Recipe(name="test").override(
    {
        "model.options": {"widths": [4], "dense": [8], "dropout": 0.2},
        "train.epochs": 3,
        "train.batch_size": 16,
        "optimizer.learning_rate": 0.01,
        "augment.flip": "alternating",
        "augment.shift": 2,
    }
)
STEPS = 4  # an epoch: 64 images in batches of 16
TIMES = {"seconds", "images_per_second"}
VARIANTS = {
    "plain": {},
    "all options": {
        "train.ema": 0.8,
        "train.label_smoothing": 0.1,
        "optimizer.name": "sgd",
        "optimizer.weight_decay": 0.01,
        "optimizer.clip_norm": 1.0,
        "optimizer.warmup": 0.3,
    },
    "sampling": {"train.balance": "sampling", "train.hard_example_fraction": 0.5},
    "early stopping": {
        "train.best_weights": False,
        "train.early_stopping": 1,
        "train.epochs": 20,
        "optimizer.learning_rate": 0.3,
    },
}


class Recorder(ProgressReporter):
    """Keeps what it is told."""

    def __init__(self):
        self.progress = []
        self.rows = []

    def step(self, progress):
        self.progress.append(progress)

    def epoch(self, row):
        self.rows.append(dict(row))


class Untouchable(ProgressReporter):
    """Must not be told of any step."""

    def step(self, progress):
        pytest.fail("a step was trained")


def stop_after(steps):
    """Say yes when asked for the `steps`-th time, and from then on."""
    left = iter(range(steps - 1))
    return lambda: next(left, None) is None


def never():
    return False


def fit(folder, splits, recipe, should_stop=never, reporter=None):
    trainer = compiling.build(splits, recipe, "float32")
    state = loop.fit(trainer, Run(folder), reporter or ProgressReporter(), should_stop)
    return trainer, state


def rows_without_times(history):
    return [{key: value for key, value in row.items() if key not in TIMES} for row in history]


@pytest.fixture(scope="module")
def splits():
    return tiny_splits(SHAPE)


@dataclass
class Finished:
    """A training that was never stopped, and what is needed to do it again from its start."""

    trainer: compiling.Trainer
    start: dict[str, np.ndarray]
    weights: list[np.ndarray]
    state: loop.State

    def fit(self, folder, should_stop=never, reporter=None):
        """Train in `folder` with the built trainer, whose variables hold an earlier training's.

        Whatever a checkpoint leaves out is therefore wrong, as it is in a new process.
        """
        run = Run(folder)
        if run.read_checkpoint() is None:
            run.write_checkpoint(self.start, asdict(loop.State()))
        return loop.fit(self.trainer, run, reporter or ProgressReporter(), should_stop)

    def logits(self, part):
        """Logits of the finished network for the images of a part."""
        self.trainer.network.set_weights(self.weights)
        images = part.images.astype(np.float32)
        return keras.ops.convert_to_numpy(self.trainer.network(images, training=False))


@pytest.fixture(scope="module")
def finished(splits, tmp_path_factory):
    """By variant: a training that was never stopped."""
    done = {}

    def of(variant):
        if variant not in done:
            trainer = compiling.build(splits, RECIPE.override(VARIANTS[variant]), "float32")
            start = {
                name: np.array(keras.ops.convert_to_numpy(value))
                for name, value in trainer.arrays().items()
            }
            run = Run(tmp_path_factory.mktemp("run"))
            state = loop.fit(trainer, run, ProgressReporter(), never)
            done[variant] = Finished(trainer, start, trainer.network.get_weights(), state)
        return done[variant]

    return of


# --- resuming


def assert_ended_the_same(weights, state, expected):
    assert all(map(np.array_equal, weights, expected.weights))
    found, wanted = map(rows_without_times, (state.history, expected.state.history))
    for row, other in zip(found, wanted, strict=True):
        assert row == pytest.approx(other, rel=1e-6)  # two means of an epoch are put together
        assert row["val_loss"] == other["val_loss"]
    ends = [(each.epoch, each.best_epoch, each.stale) for each in (state, expected.state)]
    assert ends[0] == ends[1]


@pytest.mark.parametrize("steps", [1, 3, 4, 5, 8, 10, 11])
def test_stopped_after_a_step_it_ends_with_the_same_weights(finished, tmp_path, steps):
    expected = finished("plain")
    assert not expected.fit(tmp_path, stop_after(steps)).finished
    state = expected.fit(tmp_path)
    assert_ended_the_same(expected.trainer.network.get_weights(), state, expected)
    assert Run(tmp_path).history == state.history


@pytest.mark.parametrize("steps", [2, STEPS, STEPS + 1])
@pytest.mark.parametrize(
    "variant", ["all options", "early stopping", pytest.param("sampling", marks=pytest.mark.slow)]
)
def test_whatever_the_recipe_asks_for_survives_a_stop(finished, tmp_path, variant, steps):
    expected = finished(variant)
    assert not expected.fit(tmp_path, stop_after(steps)).finished
    state = expected.fit(tmp_path)
    assert_ended_the_same(expected.trainer.network.get_weights(), state, expected)


def test_stopped_after_every_step_it_ends_with_the_same_weights(finished, tmp_path):
    expected = finished("all options")
    stops = 0
    while not (state := expected.fit(tmp_path, stop_after(1))).finished:
        stops += 1
    assert stops == 9  # a stop at the end of an epoch takes the first step of the next one along
    assert_ended_the_same(expected.trainer.network.get_weights(), state, expected)


def test_a_network_built_anew_goes_on_to_the_same_weights(finished, tmp_path, splits):
    """As in a new process, but for the process; test_kill.py has that."""
    fit(tmp_path, splits, RECIPE, stop_after(STEPS + 2))
    trainer, state = fit(tmp_path, splits, RECIPE)
    assert_ended_the_same(trainer.network.get_weights(), state, finished("plain"))


def test_early_stopping_does_strike_in_its_variant(finished):
    state = finished("early stopping").state
    assert state.finished
    assert state.stale == 1
    assert 2 <= state.epoch < 20


def test_a_finished_training_is_not_trained_again(finished, tmp_path):
    expected = finished("plain")
    first = expected.fit(tmp_path)
    Run(tmp_path).write_history(first.history[:1])  # as a kill leaves it that came before it
    again = loop.fit(expected.trainer, Run(tmp_path), Untouchable(), never)
    assert again == first
    assert Run(tmp_path).history == first.history
    assert_ended_the_same(expected.trainer.network.get_weights(), again, expected)


# --- what is reported


def test_watcher_and_history_are_told_of_every_step_and_epoch(finished, tmp_path):
    reporter = Recorder()
    state = finished("plain").fit(tmp_path, reporter=reporter)
    assert [(p.epoch, p.step) for p in reporter.progress] == [
        (epoch, step) for epoch in range(3) for step in range(1, STEPS + 1)
    ]
    assert {(p.epochs, p.steps) for p in reporter.progress} == {(3, STEPS)}
    assert reporter.rows == state.history == Run(tmp_path).history
    assert list(reporter.rows[0]) == [
        "epoch",
        "learning_rate",
        "loss",
        "accuracy",
        "val_loss",
        "val_accuracy",
        "images_per_second",
        "seconds",
    ]
    assert reporter.rows[-1]["learning_rate"] == pytest.approx(0, abs=1e-8)
    last = reporter.progress[-1]
    assert reporter.rows[-1]["loss"] == pytest.approx(last.loss)


def test_val_figures_are_those_of_the_network_in_inference(finished, splits):
    expected = finished("early stopping")  # which ends with the weights of its last epoch
    logits, labels = expected.logits(splits.val), splits.val.labels
    loss = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]
    last = expected.state.history[-1]
    assert last["val_accuracy"] == pytest.approx((logits.argmax(axis=1) == labels).mean())
    assert last["val_loss"] == pytest.approx(loss.mean(), rel=1e-4)


def test_the_best_weights_are_those_of_the_best_val_accuracy(finished, splits):
    expected = finished("all options")
    accuracies = [row["val_accuracy"] for row in expected.state.history]
    assert expected.state.best_accuracy == max(accuracies) > accuracies[-1]
    assert expected.state.best_epoch == 1 + accuracies.index(max(accuracies))
    right = expected.logits(splits.val).argmax(axis=1) == splits.val.labels
    assert right.mean() == pytest.approx(max(accuracies))


def test_the_running_mean_is_what_is_judged_and_kept(tmp_path, splits):
    """With a momentum near 1 the means hardly leave the weights of the first step."""
    recipe = RECIPE.override({"train.ema": 0.9999, "train.best_weights": False})
    trainer = compiling.build(splits, recipe, "float32")
    loop.fit(trainer, Run(tmp_path), ProgressReporter(), lambda: True)
    first = [variable.numpy() for variable in trainer.network.trainable_variables]
    loop.fit(trainer, Run(tmp_path), ProgressReporter(), never)
    for variable, start in zip(trainer.network.trainable_variables, first, strict=True):
        np.testing.assert_allclose(variable.numpy(), start, atol=5e-4)


def test_weights_make_every_class_count_about_the_same():
    data = tiny_dataset(SHAPE, num_classes=3, count=12)
    rows = np.concatenate([np.flatnonzero(data.labels == 0), np.flatnonzero(data.labels == 1)[:1]])
    uneven = data.subset(rows)
    trainer = compiling.build(
        Splits(uneven, None, data), RECIPE.override({"train.balance": "weights"}), "float32"
    )
    by_class = [trainer.weights[uneven.labels == label].sum() for label in range(2)]
    assert by_class == pytest.approx([2.5, 2.5], rel=1e-3)
    assert trainer.weights.mean() == pytest.approx(1)


def test_a_later_epoch_is_kept_unless_its_macro_f1_is_surely_worse():
    state = loop.State()
    kept = []
    for score in (0.5, 0.7, 0.66, 0.64, 0.66):
        row = {"val_accuracy": 0.1, "val_macro_f1": score, "val_macro_f1_error": 0.05}
        kept.append(loop._is_best(row, state))
    assert kept == [True, True, True, False, True]
    assert state.best_accuracy == 0.7


def test_without_balance_the_epoch_with_the_highest_accuracy_is_kept():
    state = loop.State()
    rows = [{"val_accuracy": 0.5}, {"val_accuracy": 0.5}, {}, {"val_accuracy": 0.6}]
    assert [loop._is_best(row, state) for row in rows] == [True, False, False, True]


def test_logits_with_priors_raise_the_recall_of_a_rare_class(tmp_path):
    """Two classes that look alike but for noise, 20 to 1: only who makes up for it names both."""
    random = np.random.default_rng(0)

    def drawn(counts):
        labels = np.repeat([0, 1], counts)
        levels = (
            110 + 30 * labels[:, None, None, None] + random.normal(0, 90, (len(labels), 8, 8, 1))
        )
        images = np.clip(levels, 0, 255).astype(np.uint8)
        return Dataset(images, labels, ("dark", "bright"), source="made")

    data = Splits(drawn([400, 20]), drawn([40, 2]), drawn([100, 100]))

    def recall(name):
        recipe = RECIPE.override({"train.balance": name, "augment.flip": "none"})
        trainer, _ = fit(tmp_path / name, data, recipe)
        answers = trainer.network.predict(data.test.images, verbose=0).argmax(axis=1)
        return (answers == data.test.labels)[100:].mean()

    assert recall("logits") > recall("none") + 0.2


def test_without_a_val_part_nothing_is_chosen(tmp_path):
    data = tiny_dataset(SHAPE)
    recipe = RECIPE.override({"train.early_stopping": 1, "optimizer.learning_rate": 0.5})
    _, state = fit(tmp_path, Splits(data, None, data), recipe)
    assert state.epoch == 3
    assert state.best_epoch == 0
    assert "val_loss" not in state.history[0]


# --- what goes wrong


def test_a_loss_that_is_no_number_stops_with_step_and_rate(tmp_path, splits):
    recipe = RECIPE.override(
        {"optimizer.name": "sgd", "optimizer.learning_rate": 10, "optimizer.schedule": "constant"}
    )
    trainer = compiling.build(splits, recipe, "float32")
    loop.fit(trainer, Run(tmp_path), ProgressReporter(), stop_after(STEPS + 2))
    kernel = trainer.network.trainable_variables[-2]
    poison_checkpoint(Run(tmp_path), trainer, kernel)
    with pytest.raises(TrainingDiverged) as caught:
        fit(tmp_path, splits, recipe)
    described = str(caught.value)
    assert (
        f"the loss stopped being a number by step {STEPS + 3} (epoch 2, learning rate 10)"
        in described
    )
    assert "--set optimizer.learning_rate=1" in described


def poison_checkpoint(run, trainer, variable):
    """Put infinities into the newest checkpoint, where a training would have grown them."""
    arrays, state = run.read_checkpoint()
    (name,) = (name for name, each in trainer.arrays().items() if each is variable)
    arrays[name] = np.full_like(arrays[name], np.inf)
    run.write_checkpoint(arrays, state)


def test_a_rate_that_blows_up_is_noticed_and_the_last_checkpoint_stays(tmp_path, splits):
    recipe = RECIPE.override(
        {
            "optimizer.name": "sgd",
            "optimizer.learning_rate": 10,
            "optimizer.schedule": "constant",
            "optimizer.weight_decay": 0.99,
            "train.epochs": 60,
        }
    )
    with pytest.raises(TrainingDiverged, match="is kept; train again with a lower rate"):
        fit(tmp_path, splits, recipe)
    with contextlib.suppress(StopIteration):
        _, state = Run(tmp_path).read_checkpoint()
        assert all(math.isfinite(row["loss"]) for row in state["history"])


# --- learning


@pytest.mark.slow
def test_shuffled_labels_are_learned_on_train_and_stay_at_chance_on_test(tmp_path):
    splits = tiny_splits(SHAPE, num_classes=2, count=64)
    shuffled = np.random.default_rng(0).permutation(splits.train.labels)
    train = Dataset(splits.train.images, shuffled, splits.class_names, source="shuffled")
    test = tiny_dataset(SHAPE, num_classes=2, count=400, seed=9)
    recipe = RECIPE.override(
        {
            "train.epochs": 30,
            "model.options": {"widths": [16], "dense": [64], "dropout": 0.0},
            "augment": {},
        }
    )
    trainer, state = fit(tmp_path, Splits(train, None, test), recipe)
    assert state.history[-1]["accuracy"] > 0.9
    logits = keras.ops.convert_to_numpy(trainer.network(test.images.astype(np.float32)))
    assert 0.35 < (logits.argmax(axis=1) == test.labels).mean() < 0.65


@pytest.mark.slow
def test_true_labels_are_learned_and_carry_over_to_test(tmp_path, splits):
    trainer, _ = fit(tmp_path, splits, RECIPE.override({"train.epochs": 12, "augment": {}}))
    logits = keras.ops.convert_to_numpy(trainer.network(splits.test.images.astype(np.float32)))
    assert (logits.argmax(axis=1) == splits.test.labels).mean() > 0.9


# --- building


def test_images_are_normalized_by_the_training_part():
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    images[..., 2] = 7
    train = Dataset(images, [0, 1, 0, 1, 0], ("a", "b"), source="x")
    trainer = compiling.build(Splits(train, None, train), RECIPE, "float32")
    normalized = keras.Model(trainer.network.input, trainer.network.layers[1].output)
    answers = keras.ops.convert_to_numpy(normalized(images))
    answers = answers.reshape(-1, 3).astype(np.float64)
    assert answers.mean(axis=0) == pytest.approx([0, 0, 0], abs=1e-6)
    assert answers.std(axis=0) == pytest.approx([1, 1, 0], abs=1e-5)


def test_building_leaves_the_dtype_policy_as_it_was(splits):
    before = keras.config.dtype_policy().name
    trainer = compiling.build(splits, RECIPE, "bfloat16")
    assert keras.config.dtype_policy().name == before
    assert {variable.dtype for variable in trainer.network.trainable_variables} == {"float32"}
    convolution = next(layer for layer in trainer.network.layers if "conv" in layer.name)
    assert convolution.compute_dtype == "bfloat16"


# --- smaller images in the first epochs

EARLY = {
    "model.name": "whitened",
    "model.options": {"widths": [8, 8]},
    "optimizer.name": "muon",
    "optimizer.learning_rate": 0.1,
    "train.epochs": 4,
    "train.progressive_resize_scale": 0.8,
    "train.hard_example_fraction": 0.5,
}


@pytest.mark.slow
def test_smaller_images_first_and_hard_ones_last_resume_to_the_same_weights(tmp_path):
    splits = tiny_splits((30, 30, 1))
    recipe = RECIPE.override(EARLY)
    whole, state = fit(tmp_path / "whole", splits, recipe)
    assert [whole.model_of(epoch) is whole.model for epoch in range(4)] == [False] * 2 + [True] * 2
    assert [whole.steps_of(epoch) for epoch in range(4)] == [4, 4, 2, 2]
    fit(tmp_path / "cut", splits, recipe, stop_after(6))  # amid the last epoch of smaller images
    fit(tmp_path / "cut", splits, recipe, stop_after(3))  # amid the first one of hard images
    again, resumed = fit(tmp_path / "cut", splits, recipe)
    assert [row["val_loss"] for row in resumed.history] == [
        row["val_loss"] for row in state.history
    ]
    pairs = zip(again.network.get_weights(), whole.network.get_weights(), strict=True)
    assert all(np.array_equal(found, expected) for found, expected in pairs)


def test_smaller_images_share_the_weights_and_the_data_of_whole_ones():
    trainer = compiling.build(tiny_splits((30, 30, 1)), RECIPE.override(EARLY), "float32")
    early = {id(variable) for variable in trainer.progressive_model.variables}
    assert early == {id(variable) for variable in trainer.model.variables}
    assert trainer.progressive_model.optimizer is trainer.model.optimizer
    sizes = [layer.size for layer in trainer.progressive_model.layers if hasattr(layer, "spec")]
    assert sizes == [(24, 24)]


def test_a_network_for_one_size_is_refused_for_smaller_images():
    recipe = RECIPE.override({"train.progressive_resize_scale": 0.8})
    with pytest.raises(
        RecipeError,
        match=r"train\.progressive_resize_scale: the network classic takes images of one size",
    ):
        compiling.build(tiny_splits((30, 30, 1)), recipe, "float32")
