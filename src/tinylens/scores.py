"""The figures of an evaluation as typed data: the schema of evaluation.json, and its table."""

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
    brier: Score
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
class StrangerScores:
    """How pictures from elsewhere are told from those of test, by their strangeness.

    Attributes:
        name: what they are, in words.
        pictures: how many.
        roc_auc: the share of pairs, one of test and one of them, in which theirs is the stranger.
        refused: share of them that is refused where `at` of ordinary pictures would be.
        at: that share.
    """

    name: str
    pictures: int
    roc_auc: Score
    refused: Score
    at: float

    @staticmethod
    def from_json(tree: Mapping[str, Any]) -> StrangerScores:
        """Return the scores that `dataclasses.asdict` gave, also after a way through JSON."""
        figures = {name: Score.from_json(tree[name]) for name in ("roc_auc", "refused")}
        return StrangerScores(**{**tree, **figures})


@dataclass(frozen=True)
class Calibration:
    """How the probabilities were brought in line with how often they are right.

    Attributes:
        temperature: what the logits were divided by (Guo et al. 2017); 1 leaves them alone.
        chosen_on: the part it was fitted on, "val", or "none".
        log_loss_before: of that part, without the temperature; None when nothing was fitted.
        log_loss_after: of that part, with it.
        brier_before, brier_after: its Brier score, likewise.
        ece_before, ece_after: its expected calibration error, likewise.
        levels: how thresholds of confidence hold on test.
        sets: how sets of classes do.
        bend: how much more than a temperature was needed; see `tinylens.metrics.fit_bend`. 0 is
            none.
    """

    temperature: float
    chosen_on: str
    log_loss_before: float | None = None
    log_loss_after: float | None = None
    brier_before: float | None = None
    brier_after: float | None = None
    ece_before: float | None = None
    ece_after: float | None = None
    levels: tuple[LevelScores, ...] = ()
    sets: tuple[SetScores, ...] = ()
    bend: float = 0.0

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

    Attributes:
        splits: the figures of each part.
        gap: from train to test, where there are both.
        calibration: of the probabilities.
        strangers: how pictures from elsewhere are told, where the model can tell them.
    """

    splits: Mapping[str, SplitScores]
    gap: Gap | None
    calibration: Calibration
    strangers: tuple[StrangerScores, ...] = ()

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
            strangers=tuple(map(StrangerScores.from_json, tree.get("strangers", ()))),
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
    "brier",
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
NOT_MEASURED = {"value": None, "ci95": None}


def _split_from_json(tree: Mapping[str, Any]) -> SplitScores:
    return SplitScores(
        n=tree["n"],
        # "brier" is not in files from before it was measured
        **{figure: Score.from_json(tree.get(figure, NOT_MEASURED)) for figure in OVERALL_FIGURES},
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
