import json
import shlex

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from builders_run import make_run, simulated_parts, simulated_probabilities
from tinylens.data.dataset import Dataset
from tinylens.errors import DataError, RunError
from tinylens.evaluation.evaluate import (
    assemble,
    in_order_of,
    record_look,
    score,
    score_classifier,
    worst_mistakes,
)
from tinylens.metrics import wilson_interval
from tinylens.results import OVERALL_FIGURES, Calibration, Evaluation

NAMES = tuple("abcdefghij")
NO_CALIBRATION = Calibration(1.0, "none")


@given(st.integers(2, 8), st.integers(1, 80), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_every_figure_equals_scikit_learns(classes, n, seed):
    labels = np.random.default_rng(seed).integers(0, classes, n)
    probabilities = simulated_probabilities(labels, classes, strength=1.0, seed=seed)
    answers = probabilities.argmax(axis=1)
    scores = score(probabilities, labels, NAMES[:classes])
    expected = {
        "accuracy": sklearn.metrics.accuracy_score(labels, answers),
        "log_loss": sklearn.metrics.log_loss(labels, probabilities, labels=range(classes)),
        "brier": sklearn.metrics.brier_score_loss(
            np.eye(classes)[labels], probabilities, scale_by_half=False
        ),
        "mcc": 0.0,
    }
    if len({*labels, *answers}) > 1:  # of a single class scikit-learn warns
        expected["mcc"] = sklearn.metrics.matthews_corrcoef(labels, answers)
    for average in ("macro", "weighted"):
        values = sklearn.metrics.precision_recall_fscore_support(
            labels, answers, average=average, zero_division=0
        )
        for name, value in zip(("precision", "recall", "f1"), values, strict=False):
            expected[f"{name}_{average}"] = value
    if classes > 2 and len(np.unique(labels)) == classes:
        area = sklearn.metrics.roc_auc_score(labels, probabilities, multi_class="ovr")
        expected["roc_auc_macro"] = area
    assert {name: getattr(scores, name).value for name in expected} == pytest.approx(expected)
    precision, recall, f1, support = sklearn.metrics.precision_recall_fscore_support(
        labels, answers, labels=range(classes), zero_division=0
    )
    assert [row.precision.value for row in scores.per_class] == pytest.approx(precision)
    assert [row.recall.value for row in scores.per_class] == pytest.approx(recall)
    assert [row.f1.value for row in scores.per_class] == pytest.approx(f1)
    assert [row.support for row in scores.per_class] == support.tolist()
    for name in OVERALL_FIGURES:
        figure = getattr(scores, name)
        assert (figure.value is None) == (figure.ci95 is None)


def test_figures_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]], np.float32)
    scores = score(probabilities, np.array([0, 1, 1, 1]), ("cat", "dog"))
    assert scores.n == 4
    assert scores.confusion == ((1, 0), (1, 2))
    assert scores.accuracy.value == 0.75
    assert scores.accuracy.ci95 == wilson_interval(3, 4)
    cat, dog = scores.per_class
    assert (cat.precision.value, cat.recall.value) == (0.5, 1.0)
    assert (dog.precision.value, dog.recall.value) == (1.0, pytest.approx(2 / 3))
    assert cat.precision.ci95 == wilson_interval(1, 2)  # of 2 answers
    assert dog.recall.ci95 == wilson_interval(2, 3)  # of 3 images
    assert scores.top5.value == 1.0
    assert scores.roc_auc_macro.value == 1.0
    assert scores.log_loss.value == pytest.approx(-np.log([0.9, 0.8, 0.3, 0.6]).mean(), rel=1e-6)
    assert scores.ece.value == pytest.approx((0.1 + 0.2 + 0.7 + 0.4) / 4)


def test_top5_counts_the_five_most_probable_classes():
    probabilities = np.tile(np.arange(7, 0, -1, dtype=np.float32) / 28, (7, 1))
    scores = score(probabilities, np.arange(7), NAMES[:7])
    assert scores.top5.value == pytest.approx(5 / 7)
    assert scores.top5.ci95 == wilson_interval(5, 7)


def test_a_class_without_images_has_no_roc_auc_and_an_open_recall():
    labels = np.arange(40) % 2
    scores = score(simulated_probabilities(labels, 3), labels, ("a", "b", "c"))
    assert (scores.roc_auc_macro.value, scores.roc_auc_macro.ci95) == (None, None)
    assert scores.per_class[2].support == 0
    assert (scores.per_class[2].recall.value, scores.per_class[2].recall.ci95) == (0.0, (0.0, 1.0))


@given(st.permutations(range(4)))
@settings(max_examples=10, deadline=None)
def test_renaming_classes_permutes_the_confusion_matrix_and_changes_no_figure(order):
    labels = np.arange(80) % 4
    probabilities = simulated_probabilities(labels, 4, strength=1.0)
    order = np.array(order)
    plain = score(probabilities, labels, NAMES[:4])
    permuted = score(probabilities[:, order], np.argsort(order)[labels], NAMES[:4])
    assert np.array_equal(
        np.array(permuted.confusion), np.array(plain.confusion)[np.ix_(order, order)]
    )
    for name in OVERALL_FIGURES:
        assert getattr(permuted, name).value == pytest.approx(getattr(plain, name).value)


def test_images_given_twice_change_no_figure_and_narrow_the_intervals():
    labels = np.arange(90) % 3
    probabilities = simulated_probabilities(labels, 3, strength=1.5) ** 3
    probabilities /= probabilities.sum(axis=1, keepdims=True)  # its calibration error is no noise
    once = score(probabilities, labels, NAMES[:3])
    twice = score(np.repeat(probabilities, 2, axis=0), np.repeat(labels, 2), NAMES[:3])
    for name in OVERALL_FIGURES:
        first, second = getattr(once, name), getattr(twice, name)
        assert second.value == pytest.approx(first.value)
        if first.value < 1:
            assert np.ptp(second.ci95) < np.ptp(first.ci95)


def test_every_interval_holds_its_figure():
    labels = np.arange(500) % 5
    scores = score(simulated_probabilities(labels, 5, strength=2.0), labels, NAMES[:5])
    rows = [figure for row in scores.per_class for figure in (row.precision, row.recall, row.f1)]
    for figure in [*(getattr(scores, name) for name in OVERALL_FIGURES), *rows]:
        assert figure.ci95[0] <= figure.value <= figure.ci95[1]


def test_intervals_hold_the_truth_about_95_times_in_100():
    everything = simulated_probabilities(np.arange(60_000) % 3, 3, strength=2.0)
    labels = np.arange(60_000) % 3
    truth = score(everything, labels, NAMES[:3])
    random = np.random.default_rng(0)
    names = ("accuracy", "f1_macro", "log_loss", "mcc", "roc_auc_macro")
    hits = dict.fromkeys(names, 0)
    for _ in range(60):
        rows = random.integers(0, 60_000, 400)
        sample = score(everything[rows], labels[rows], NAMES[:3])
        for name in names:
            low, high = getattr(sample, name).ci95
            hits[name] += low <= getattr(truth, name).value <= high
    assert all(count >= 51 for count in hits.values()), hits  # 85 %: 4 deviations under 95 %


def test_evaluation_survives_json():
    evaluated = assemble(simulated_parts(), ("cat", "dog", "owl"), NO_CALIBRATION)
    tree = json.loads(json.dumps(evaluated.to_json()))
    assert Evaluation.from_json(tree) == evaluated
    assert list(tree["splits"]) == ["train", "val", "test"]
    assert tree["splits"]["test"]["accuracy"].keys() == {"value", "ci95"}


def test_assemble_measures_the_gap_of_its_parts():
    evaluated = assemble(simulated_parts(), ("cat", "dog", "owl"), NO_CALIBRATION)
    train, test = evaluated.splits["train"].accuracy.value, evaluated.splits["test"].accuracy.value
    assert evaluated.gap.value == pytest.approx(train - test)
    assert evaluated.gap.words.startswith(f"Train {train:.3f}, test {test:.3f}: the gap is")


def test_without_train_there_is_no_gap():
    parts = {"test": simulated_parts()["test"]}
    assert assemble(parts, ("cat", "dog", "owl"), NO_CALIBRATION).gap is None


def brightness_is_the_class(images):
    """A classifier of images whose every pixel is their class number."""
    return np.eye(3, dtype=np.float32)[images[:, 0, 0, 0]]


def test_evaluate_asks_the_classifier_in_batches():
    labels = np.arange(25) % 3
    images = np.repeat(labels, 64).reshape(25, 8, 8, 1).astype(np.uint8)
    data = Dataset(images, labels, ("a", "b", "c"), source="bright")
    sizes = []

    def classify(batch):
        sizes.append(len(batch))
        return brightness_is_the_class(batch)

    assert score_classifier(classify, data, batch_size=10).accuracy.value == 1.0
    assert sizes == [10, 10, 5]


def test_classes_in_another_order_are_matched_by_name():
    data = Dataset(np.zeros((3, 8, 8, 1), np.uint8), [0, 1, 2], ("a", "b", "c"), source="letters")
    ordered = in_order_of(("c", "a", "b"), data)
    assert ordered.class_names == ("c", "a", "b")
    assert ordered.labels.tolist() == [1, 2, 0]


def test_other_classes_are_refused_with_the_difference():
    data = Dataset(np.zeros((2, 8, 8, 1), np.uint8), [0, 1], ("cat", "owl"), source="pets")
    with pytest.raises(DataError) as refusal:
        in_order_of(("cat", "dog", "emu"), data)
    assert "the model and pets do not have the same classes" in str(refusal.value)
    assert "only the model has dog, emu; only the data have owl" in str(refusal.value)


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (np.full((2, 3), 1 / 3), [0, 1], "2 labels and 2 class names, but probabilities of shape"),
        (np.full((2, 2), 0.5), [0, 2], "labels run from 0 to 2; expected 0 to 1"),
        (np.full((2, 2), 0.6), [0, 1], "2 of 2 rows are not probabilities, the first is row 0"),
        (np.array([[0.5, 0.5], [np.nan, 1]]), [0, 1], "1 of 2 rows are not .* the first is row 1"),
        (np.array([[1.5, -0.5]]), [0], "1 of 1 rows are not probabilities"),
        (np.zeros((0, 2)), [], "0 labels and 2 class names"),
    ],
)
def test_what_are_not_probabilities_is_refused(probabilities, labels, message):
    with pytest.raises(DataError, match=message):
        score(probabilities.astype(np.float32), np.array(labels, dtype=np.int64), ("a", "b"))


def test_worst_mistakes_are_the_most_confident_wrong_answers():
    probabilities = np.array([[0.6, 0.4], [0.1, 0.9], [0.99, 0.01], [0.8, 0.2]], np.float32)
    worst = worst_mistakes(probabilities, np.array([1, 1, 1, 1]), count=2)
    assert worst.tolist() == [2, 3]
    assert worst.dtype == np.int64


def test_a_look_at_test_is_recorded_with_time_and_command(tmp_path):
    run = make_run(tmp_path / "run")
    command = shlex.join(["tinylens", "evaluate", str(run.path), "animals"])
    record_look(run, command)
    looks = run.info.test_opened
    assert len(looks) == 2
    assert looks[1]["command"] == command
    assert looks[1]["time"].endswith("Z")


def test_a_look_is_not_recorded_while_another_process_writes_the_run(tmp_path):
    run = make_run(tmp_path / "run")
    with run.lock(), pytest.raises(RunError, match="is being written by"):
        record_look(run, "tinylens evaluate")
    assert len(run.info.test_opened) == 1
