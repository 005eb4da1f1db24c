"""The gap from train to test: its size, and what it says about new images in plain words."""

from __future__ import annotations

from tinylens import metrics
from tinylens.results import Gap, SplitScores


def measure_gap(train: SplitScores, test: SplitScores, val: SplitScores | None = None) -> Gap:
    """Return train accuracy minus test accuracy, and what it says about new images.

    Args:
        train: figures on the pictures that were learned from, in inference mode.
        test: figures on pictures that nothing was learned from or chosen on.
        val: figures on the pictures that everything was chosen on, where there were such.
    """
    right, test_right = _right(train), _right(test)
    value = right / train.n - test_right / test.n
    interval = metrics.difference_interval(right, train.n, test_right, test.n)
    sentences = [
        _gap_sentence(train, test, value, interval),
        _expectation_sentence(train, test, interval),
        _remedy_sentence(train, test, value, interval),
    ]
    if val is not None:
        sentences.append(
            f"Every choice was made on val, so its own {_rate(val):.3f} may read high; "
            "test was used for nothing but its own figures."
        )
    return Gap(value=value, ci95=interval, words=" ".join(filter(None, sentences)))


def _gap_sentence(
    train: SplitScores, test: SplitScores, value: float, interval: metrics.Interval
) -> str:
    both = f"Train {_rate(train):.3f}, test {_rate(test):.3f}"
    low, high = interval
    if high < 0:
        return (
            f"{both}: test is better by {points(-value)} points "
            f"({points(-high)} to {points(-low)})."
        )
    gap = f"{both}: the gap is {points(value)} points ({points(low)} to {points(high)})"
    if low <= 0:
        return f"{gap}, which {test.n:,} test pictures cannot tell from none."
    return f"{gap}."


def _expectation_sentence(train: SplitScores, test: SplitScores, interval: metrics.Interval) -> str:
    low, high = metrics.wilson_interval(_right(test), test.n)
    expected = (
        f"On new images like the test set expect {points(_rate(test))} % right "
        f"({points(low)} to {points(high)})"
    )
    train_error, test_error = 1 - _rate(train), 1 - _rate(test)
    if interval[1] < 0:
        return (
            f"{expected}; the train figure is lower, so the test pictures are easier than the "
            "train pictures: expect less on new images as hard as those."
        )
    if interval[0] <= 0:
        return f"{expected}; no overfitting can be seen."
    reason = f"{expected}; the train figure overstates it because the network has seen those images"
    if train_error == 0:
        return f"{reason}: it makes no mistake on them and {points(test_error)} % on new ones."
    return (
        f"{reason}: it makes {test_error / train_error:.1f} times as many mistakes on new ones "
        f"({points(test_error)} % against {points(train_error)} %)."
    )


def _remedy_sentence(
    train: SplitScores, test: SplitScores, value: float, interval: metrics.Interval
) -> str:
    """Say which part of the test error is the larger one, and what would make it smaller."""
    train_error, test_error = 1 - _rate(train), 1 - _rate(test)
    useless = no_better_than_one_answer(test)
    if useless is not None:
        name, share = useless
        return (
            f"Always answering “{name}” would be right on {points(share)} % of test: it does not "
            "show that the network has learned anything."
        )
    if value <= train_error and test_error > 0:
        return (
            f"Most of the test error ({points(min(train_error, test_error))} of "
            f"{points(test_error)} points) is there on train, too, which is underfitting or "
            "unclear labels: a larger network, longer training or cleaner labels have the most to "
            "win."
        )
    if interval[0] <= 0:  # either no error, or too few pictures to put it down to anything
        return ""
    part = "all" if train_error == 0 else "the larger part"
    return (
        f"Overfitting is {part} of the test error ({points(value)} of {points(test_error)} "
        "points): more pictures, augmentation or regularisation have the most to win."
    )


def no_better_than_one_answer(test: SplitScores) -> tuple[str, float] | None:
    """Return the largest class and its share where always answering it may do as well; or None."""
    largest = max(test.per_class, key=lambda scores: scores.support)
    share = largest.support / test.n
    low, _ = metrics.wilson_interval(_right(test), test.n)
    return (largest.name, share) if low <= share else None


def _right(scores: SplitScores) -> int:
    return sum(row[label] for label, row in enumerate(scores.confusion))


def _rate(scores: SplitScores) -> float:
    return _right(scores) / scores.n


def points(share: float) -> str:
    """Return a share in percent with one decimal: "-0.04" would be "−0.0", and is "0.0"."""
    text = f"{100 * share:.1f}"
    return "0.0" if text == "-0.0" else text.replace("-", "−")
