"""What a report is made from: a run's files, read once and checked against each other."""

from __future__ import annotations

import functools
import hashlib
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinylens.errors import RunError
from tinylens.evaluation.diagnosis import Finding, advise, summarize, take_apart
from tinylens.inference.model_file import ModelCard, unseal
from tinylens.recipe import Recipe
from tinylens.results import (
    Advice,
    Audit,
    Evaluation,
    GapParts,
    LearningCurve,
    Robustness,
    SplitScores,
)
from tinylens.run import Arrays, Run, RunInfo


@dataclass(frozen=True, eq=False)
class Mistake:
    """A test image that was answered wrongly.

    Attributes:
        image: uint8, shape (height, width, channels).
        row: its row in the test split.
        confidence: the probability of the answer.
    """

    image: NDArray[np.uint8]
    row: int
    label: str
    answer: str
    confidence: float


@dataclass(frozen=True, eq=False)
class Confusion:
    """How often images of one class were taken for another: `count` of `support`.

    Attributes:
        target: id of what shows some of them on the page; "" where the run keeps none.
        mistakes: some of them, the most confident first.
    """

    label: str
    answer: str
    count: int
    support: int
    target: str
    mistakes: tuple[Mistake, ...]

    @property
    def share(self) -> float:
        """The share of the class's images."""
        return self.count / self.support


@dataclass(frozen=True, eq=False)
class Contents:
    """A run's files in memory.

    Attributes:
        name: the run folder's name.
        probabilities: of test, float32, shape (n, classes).
        labels: of test, int64, shape (n,).
        mistakes: the most confident mistakes on test, worst first.
        confused: some mistakes of every confusion on test; none in a run of an earlier version.
        hashes: SHA-256 of the shipped files by name, of those that are there.
        model: what model.onnx says of itself, where it is there.
        robustness: accuracy on changed images, where that was measured.
        audit: faults of the data set, where they were looked for.
        learning_curve: what more images would give, where that was measured.
        predictions: the arrays that `Run.predictions` gives.
    """

    name: str
    info: RunInfo
    recipe: Recipe
    history: list[dict[str, float]]
    evaluation: Evaluation
    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    mistakes: tuple[Mistake, ...]
    confused: tuple[Mistake, ...]
    hashes: dict[str, str]
    model: ModelCard | None
    robustness: Robustness | None
    audit: Audit | None
    learning_curve: LearningCurve | None
    predictions: Arrays

    @staticmethod
    def read(run: Run) -> Contents:
        """Read what the report needs.

        Raises:
            RunError: a file is missing, or evaluation.json and predictions.npz do not fit together.
            ModelError: model.onnx was damaged or changed.
        """
        evaluation, predictions = run.evaluation, run.predictions
        test = evaluation.splits.get("test")
        probabilities = predictions.get("test_probabilities")
        if test is None or probabilities is None:
            raise RunError(
                f"{run.path} has no figures of its test split, and a report is about those; "
                "the command that started the run makes them"
            )
        if probabilities.shape != (test.n, len(test.per_class)):
            raise RunError(
                f"{run.path}: evaluation.json speaks of {test.n} test images and "
                f"{len(test.per_class)} classes, predictions.npz has the shape "
                f"{probabilities.shape}; they are of two trainings: train again into a new folder"
            )
        names = [scores.name for scores in test.per_class]
        return Contents(
            name=run.path.resolve().name,
            info=run.info,
            recipe=run.recipe,
            history=run.history,
            evaluation=evaluation,
            probabilities=probabilities,
            labels=predictions["test_labels"],
            mistakes=_mistakes(predictions, "worst", names),
            confused=_mistakes(predictions, "confused", names),
            hashes=_hashes(run),
            model=_model(run),
            robustness=run.robustness,
            audit=run.audit,
            learning_curve=run.learning_curve,
            predictions=predictions,
        )

    @property
    def test(self) -> SplitScores:
        """The figures of the test split."""
        return self.evaluation.splits["test"]

    @functools.cached_property
    def parts(self) -> GapParts | None:
        """The train-test gap in parts; None where train was not evaluated."""
        return take_apart(self.evaluation, self.predictions, self.audit)

    @functools.cached_property
    def advice(self) -> tuple[Advice, ...]:
        """What to do, the most to win first."""
        return advise(self.evaluation, self.parts, self.learning_curve)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What it mixes up, whether to believe its confidence, and what to do first."""
        return summarize(self.evaluation, self.probabilities, self.advice)

    @property
    def class_names(self) -> list[str]:
        """The class names in the order of the labels."""
        return [scores.name for scores in self.test.per_class]

    @functools.cached_property
    def confusions(self) -> list[Confusion]:
        """Every kind of mistake that was made on test, the most frequent first."""
        kept = defaultdict[tuple[str, str], list[Mistake]](list)
        for mistake in sorted(self.confused, key=lambda mistake: -mistake.confidence):
            kept[mistake.label, mistake.answer].append(mistake)
        names = self.class_names
        found = []
        for label, row in enumerate(self.test.confusion):
            for answer, count in enumerate(row):
                if count and label != answer:
                    kind = names[label], names[answer]
                    target = f"taken-{label}-{answer}" if kind in kept else ""
                    found.append(Confusion(*kind, count, sum(row), target, tuple(kept[kind])))
        return sorted(found, key=lambda each: -each.count)


def _hashes(run: Run) -> dict[str, str]:
    found = {}
    for path in (run.model, run.keras_model):
        if path.is_file():
            with path.open("rb") as file:
                found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _model(run: Run) -> ModelCard | None:
    return unseal(run.model.read_bytes(), str(run.model)) if run.model.is_file() else None


def _mistakes(
    predictions: dict[str, NDArray[Any]], kind: str, names: list[str]
) -> tuple[Mistake, ...]:
    images, rows = predictions.get(f"{kind}_images"), predictions.get(f"{kind}_indices")
    if images is None or rows is None:
        return ()
    position = {int(row): place for place, row in enumerate(predictions["test_indices"])}
    probabilities, labels = predictions["test_probabilities"], predictions["test_labels"]
    mistakes = []
    for image, row in zip(images, rows, strict=True):
        place = position[int(row)]
        answer = int(probabilities[place].argmax())
        mistakes.append(
            Mistake(
                image=image,
                row=int(row),
                label=names[labels[place]],
                answer=names[answer],
                confidence=float(probabilities[place, answer]),
            )
        )
    return tuple(mistakes)
