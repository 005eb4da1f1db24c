"""The figures of an evaluation as typed data: the schemas of evaluation.json and others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Score:
    """A figure and its 95 % confidence interval.

    Attributes:
        value: the figure; None where it is not defined, as an area under the curve is when a
            class has no picture.
        ci95: lower and upper end; None where the value is.
    """

    value: float | None
    ci95: tuple[float, float] | None

    def __str__(self) -> str:
        if self.value is None or self.ci95 is None:
            return "not defined"
        return f"{self.value:.4f} ({self.ci95[0]:.4f}–{self.ci95[1]:.4f})"

    def complement(self) -> Score:
        """Return 1 minus the figure: the error of an accuracy.

        >>> print(Score(0.75, (0.5, 1.0)).complement())
        0.2500 (0.0000–0.5000)
        """
        if self.value is None or self.ci95 is None:
            return self
        low, high = self.ci95
        return Score(1 - self.value, (1 - high, 1 - low))

    @staticmethod
    def from_json(tree: Mapping[str, Any]) -> Score:
        """Return the score that `dataclasses.asdict` gave, also after a way through JSON."""
        interval = tree["ci95"]
        return Score(tree["value"], None if interval is None else (interval[0], interval[1]))


@dataclass(frozen=True)
class ClassScores:
    """Precision, recall and F1 of one class; `support` is the number of its pictures."""

    name: str
    precision: Score
    recall: Score
    f1: Score
    support: int


@dataclass(frozen=True)
class SplitScores:
    """The figures of one part: train, val or test.

    Attributes:
        n: pictures judged.
        confusion: counts, row = true class, column = predicted class.
    """

    n: int
    accuracy: Score
    top5: Score
    log_loss: Score
    ece: Score
    precision_macro: Score
    recall_macro: Score
    f1_macro: Score
    precision_weighted: Score
    recall_weighted: Score
    f1_weighted: Score
    mcc: Score
    roc_auc_macro: Score
    per_class: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Gap:
    """Train accuracy minus test accuracy, and what it says about new images, in plain words."""

    value: float
    ci95: tuple[float, float]
    words: str


@dataclass(frozen=True)
class LevelScores:
    """How a confidence from which on few answers are wrong, chosen on val, holds on test.

    Attributes:
        max_error: the share of wrong answers that was asked for.
        threshold: the confidence.
        answered: share of test pictures that are answered with at least that.
        error: share of those answers that is wrong.
    """

    max_error: float
    threshold: float
    answered: Score
    error: Score


@dataclass(frozen=True)
class SetScores:
    """How sets that are to hold the right class so often, chosen on val, hold on test.

    Attributes:
        coverage: how often they are to.
        threshold: the lowest probability of a class in the set.
        covered: how often they do.
        single: share of sets of one class.
        mean_size: classes in a set.
    """

    coverage: float
    threshold: float
    covered: Score
    single: Score
    mean_size: float


@dataclass(frozen=True)
class Calibration:
    """How the probabilities were brought in line with how often they are right.

    Attributes:
        temperature: what the logits were divided by (Guo et al. 2017); 1 leaves them alone.
        chosen_on: the part it was fitted on, "val", or "none".
        log_loss_before: of that part, without the temperature; None when nothing was fitted.
        log_loss_after: of that part, with it.
        levels: how thresholds of confidence hold on test.
        sets: how sets of classes do.
    """

    temperature: float
    chosen_on: str
    log_loss_before: float | None = None
    log_loss_after: float | None = None
    levels: tuple[LevelScores, ...] = ()
    sets: tuple[SetScores, ...] = ()

    @staticmethod
    def from_json(tree: Mapping[str, Any]) -> Calibration:
        """Return the calibration that `dataclasses.asdict` gave, also after a way through JSON."""

        def scored(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
            return {**row, **{name: Score.from_json(row[name]) for name in names}}

        levels = (LevelScores(**scored(row, "answered", "error")) for row in tree.get("levels", ()))
        sets = (SetScores(**scored(row, "covered", "single")) for row in tree.get("sets", ()))
        return Calibration(**{**tree, "levels": tuple(levels), "sets": tuple(sets)})


@dataclass(frozen=True)
class Evaluation:
    """All figures of a run, as evaluation.json holds them.

    Printing it gives a table of the splits, the per-class figures of test and the gap in words.
    """

    splits: Mapping[str, SplitScores]
    gap: Gap | None
    calibration: Calibration

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers, ready for `json.dumps`."""
        return asdict(self)

    @staticmethod
    def from_json(tree: Mapping[str, Any]) -> Evaluation:
        """Return the evaluation that `to_json` gave."""
        return Evaluation(
            splits={name: _split_from_json(part) for name, part in tree["splits"].items()},
            gap=_gap_from_json(tree["gap"]),
            calibration=Calibration.from_json(tree["calibration"]),
        )

    def __str__(self) -> str:
        return "\n\n".join(filter(None, [self._overview(), self._per_class(), self._gap()]))

    def _overview(self) -> str:
        names = list(self.splits)
        rows = [["", *names], ["pictures", *(str(self.splits[name].n) for name in names)]]
        for figure in OVERALL_FIGURES:
            rows.append([figure, *(str(getattr(self.splits[name], figure)) for name in names)])
        return _aligned(rows)

    def _per_class(self) -> str:
        if "test" not in self.splits:
            return ""
        rows = [["class (test)", "precision", "recall", "f1", "pictures"]]
        for scores in self.splits["test"].per_class:
            figures = (scores.precision, scores.recall, scores.f1)
            rows.append([scores.name, *map(str, figures), str(scores.support)])
        return _aligned(rows)

    def _gap(self) -> str:
        return self.gap.words if self.gap else ""


OVERALL_FIGURES = (
    "accuracy",
    "top5",
    "log_loss",
    "ece",
    "precision_macro",
    "recall_macro",
    "f1_macro",
    "precision_weighted",
    "recall_weighted",
    "f1_weighted",
    "mcc",
    "roc_auc_macro",
)


@dataclass(frozen=True)
class Robustness:
    """Accuracy on changed test pictures, each with its 95 % interval.

    Attributes:
        pictures: how many were changed.
        clean: accuracy on them as they are.
        corruptions: by name, the accuracy at strengths 1 to 5.
        mean_corruption_error: the mean error over all of them; not divided by AlexNet's, as it is
            for ImageNet-C, so it is a share of pictures.
        shifts: by pixels, the mean accuracy over eight directions.
        turns: by degrees, over both sides.
        mirrored: accuracy on mirror images.
        jpeg: by quality.
    """

    pictures: int
    clean: Score
    corruptions: Mapping[str, tuple[Score, ...]]
    mean_corruption_error: Score
    shifts: Mapping[int, Score]
    turns: Mapping[int, Score]
    mirrored: Score
    jpeg: Mapping[int, Score]

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers."""
        return asdict(self)

    @staticmethod
    def from_json(tree: Mapping[str, Any]) -> Robustness:
        """Return what `to_json` gave, also after a way through JSON."""

        def by_number(part: Mapping[str, Any]) -> dict[int, Score]:
            return {int(number): Score.from_json(score) for number, score in part.items()}

        return Robustness(
            pictures=tree["pictures"],
            clean=Score.from_json(tree["clean"]),
            corruptions={
                name: tuple(map(Score.from_json, scores))
                for name, scores in tree["corruptions"].items()
            },
            mean_corruption_error=Score.from_json(tree["mean_corruption_error"]),
            shifts=by_number(tree["shifts"]),
            turns=by_number(tree["turns"]),
            mirrored=Score.from_json(tree["mirrored"]),
            jpeg=by_number(tree["jpeg"]),
        )


@dataclass(frozen=True)
class CurvePoint:
    """The error of networks trained on so many pictures.

    Attributes:
        pictures: trained on.
        epochs: passes over them.
        error: the mean over seeds, on val.
        by_seed: the error of each seed.
    """

    pictures: int
    epochs: float
    error: Score
    by_seed: tuple[float, ...]


@dataclass(frozen=True)
class FittedPoint:
    """The error that the fitted power laws expect of so many pictures."""

    pictures: int
    error: Score


@dataclass(frozen=True)
class LearningCurve:
    """How the error falls with the number of training pictures, and what more would give.

    Attributes:
        recipe: what was trained, for few epochs.
        judged: pictures of val, on which all was judged.
        points: what was measured, by rising numbers of pictures.
        fitted: the power laws, from the fewest pictures to twice the most.
        doubled: what twice the pictures, trained √2 times as long, would add to the accuracy; not
            defined where the errors do not lie on a power law.
        words: that in a sentence.
    """

    recipe: str
    judged: int
    points: tuple[CurvePoint, ...]
    fitted: tuple[FittedPoint, ...]
    doubled: Score
    words: str

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers."""
        return asdict(self)

    @staticmethod
    def from_json(tree: Mapping[str, Any]) -> LearningCurve:
        """Return what `to_json` gave, also after a way through JSON."""
        points = (
            {**row, "error": Score.from_json(row["error"]), "by_seed": tuple(row["by_seed"])}
            for row in tree["points"]
        )
        fitted = ({**row, "error": Score.from_json(row["error"])} for row in tree["fitted"])
        return LearningCurve(
            recipe=tree["recipe"],
            judged=tree["judged"],
            points=tuple(CurvePoint(**row) for row in points),
            fitted=tuple(FittedPoint(**row) for row in fitted),
            doubled=Score.from_json(tree["doubled"]),
            words=tree["words"],
        )


def _split_from_json(tree: Mapping[str, Any]) -> SplitScores:
    return SplitScores(
        n=tree["n"],
        **{figure: Score.from_json(tree[figure]) for figure in OVERALL_FIGURES},
        per_class=tuple(
            ClassScores(
                name=row["name"],
                precision=Score.from_json(row["precision"]),
                recall=Score.from_json(row["recall"]),
                f1=Score.from_json(row["f1"]),
                support=row["support"],
            )
            for row in tree["per_class"]
        ),
        confusion=tuple(tuple(row) for row in tree["confusion"]),
    )


def _gap_from_json(tree: Mapping[str, Any] | None) -> Gap | None:
    if tree is None:
        return None
    return Gap(tree["value"], (tree["ci95"][0], tree["ci95"][1]), tree["words"])


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
