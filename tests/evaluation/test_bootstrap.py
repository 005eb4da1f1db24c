import numpy as np
import pytest
import sklearn.metrics

from builders_run import simulated_probabilities
from tinylens.evaluation import bootstrap


def confusion_of(labels, answers, classes):
    return sklearn.metrics.confusion_matrix(labels, answers, labels=range(classes))


def figures_of(confusion):
    confusion = np.asarray(confusion, dtype=np.float64)
    return bootstrap.confusion_figures(
        np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    )


def resampled(labels, rows_of, count=1000, seed=1):
    """The bootstrap as everyone writes it first: draw rows, compute, a thousand times."""
    random = np.random.default_rng(seed)
    n = len(labels)
    values = [rows_of(random.integers(0, n, n)) for _ in range(count)]
    return np.percentile([value for value in values if value is not None], (2.5, 97.5))


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_confusion_figures_equal_scikit_learns(classes):
    random = np.random.default_rng(classes)
    labels, answers = random.integers(0, classes, (2, 200))
    figures = figures_of(confusion_of(labels, answers, classes))
    for average, ours in (("macro", figures.macro), ("weighted", figures.weighted)):
        theirs = sklearn.metrics.precision_recall_fscore_support(labels, answers, average=average)
        assert [ours["precision"], ours["recall"], ours["f1"]] == pytest.approx(theirs[:3])
    assert figures.mcc == pytest.approx(sklearn.metrics.matthews_corrcoef(labels, answers))


def test_classes_that_do_not_occur_are_left_out_of_the_macro_mean():
    figures = figures_of([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert figures.macro["recall"] == pytest.approx((0.75 + 1) / 2)


def test_a_single_answer_for_everything_has_no_correlation():
    assert figures_of([[5, 0], [5, 0]]).mcc == 0


def test_confusion_intervals_equal_those_of_resampled_images():
    labels = np.arange(400) % 3
    answers = simulated_probabilities(labels, 3, strength=1.5).argmax(axis=1)
    drawn = bootstrap.confusion_intervals(confusion_of(labels, answers, 3))
    f1 = resampled(
        labels, lambda r: sklearn.metrics.f1_score(labels[r], answers[r], average="macro"), 400
    )
    assert drawn.macro["f1"] == pytest.approx(f1, abs=0.01)
    assert drawn.f1.shape == (3, 2)


def test_intervals_come_from_the_seed():
    labels = np.arange(60) % 3
    probabilities = simulated_probabilities(labels, 3)
    first, again, other = (
        bootstrap.probability_intervals(probabilities, labels, seed=seed) for seed in (5, 5, 6)
    )
    assert first == again
    assert first != other


def test_log_loss_interval_equals_that_of_resampled_images():
    labels = np.arange(300) % 3
    probabilities = simulated_probabilities(labels, 3)
    losses = -np.log(probabilities[np.arange(300), labels])
    interval = bootstrap.probability_intervals(probabilities, labels).log_loss
    assert interval == pytest.approx(resampled(labels, lambda r: losses[r].mean()), rel=0.03)


@pytest.mark.parametrize(("n", "classes", "strength"), [(90, 3, 1.0), (400, 4, 2.0)])
def test_roc_auc_interval_is_close_to_that_of_resampled_images(n, classes, strength):
    labels = np.arange(n) % classes
    probabilities = simulated_probabilities(labels, classes, strength=strength)
    one_hot = np.eye(classes)

    def area(rows):
        return sklearn.metrics.roc_auc_score(one_hot[labels[rows]], probabilities[rows])

    low, high = bootstrap.probability_intervals(probabilities, labels).roc_auc_macro
    expected_low, expected_high = resampled(labels, area, 300)
    width = expected_high - expected_low
    assert low == pytest.approx(expected_low, abs=0.15 * width)
    assert high == pytest.approx(expected_high, abs=0.15 * width)


def test_misordered_shares_make_the_area_under_the_curve():
    labels = np.arange(50) % 2
    scores = simulated_probabilities(labels, 2, strength=0.5).round(1)  # with ties
    shares = bootstrap.misordered_shares(scores, labels)
    area = sklearn.metrics.roc_auc_score(labels, scores[:, 1])
    assert 1 - shares[labels == 1, 1].mean() == pytest.approx(area)
    assert 1 - shares[labels == 0, 3].mean() == pytest.approx(area)


def test_roc_auc_has_no_interval_when_a_class_has_no_image():
    labels = np.arange(30) % 2
    assert (
        bootstrap.probability_intervals(simulated_probabilities(labels, 3), labels).roc_auc_macro
        is None
    )


def test_calibration_interval_of_a_calibrated_network_reaches_down_to_zero():
    random = np.random.default_rng(0)
    first = random.uniform(0.5, 1, 3000)
    labels = (random.random(3000) > first).astype(np.int64)
    probabilities = np.column_stack([first, 1 - first])
    low, high = bootstrap.probability_intervals(probabilities, labels).ece
    assert low == 0.0
    assert 0 < high < 0.05


def test_calibration_interval_of_an_overconfident_network_lies_round_the_truth():
    random = np.random.default_rng(0)
    labels = (random.random(4000) > 0.8).astype(np.int64)  # right 80 % of the time
    first = random.uniform(0.94, 0.96, 4000)
    probabilities = np.column_stack([first, 1 - first])
    low, high = bootstrap.probability_intervals(probabilities, labels).ece
    assert low < 0.15 < high
    assert high - low < 0.04


def test_two_images_are_enough():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6]], np.float32)
    intervals = bootstrap.probability_intervals(probabilities, np.array([0, 1]))
    assert intervals.roc_auc_macro == (1.0, 1.0)
