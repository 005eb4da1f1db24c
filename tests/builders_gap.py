"""Figures, answers and audits of which only what a gap is made of counts."""

from __future__ import annotations

import numpy as np

from tinylens.evaluation.diagnosis import measure_gap
from tinylens.results import (
    OVERALL_FIGURES,
    Audit,
    Calibration,
    ClassScores,
    Evaluation,
    LabelIssue,
    Score,
    SplitScores,
    Twin,
)

UNKNOWN = Score(None, None)


def split(confusion):
    """The figures of a part, of which only the confusion counts here."""
    confusion = np.array(confusion)
    names = ("cat", "dog", "owl", "emu")[: len(confusion)]
    return SplitScores(
        n=int(confusion.sum()),
        per_class=tuple(
            ClassScores(name, UNKNOWN, UNKNOWN, UNKNOWN, int(row.sum()))
            for name, row in zip(names, confusion, strict=True)
        ),
        confusion=tuple(map(tuple, confusion.tolist())),
        **dict.fromkeys(OVERALL_FIGURES, UNKNOWN),
    )


def evaluation_of(train, test):
    parts = {"train": split(train), "test": split(test)}
    gap = measure_gap(parts["train"], parts["test"])
    return Evaluation(parts, gap, Calibration(1.0, "none"))


def predictions_of(**parts):
    """Arrays of a run from (answers, labels) by part, of two classes."""
    arrays = {}
    for name, (answers, labels) in parts.items():
        arrays[f"{name}_probabilities"] = np.eye(2, dtype=np.float32)[answers]
        arrays[f"{name}_labels"] = np.array(labels)
        arrays[f"{name}_indices"] = np.arange(len(labels))
    return arrays


def confusion_of(answers, labels):
    confusion = np.zeros((2, 2), int)
    np.add.at(confusion, (labels, answers), 1)
    return confusion


def audit_of(*, issues=(), twins=(), doubted=("train", "test")):
    return Audit(
        source="animals",
        class_names=("cat", "dog"),
        counts={},
        doubted=doubted,
        compared=False,
        label_issues=tuple(LabelIssue(part, row, "", "cat", "dog", 0.9) for part, row in issues),
        duplicates=tuple(
            Twin(a, b, 0.0, ("train", "test"), ("cat", "cat")) for a, b in twins
        ),
        outliers=(),
        odd=(),
        broken=(),
    )  # fmt: skip
