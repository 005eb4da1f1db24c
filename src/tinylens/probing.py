"""The linear probe: logistic regression on what a trained body sees, in seconds.

Alone it is the quickest way to new classes; before a whole network is trained on, its weights are
the head to start with, so that the first steps do not tear the body apart (Kumar et al. 2022,
arXiv:2202.10054, "LP-FT").
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tinylens import files
from tinylens.data.cache import cache_root
from tinylens.data.dataset import Dataset, Splits

Features = NDArray[np.float32]

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C of scikit-learn: the smaller, the smaller the weights
SMALL = 10**7  # features in all, up to which threads wait for each other longer than they work
FOLDS = 3  # of cross-validation, where there is no val part
ABSENT = -10.0  # logit of a class that train lacks, below the lowest bias


@dataclass(frozen=True, eq=False)
class Head:
    """A fitted last layer.

    Attributes:
        kernel: float32, shape (features, classes).
        bias: float32, shape (classes,); None where the network's last layer has none.
        strength: the inverse C of the penalty, on features of unit variance.
        log_loss: of the strength chosen, in nats, on val or in cross-validation.
        seconds: that embedding and fitting took.
    """

    kernel: NDArray[np.float32] = field(repr=False)
    bias: NDArray[np.float32] | None = field(repr=False)
    strength: float
    log_loss: float
    seconds: float


def fit(data: Splits, body: Path, sha256: str) -> Head:
    """Fit a head for the classes of `data` on the features of a body.

    The strength of the penalty is the one of lowest log loss on val; without a val part in a
    cross-validation within train, where a class has too few pictures for that the strongest.

    Args:
        data: its test part is not looked at.
        body: a model.keras that tinylens wrote.
        sha256: of that file; features are kept under it and the fingerprint of the part.

    Raises:
        ModelError: the file cannot be opened.
    """
    began = time.monotonic()
    seen = _Seen(body, sha256)
    train = seen(data.train)
    biased = seen.embedding.biased
    mean = train.mean(axis=0) if biased else np.zeros(train.shape[1], np.float32)
    scale = train.std(axis=0)
    scale[scale < 1e-6] = 1.0  # a feature that is always the same, such as a dead ReLU
    scaled = (train - mean) / scale
    held = None if data.val is None else ((seen(data.val) - mean) / scale, data.val.labels)
    with threadpool_limits(1 if scaled.size < SMALL else None):
        losses = {
            strength: _log_loss(_regression(strength, biased), scaled, data.train.labels, held)
            for strength in STRENGTHS
        }
        strength = min(losses, key=lambda each: losses[each])
        fitted = _regression(strength, biased).fit(scaled, data.train.labels)
    weights, bias = _weights(fitted, len(data.class_names))
    kernel = weights / scale[:, None]
    return Head(
        kernel.astype(np.float32),
        (bias - mean @ kernel).astype(np.float32) if biased else None,
        strength,
        losses[strength],
        time.monotonic() - began,
    )


class _Seen:
    """Features of parts, from the cache where they were asked for before."""

    def __init__(self, body: Path, sha256: str) -> None:
        from tinylens.embedding import Embedding

        self.embedding, self.sha256 = Embedding(body), sha256
        self.folder = cache_root() / "embeddings"

    def __call__(self, part: Dataset) -> Features:
        kept = self.folder / f"{self.sha256[:32]}-{part.fingerprint[:32]}.npy"
        if not kept.is_file():
            features = self.embedding(part.images)
            self.folder.mkdir(exist_ok=True)
            files.write_with(kept, lambda opened: np.save(opened, features))
        found: Features = np.load(kept)
        return found


def _regression(strength: float, biased: bool) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, fit_intercept=biased, max_iter=2_000)


def _log_loss(
    regression: Any,
    features: Features,
    labels: NDArray[np.int64],
    held: tuple[Features, NDArray[np.int64]] | None,
) -> float:
    """Return the mean log loss on the held part, or in cross-validation where there is none."""
    if held is not None:
        fitted = regression.fit(features, labels)
        known = np.isin(held[1], fitted.classes_)
        columns = np.searchsorted(fitted.classes_, held[1][known])
        logs = fitted.predict_log_proba(held[0][known])
        return -float(logs[np.arange(len(columns)), columns].mean())
    counts = np.bincount(labels)
    if counts[counts > 0].min() < FOLDS:
        return float(regression.C)  # nothing to choose by: the smallest wins
    from sklearn.model_selection import cross_val_score

    scored = cross_val_score(regression, features, labels, cv=FOLDS, scoring="neg_log_loss")
    return -float(scored.mean())


def _weights(fitted: Any, classes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return kernel and bias with a column a class, on scaled features."""
    rows, intercept = fitted.coef_, fitted.intercept_
    if len(rows) == 1:  # of two classes scikit-learn keeps the difference
        rows, intercept = (np.concatenate([-each / 2, each / 2]) for each in (rows, intercept))
    kernel = np.zeros((rows.shape[1], classes))
    bias = np.full(classes, float(intercept.min()) + ABSENT)
    kernel[:, fitted.classes_], bias[fitted.classes_] = rows.T, intercept
    return kernel, bias
