"""Label error detection by confident learning, with cleanlab.

From out-of-fold probabilities (Northcutt, Jiang & Chuang 2021, J. of Artificial Intelligence
Research 70): a label is doubted if another class reaches at least the average confidence of its own
images, and by a larger margin than the given class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinylens.errors import MissingExtra
from tinylens.metrics import Labels, Probabilities


@dataclass(frozen=True)
class Doubt:
    """Suspected label error.

    Attributes:
        row: Row of the image.
        given: Given label.
        proposed: Predicted class.
        score: One minus the out-of-fold probability of the given label, 0 to 1.
    """

    row: int
    given: int
    proposed: int
    score: float


def doubted_labels(probabilities: Probabilities, labels: Labels) -> list[Doubt]:
    """Find suspected label errors, highest score first.

    Args:
        probabilities: Out-of-fold probabilities, float, shape (n, classes).
        labels: Given labels, int64, shape (n,); unused classes are never proposed.

    Raises:
        MissingExtra: cleanlab is not installed.
    """
    find_label_issues = finder()
    present, own = np.unique(labels, return_inverse=True)  # cleanlab wants every class to occur
    if len(present) < 2:
        return []
    answers = np.asarray(probabilities[:, present], np.float64)
    answers /= np.maximum(answers.sum(axis=1, keepdims=True), 1e-12)
    doubted: NDArray[np.bool_] = find_label_issues(
        own, answers, filter_by="both", n_jobs=1, min_examples_per_class=0
    )
    rows = np.flatnonzero(doubted)
    own_share = answers[rows, own[rows]]
    others = answers[rows].copy()
    others[np.arange(len(rows)), own[rows]] = -1
    order = np.lexsort((rows, own_share - others.max(axis=1)))
    proposed = present[others.argmax(axis=1)]
    return [
        Doubt(int(rows[k]), int(labels[rows[k]]), int(proposed[k]), float(1 - own_share[k]))
        for k in order
    ]


def finder() -> Any:
    """Return cleanlab's label-issue finder.

    Raises:
        MissingExtra: cleanlab is not installed.
    """
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        raise MissingExtra(
            "looking for wrong labels needs cleanlab, which is not installed; "
            "type: pip install 'tinylens[audit]'"
        ) from None
    return find_label_issues
