"""Schemas of a run's JSON files: metrics, audit, robustness, explanations."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    TypeAdapter,
    ValidationError,
)

from tinylens.display import data_frame, html_table
from tinylens.errors import DataError
from tinylens.heatmaps import Heatmaps


class Record:
    """Base of dataclasses that are written to JSON and read back by their fields' types."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    @classmethod
    @functools.cache
    def _schema(cls) -> TypeAdapter[Any]:
        return TypeAdapter(cls)

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers, ready for `json.dumps`."""
        return dict(self._schema().dump_python(self, mode="json", by_alias=True))

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Self:
        """Return what `to_json` gave; a ValueError names the first key that does not fit."""
        try:
            found: Self = cls._schema().validate_python(tree)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        return found


@dataclass(frozen=True)
class Score(Record):
    """A figure and its 95 % confidence interval.

    Attributes:
        value: the figure; None where it is not defined, as an area under the curve is when a
            class has no image.
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


@dataclass(frozen=True)
class ClassScores(Record):
    """Precision, recall and F1 of one class; `support` is the number of its images."""

    name: str
    precision: Score
    recall: Score
    f1: Score
    support: int


@dataclass(frozen=True)
class SplitScores(Record):
    """The figures of one part: train, val or test.

    Attributes:
        n: images judged.
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
class Gap(Record):
    """Train accuracy minus test accuracy, and what it says about new images, in plain words."""

    value: float
    ci95: tuple[float, float]
    words: str


@dataclass(frozen=True)
class LevelScores(Record):
    """How a confidence from which on few answers are wrong, chosen on val, holds on test.

    Attributes:
        max_error: the share of wrong answers that was asked for.
        threshold: the confidence.
        answered: share of test images that are answered with at least that.
        error: share of those answers that is wrong.
    """

    max_error: float
    threshold: float
    answered: Score
    error: Score


@dataclass(frozen=True)
class SetScores(Record):
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
class OodScores(Record):
    """How images from elsewhere are told from those of test, by their OOD score.

    Attributes:
        name: what they are, in words.
        images: how many.
        roc_auc: the share of pairs, one of test and one of them, in which theirs is the more
            unusual.
        refused: share of them that is refused where `at` of ordinary images would be.
        at: that share.
    """

    name: str
    images: int
    roc_auc: Score
    refused: Score
    at: float


@dataclass(frozen=True)
class Calibration(Record):
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
        curvature: how much more than a temperature was needed; see
            `tinylens.metrics.fit_curvature`. 0 is none.
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
    curvature: float = 0.0


@dataclass(frozen=True)
class Evaluation(Record):
    """All figures of a run, as evaluation.json holds them.

    Printing it gives a table of the splits, the per-class figures of test and the gap in words.

    Attributes:
        splits: the figures of each part.
        gap: from train to test, where there are both.
        calibration: of the probabilities.
        ood: how images from elsewhere are told, where the model can tell them.
    """

    splits: Mapping[str, SplitScores]
    gap: Gap | None
    calibration: Calibration
    ood: tuple[OodScores, ...] = ()

    def __str__(self) -> str:
        return "\n\n".join(filter(None, [self._overview(), self._per_class(), self._gap()]))

    def __repr__(self) -> str:
        rows = [
            f"  {name}: accuracy {split.accuracy} on {split.n:,} images"
            for name, split in self.splits.items()
        ]
        return "\n".join(["Evaluation", *rows])

    def _repr_html_(self) -> str:
        rows = [
            [name, f"{split.n:,}", split.accuracy, split.f1_macro, split.log_loss]
            for name, split in self.splits.items()
        ]
        return html_table([["split", "images", "accuracy", "f1_macro", "log_loss"], *rows])

    def to_pandas(self, split: str = "test") -> Any:
        """Return the figures of each class as a pandas DataFrame, a row per class.

        The columns are class, precision, recall, f1, each with its _low and _high of the 95 %
        interval, and support.

        Raises:
            DataError: there is no such split.
            MissingExtra: pandas is not installed.
        """
        if split not in self.splits:
            raise DataError(f"no split {split!r} was evaluated; expected {', '.join(self.splits)}")
        figures = ("precision", "recall", "f1")
        columns = [f"{name}{end}" for name in figures for end in ("", "_low", "_high")]
        rows = []
        for scores in self.splits[split].per_class:
            row: dict[str, Any] = {"class": scores.name, "support": scores.support}
            for name in figures:
                score: Score = getattr(scores, name)
                low, high = score.ci95 or (None, None)
                row |= {name: score.value, f"{name}_low": low, f"{name}_high": high}
            rows.append(row)
        return data_frame(rows, ["class", *columns, "support"])

    def _overview(self) -> str:
        names = list(self.splits)
        rows = [["", *names], ["images", *(str(self.splits[name].n) for name in names)]]
        for figure in OVERALL_FIGURES:
            rows.append([figure, *(str(getattr(self.splits[name], figure)) for name in names)])
        return _aligned(rows)

    def _per_class(self) -> str:
        if "test" not in self.splits:
            return ""
        rows = [["class (test)", "precision", "recall", "f1", "images"]]
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


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


@dataclass(frozen=True)
class Robustness(Record):
    """Accuracy on changed test images, each with its 95 % interval.

    Attributes:
        images: how many were changed.
        clean: accuracy on them as they are.
        corruptions: by name, the accuracy at strengths 1 to 5.
        mean_corruption_error: the mean error over all of them; not divided by AlexNet's, as it is
            for ImageNet-C, so it is a share of images.
        shifts: by pixels, the mean accuracy over eight directions.
        turns: by degrees, over both sides.
        mirrored: accuracy on mirror images.
        jpeg: by quality.
    """

    images: int
    clean: Score
    corruptions: Mapping[str, tuple[Score, ...]]
    mean_corruption_error: Score
    shifts: Mapping[int, Score]
    turns: Mapping[int, Score]
    mirrored: Score
    jpeg: Mapping[int, Score]


@dataclass(frozen=True)
class CurvePoint(Record):
    """The error of networks trained on so many images.

    Attributes:
        images: trained on.
        epochs: passes over them.
        error: the mean over seeds, on val.
        by_seed: the error of each seed.
    """

    images: int
    epochs: float
    error: Score
    by_seed: tuple[float, ...]


@dataclass(frozen=True)
class FittedPoint(Record):
    """The error that the fitted power laws expect of so many images."""

    images: int
    error: Score


@dataclass(frozen=True)
class LearningCurve(Record):
    """How the error falls with the number of training images, and what more would give.

    Attributes:
        recipe: what was trained, for few epochs.
        evaluated: images of val, on which all was judged.
        points: what was measured, by rising numbers of images.
        fitted: the power laws, from the fewest images to twice the most.
        doubled: what twice the images, trained √2 times as long, would add to the accuracy; not
            defined where the errors do not lie on a power law.
        words: that in a sentence.
    """

    recipe: str
    evaluated: int
    points: tuple[CurvePoint, ...]
    fitted: tuple[FittedPoint, ...]
    doubled: Score
    words: str


@dataclass(frozen=True)
class LabelIssue(Record):
    """A label that is probably wrong.

    Attributes:
        split: the part that the image is in.
        index: its row in that part, in the order in which the set gives it.
        path: where it came from; empty for one out of an array.
        given: the class that the set says.
        proposed: the class that networks answer which never saw the image.
        score: how doubtful the label is, 0 to 1: one minus its probability.
    """

    split: str
    index: int
    path: str
    given: str
    proposed: str
    score: float


@dataclass(frozen=True)
class Twin(Record):
    """Two images that are one.

    Attributes:
        a: the row of one in its part.
        b: the row of the other in its part.
        distance: 0 for equal pixels; see `tinylens.auditing.duplicates.Duplicate`.
        splits: the part of each.
        labels: the class of each.
    """

    a: int
    b: int
    distance: float
    splits: tuple[str, str]
    labels: tuple[str, str]

    @property
    def leaks(self) -> bool:
        """Whether one of the two is judged on, and the other is not."""
        return (self.splits[0] == "test") != (self.splits[1] == "test")


@dataclass(frozen=True)
class Oddity(Record):
    """An image that is unlike the others.

    Attributes:
        split: the part that it is in.
        index: its row in that part.
        path: where it came from; empty for one out of an array.
        given: its class.
        reason: what is odd about it.
        score: how odd, larger is odder; comparable among those of one reason.
    """

    split: str
    index: int
    path: str
    given: str
    reason: str
    score: float


@dataclass(frozen=True)
class Broken(Record):
    """A file that was set aside, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Audit(Record):
    """What was found in a data set, most suspect first.

    Attributes:
        source: the data set, in words.
        class_names: in the order of the labels.
        counts: images of each class, by part.
        doubted: the parts whose labels were looked at.
        compared: whether images were compared with each other by what a network sees in them;
            without that there are no outliers.
        label_issues: labels that are probably wrong.
        duplicates: pairs of images that are one.
        outliers: images unlike any that are trained on.
        odd: images that show nothing, or are grey among coloured ones.
        broken: files that were set aside.
    """

    source: str
    class_names: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]
    doubted: tuple[str, ...]
    compared: bool
    label_issues: tuple[LabelIssue, ...]
    duplicates: tuple[Twin, ...]
    outliers: tuple[Oddity, ...]
    odd: tuple[Oddity, ...]
    broken: tuple[Broken, ...]

    def __repr__(self) -> str:
        labels = f"{len(self.label_issues):,}" if self.doubted else "not checked"
        outliers = f"{len(self.outliers):,}" if self.compared else "not checked"
        return (
            f"Audit of {self.source!r}\n"
            f"  label issues: {labels}\n"
            f"  duplicates: {len(self.duplicates):,}, of them leaks: {len(self.leaks):,}\n"
            f"  outliers: {outliers}; odd images: {len(self.odd):,}; "
            f"broken files: {len(self.broken):,}"
        )

    def to_pandas(self) -> Any:
        """Return the label issues as a pandas DataFrame, the most doubtful first.

        The columns are split, index, path, given, proposed and score.

        Raises:
            MissingExtra: pandas is not installed.
        """
        columns = ("split", "index", "path", "given", "proposed", "score")
        return data_frame([issue.to_json() for issue in self.label_issues], columns)

    @property
    def leaks(self) -> tuple[Twin, ...]:
        """The pairs of which one is judged on and the other is not."""
        return tuple(twin for twin in self.duplicates if twin.leaks)

    @property
    def contradictions(self) -> tuple[Twin, ...]:
        """The pairs whose two labels differ."""
        return tuple(twin for twin in self.duplicates if twin.labels[0] != twin.labels[1])

    @property
    def leaked(self) -> frozenset[int]:
        """The rows of test images that occur in train or val too."""
        groups = _groups(self.duplicates)
        return frozenset(
            row
            for group in groups
            if any(part != "test" for part, _ in group)
            for part, row in group
            if part == "test"
        )

    @property
    def suspected(self) -> frozenset[int]:
        """The rows of test images whose labels are probably wrong."""
        return frozenset(issue.index for issue in self.label_issues if issue.split == "test")

    def imbalance(self, part: str) -> float:
        """Return how many times as many images the largest class has as the smallest.

        Infinite where a class has none.
        """
        fewest, most = min(self.counts[part]), max(self.counts[part])
        return most / fewest if fewest else float("inf")


def _groups(twins: Iterable[Twin]) -> list[set[tuple[str, int]]]:
    """Return sets of images, as (part, row), that pairs lead from one to the other in."""
    group_of: dict[tuple[str, int], set[tuple[str, int]]] = {}
    for twin in twins:
        a, b = (twin.splits[0], twin.a), (twin.splits[1], twin.b)
        merged = group_of.get(a, {a}) | group_of.get(b, {b})
        group_of |= dict.fromkeys(merged, merged)
    return list({id(group): group for group in group_of.values()}.values())


Unwritten = PlainValidator(lambda array: array), Field(exclude=True)  # arrays, not for JSON
Pixels = Annotated[NDArray[np.uint8], *Unwritten]
HeatMap = Annotated[Heatmaps, *Unwritten]
Rounded = Annotated[float, PlainSerializer(lambda value: round(value, 6))]


@dataclass(frozen=True, eq=False)
class Neighbour(Record):
    """A training image near to one that is explained.

    Attributes:
        index: its row in train.
        label: its class.
        distance: between the directions of their features, from 0 to 2.
        image: uint8, shape (height, width, channels).
    """

    index: int
    label: str
    distance: Rounded
    image: Pixels


@dataclass(frozen=True, eq=False)
class Heat(Record):
    """Where an image speaks for a class.

    Attributes:
        class_name: the class that was asked about.
        probability: what the classifier gives to it.
        largest: the map's largest value before it was scaled. Of occlusion it is in nats, and says
            how much a place can matter; of Grad-CAM it is 1, or 0 where nothing speaks for it.
        map: float32, shape (height, width), its largest value 1, or all 0.
    """

    class_name: Annotated[str, Field(serialization_alias="class")]
    probability: Rounded
    largest: Rounded
    map: HeatMap


@dataclass(frozen=True, eq=False)
class Explained(Record):
    """An image, and why it was answered so.

    Attributes:
        image: as the network sees it, uint8, shape (height, width, channels).
        index: its row in the test split; None for one that was named by its path.
        path: where it came from; empty for one out of an array.
        label: its class, where that is known.
        answer: the most probable class.
        confidence: the probability of `answer`.
        heats: one a class that was asked about.
        neighbours: the nearest training images, the nearest first.
    """

    image: Pixels
    index: int | None
    path: str
    label: str | None
    answer: str
    confidence: Rounded
    heats: Annotated[tuple[Heat, ...], Field(serialization_alias="asked")]
    neighbours: Annotated[tuple[Neighbour, ...], Field(serialization_alias="nearest")]

    @property
    def name(self) -> str:
        """What it is called: its row in test, or its path."""
        return self.path if self.index is None else f"test {self.index:,}"


@dataclass(frozen=True, eq=False)
class Sheet(Record):
    """Explained images that belong together.

    Attributes:
        title: what they share.
        count: how many there are; those in `images` are the most confident of them.
        images: the explained ones.
    """

    title: str
    count: int
    images: tuple[Explained, ...]


@dataclass(frozen=True, eq=False)
class Explanations(Record):
    """What was explained, and how.

    Attributes:
        source: the run or the model file, in words.
        method: "grad-cam" or "occlusion".
        sheets: a confused pair each, the most frequent first; or images that were named.
        places: height and width of the maps that Grad-CAM adds up; None of occlusion.
        mistakes: on the test split in all; None where images were named.
        broken: images that could not be read.
        caution: why the maps may mislead; empty where they do not.
    """

    source: str
    method: str
    sheets: tuple[Sheet, ...]
    places: tuple[int, int] | None = None
    mistakes: int | None = None
    broken: tuple[Broken, ...] = ()
    caution: str = ""

    def maps(self) -> dict[str, Heatmaps]:
        """Return the maps of each sheet by "0", "1" …, float32 (images, asked, height, width)."""
        return {
            str(number): np.stack([[heat.map for heat in each.heats] for each in sheet.images])
            for number, sheet in enumerate(self.sheets)
        }


@dataclass(frozen=True)
class Difference(Record):
    """A figure of the second run minus that of the first, with its paired 95 % interval."""

    value: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class Spread(Record):
    """A figure over several trainings.

    Attributes:
        mean: over the trainings.
        sd: their standard deviation.
        ci95: of what the recipe can be expected to reach; see `summarize`.
        values: of each training.
    """

    mean: float
    sd: float
    ci95: tuple[float, float]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Summary(Record):
    """What a series of trainings came to.

    Attributes:
        kind: whether seeds or folds differed.
        runs: the names of the runs' folders, in order.
        images: that were judged: the test split's, or those of all folds together.
        figures: by the names of `SplitScores`; of test, or of the fold that was held out.
        words: the accuracy in a sentence.
    """

    kind: Literal["seeds", "folds"]
    runs: tuple[str, ...]
    images: int
    figures: Mapping[str, Spread]
    words: str


@dataclass(frozen=True)
class NetworkSize(Record):
    """One network, as it ships.

    Attributes:
        name: how the table calls it.
        path: of its model.onnx.
        parameters: numbers in its weights, those of norms included.
        bytes: of model.onnx.
        accuracy: on the test split of the run that is shown; None where another was judged.
        one_p50_ms: milliseconds for one image in memory on one core, median.
    """

    name: str
    path: str
    parameters: int
    bytes: int
    accuracy: Score | None
    one_p50_ms: float


@dataclass(frozen=True)
class Speed(Record):
    """How fast a file answers.

    Attributes:
        one_p50_ms: milliseconds for one image that is in memory, median.
        one_p95_ms: 95th percentile.
        many_per_second: images a second in batches of 256, median.
    """

    one_p50_ms: float
    one_p95_ms: float
    many_per_second: float


@dataclass(frozen=True)
class FormatRow(Record):
    """How one file compares with Keras.

    Attributes:
        format: its name.
        path: of the file or folder.
        integers: whether it computes in 8-bit integers.
        size: in bytes.
        part: of the data set that it was judged on.
        images: how many.
        agreement: share of them with the same answer; ties count as the same.
        ties: images whose two best classes are equal in float32, told apart differently.
        largest_difference: between any two probabilities.
        accuracy: share of right answers; None where labels were not looked at.
        accuracy_difference: that, minus Keras's on the same images.
        speed: None where it was not timed.
        failures: each limit that it does not keep, in words.
    """

    format: str
    path: str
    integers: bool
    size: int
    part: str
    images: int
    agreement: float
    ties: int
    largest_difference: float
    accuracy: float | None
    accuracy_difference: Difference | None
    speed: Speed | None = None
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scorecard(Record):
    """Several files, judged and timed together.

    Attributes:
        threads: that answered.
        batch: images at once where many were answered.
        rows: a file each.
    """

    threads: int
    batch: int
    rows: tuple[FormatRow, ...]

    @property
    def failures(self) -> list[str]:
        """Each limit that is not kept, with the file's path."""
        return [f"{row.path}: {words}" for row in self.rows for words in row.failures]


@dataclass(frozen=True)
class Part(Record):
    """One part of a sum.

    Attributes:
        name: what it is, in words, or a class.
        size: as a share of images; 0.01 is a point. Negative where it takes off the whole.
        share: of the whole; not defined where the whole may be none.
    """

    name: str
    size: Score
    share: Score


@dataclass(frozen=True)
class Sum(Record):
    """A figure and the parts that add up to it."""

    whole: Score
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Leaks(Record):
    """Effect on test accuracy of test images that were trained on.

    Attributes:
        images: how many of test occur in train or val.
        lift: accuracy with them minus without them.
        without: accuracy without them.
    """

    images: int
    lift: Score
    without: Score


@dataclass(frozen=True)
class GapParts(Record):
    """The train-test gap and the error on test, taken apart.

    Attributes:
        test_error: what is wrong on train, too, and the gap.
        gap: train accuracy minus test accuracy, by class.
        test_labels: error on test by whether the label is doubted; None without an audit of them.
        train_labels: error on train likewise.
        gap_labels: the gap likewise; None unless both splits were audited.
        leaks: None before an audit.
    """

    test_error: Sum
    gap: Sum
    test_labels: Sum | None
    train_labels: Sum | None
    gap_labels: Sum | None
    leaks: Leaks | None


@dataclass(frozen=True)
class Advice(Record):
    """One thing to do.

    Attributes:
        words: what and why, with the figure behind it.
        size: what it is about, as a share of test images; 0.01 is a point.
    """

    words: str
    size: float


@dataclass(frozen=True)
class Diagnosis(Record):
    """Why a run is worse on test than on train, and what to do, the most to win first."""

    parts: GapParts
    advice: tuple[Advice, ...]


def percent(share: float, decimals: int = 1) -> str:
    """Return a share in percent without its sign; only what is perfect reads 100.0.

    >>> percent(0.9241), percent(0.99996), percent(1.0)
    ('92.4', '99.99', '100.0')
    """
    text = f"{100 * share:.{decimals}f}"
    if share < 1 and float(text) >= 100:
        return f"{math.floor(share * 1e4) / 100:.2f}"
    return text


def points(share: float) -> str:
    """Return a share in percent with one decimal: "-0.04" would be "−0.0", and is "0.0"."""
    text = f"{100 * share:.1f}"
    return "0.0" if text == "-0.0" else text.replace("-", "−")
