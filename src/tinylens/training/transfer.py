"""Transfer learning: where the pretrained body comes from."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tinylens import files
from tinylens.data.cache import cache_root
from tinylens.data.dataset import Dataset, Splits
from tinylens.data.images import ImageRule
from tinylens.errors import RecipeError, RunError
from tinylens.recipe import Recipe
from tinylens.run import Run

Features = NDArray[np.float32]

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C of scikit-learn: the smaller, the smaller the weights
SMALL = 10**7  # features in all, up to which threads wait for each other longer than they work
FOLDS = 3  # of cross-validation, where there is no val split
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

    The strength of the penalty is the one of lowest log loss on val; without a val split in a
    cross-validation within train, where a class has too few images for that the strongest.

    Args:
        data: its test split is not looked at.
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
        from tinylens.models.embedding import Embedding

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


@dataclass(frozen=True)
class Source:
    """A trained network whose body another one starts with.

    Attributes:
        name: of its run's folder.
        sha256: of its model.keras.
        network: its builder's name, as its recipe says.
        dataset: what it was trained on, in words.
        fingerprint: of that data set with its splits.
        path: of its model.keras.
        options: of the builder, as its recipe says.
        rule: how any image becomes its input.
    """

    name: str
    sha256: str
    network: str
    dataset: str
    fingerprint: str
    path: Path
    options: dict[str, Any] = field(repr=False)
    rule: ImageRule = field(repr=False)

    def to_json(self) -> dict[str, str]:
        """Return what run.json records: plain strings by name."""
        tree = asdict(self)
        return {key: tree[key] for key in ("name", "sha256", "network", "dataset", "fingerprint")}


def source_of(path: str | Path) -> Source:
    """Return the source that a run is.

    Args:
        path: of a run, or of the model.keras in a run's folder: the recipe beside it says how the
            network is built.

    Raises:
        RunError: there is no such run, it is not done, it is an ensemble, or it was written by a
            version that did not record its rule for images.
    """
    given = Path(path)
    run = Run(given.parent if given.suffix == ".keras" else given)
    info, recipe = run.info, run.recipe
    if info.members:
        raise RunError(f"--from {path}: an ensemble has several bodies; name one of its members")
    if not info.image:
        raise RunError(
            f"--from {path}: its run.json does not say how images become its input; train it "
            "again with this version"
        )
    if not run.keras_model.is_file():
        raise RunError(f"--from {path}: there is no {run.keras_model}; finish that training first")
    with run.keras_model.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Source(
        run.path.resolve().name,
        sha256,
        recipe.model.name,
        info.dataset,
        info.fingerprint,
        run.keras_model,
        dict(recipe.model.options),
        ImageRule.from_json(info.image),
    )


def with_body(recipe: Recipe, source: Source) -> Recipe:
    """Return the recipe with the source's network in the place of its own."""
    model = {"name": source.network, "options": source.options, "tta_views": recipe.model.tta_views}
    return recipe.override({"model": model})


def requested(
    source: str | Path | None,
    backbone: str | None,
    weights: str | Path | None,
    *,
    probe: bool,
    curve: bool = False,
) -> dict[str, Any]:
    """Return what was asked for, by name.

    Raises:
        RecipeError: it is not said, or said twice, which body is meant.
    """
    if curve and (source is not None or backbone is not None):
        raise RecipeError(
            "--learning-curve trains from scratch; leave out --from or --backbone, or the curve"
        )
    if source is not None and backbone is not None:
        raise RecipeError(
            f"--from {source} and --backbone {backbone} both name a body; leave one out"
        )
    if weights is not None and backbone is None:
        raise RecipeError(
            f"--weights {weights}: whose they are is not said; expected --backbone NAME, too, such "
            "as MobileNetV2"
        )
    if probe and source is None and backbone is None:
        raise RecipeError(
            "--probe fits a head on a trained body, and none is named; expected --from RUN or "
            "--backbone NAME"
        )
    return {"source": source, "backbone": backbone, "weights": weights, "probe": probe}


def check(recipe: Recipe, budget: float | None) -> None:
    """Raise a RecipeError where a recipe or a budget does not go with a body."""
    if recipe.train.balance == "auto":
        raise RecipeError(
            "--from and --backbone do not go with balance auto, which tries out networks without "
            "a source; name one, such as --balance logits"
        )
    if budget is not None:
        raise RecipeError(
            "--budget chooses the network's widths, and a trained body brings them along; leave "
            "one out"
        )


def check_size(source: Source, data: Splits) -> None:
    """Raise a RecipeError where a body was trained on images of another size."""
    expected = (source.rule.height, source.rule.width, source.rule.channels)
    if data.train.image_shape != expected:
        raise RecipeError(
            f"--from {source.name}: its images are {_words(expected)}, those of {data.source} "
            f"{_words(data.train.image_shape)}; give them in its size, or as a folder of "
            "images, which the command line brings to it"
        )


def notes(source: Source, data: Splits, *, probe: bool) -> list[str]:
    """Return what a reader of the figures must know of the body."""
    kept = "kept as it is under a linear probe" if probe else "trained on from"
    found = [f"the body of {source.name} ({source.network}, {source.sha256[:12]}), {kept}"]
    if source.fingerprint == data.fingerprint:
        return found
    return [
        *found,
        f"where {source.dataset}, which that body has learnt from, holds images of val or test, "
        "the figures on these flatter",
    ]


def _words(shape: tuple[int, ...]) -> str:
    height, width, channels = shape
    return f"{height}×{width} with {channels} channel{'s' if channels > 1 else ''}"
