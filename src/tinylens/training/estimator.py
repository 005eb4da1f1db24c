"""`SmallImageClassifier`: a scikit-learn estimator on image arrays.

`fit` trains as `tinylens train` does and leaves a run; `predict` asks its model.onnx. Keras is
loaded by `fit` alone, so a fitted classifier that was pickled answers without it.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinylens.data.dataset import Dataset, Images, Labels, Splits, stratified_split
from tinylens.data.images import ImageRule, convert
from tinylens.errors import DataError, MissingExtra
from tinylens.inference.classifier import Classifier
from tinylens.progress import on_terminal
from tinylens.recipe import Recipe
from tinylens.training.train import train

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError:
    raise MissingExtra(
        "SmallImageClassifier needs scikit-learn, which is not installed; type: "
        "pip install 'tinylens[train]'"
    ) from None

LONGEST_ROW = 64  # numbers that are taken as an image one pixel high where they make no square
SOURCE = "arrays"  # what the run says of where its images came from

Shape = tuple[int, int, int]


class UnfitArray(DataError, ValueError):
    """An array that cannot be used; a ValueError too, as scikit-learn's callers expect."""


class SmallImageClassifier(ClassifierMixin, BaseEstimator):
    """A network for small images that scikit-learn can train, ask, search and cross-validate.

    Images are arrays of one of three forms: (n, height, width) grey, (n, height, width, channels)
    with 1, 3 or 4 (RGBA) channels, or flat, (n, pixels), pixel by pixel with the channels of each
    together. The shape of flat ones is `image_shape`, else a square where their length is a square
    number (grey) or three times one (RGB), else, up to 64 numbers, an image one pixel high.

    Networks see uint8. Whole numbers from 0 to 255 are taken as they are, numbers from 0 to 1 times
    255. Of anything else, such as 16-bit or standardized pixels, the range in `fit` becomes 0 to
    255, and what lies outside it later is cut off. The rule is chosen in `fit` and kept for
    `predict`.

    `fit` sets a share of its images aside to choose on (`val`) and, if asked, to judge on
    (`test`). Without a test share, what its run calls test is val, or train where there is no val
    either, as a note in the run says: judge then by `score`, on images that `fit` did not see.

    Args:
        recipe: a built-in recipe's name, a path to a TOML file, or a Recipe.
        epochs: passes over the training split; None as the recipe says.
        seed: of weights, order and augmentation; None as the recipe says.
        val: share of the images to choose on, in [0, 1); None as the recipe says.
        test: share of them to judge the run on, in [0, 1).
        size: height and width that images are brought to; None as the recipe says, else theirs.
        image_shape: of flat images, (height, width) or (height, width, channels).
        overrides: other changes to the recipe, such as {"optimizer.learning_rate": 0.01}.
        backend: "tensorflow", "jax" or "torch"; None as `tinylens.backend.choose` says.
        budget: seconds for a fit; the network's widths and the epochs are chosen to keep it.
        deterministic: the same weights, bit for bit, from the same data on the same machine.
        out: the run's folder, with a report. None takes a temporary one without, which goes when
            the classifier does. With a folder there can be one fit: others are refused.
        verbose: show progress on a terminal.

    Attributes:
        classes_: the labels, sorted, shape (classes,), of their own dtype.
        n_features_in_: height · width · channels of the images given to `fit`.
        image_shape_: their height, width and channels.
        pixel_range_: what becomes 0 and 255.
        run_: what `fit` leaves; the folder of a copy goes with the original.
        model_: the content of model.onnx, which answers.
        classifier_: that, opened.

    >>> import numpy as np
    >>> from tinylens.training.estimator import SmallImageClassifier
    >>> classifier = SmallImageClassifier("fast", epochs=3)
    >>> classifier.get_params()["epochs"]
    3
    >>> digits = np.zeros((100, 28, 28), np.uint8), np.arange(100) % 10
    >>> classifier.fit(*digits).predict(digits[0])                         # doctest: +SKIP
    """

    def __init__(  # noqa: PLR0913 - scikit-learn wants every parameter by name
        self,
        recipe: str | Path | Recipe = "classic",
        *,
        epochs: int | None = None,
        seed: int | None = None,
        val: float | None = None,
        test: float = 0.0,
        size: int | None = None,
        image_shape: Sequence[int] | None = None,
        overrides: Mapping[str, Any] | None = None,
        backend: str | None = None,
        budget: float | None = None,
        deterministic: bool = True,
        out: str | Path | None = None,
        verbose: bool = False,
    ) -> None:
        self.recipe = recipe
        self.epochs = epochs
        self.seed = seed
        self.val = val
        self.test = test
        self.size = size
        self.image_shape = image_shape
        self.overrides = overrides
        self.backend = backend
        self.budget = budget
        self.deterministic = deterministic
        self.out = out
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: ArrayLike) -> SmallImageClassifier:  # noqa: N803
        """Train on images and their labels.

        Args:
            X: images, in one of the forms above.
            y: labels of any dtype that can be sorted, shape (n,).

        Raises:
            ValueError: the arrays are not what they should be; mostly a DataError as well.
            RecipeError: a parameter says something impossible.
            RunError: `out` holds the run of another fit.
        """
        recipe = self._recipe()
        checked, labels = validate_data(self, X, y, **_rules(X))
        check_classification_targets(labels)
        self.image_shape_ = _image_shape(checked.shape, self.image_shape)
        self.n_features_in_ = math.prod(self.image_shape_)
        self.pixel_range_ = _pixel_range(checked)
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        images = _sized(self._pixels(checked), recipe.data.size)
        data = _splits(images, numbers, self.classes_, recipe)
        with contextlib.ExitStack() as stack:
            reporter = stack.enter_context(on_terminal()) if self.verbose else None
            self.run_ = train(
                data,
                recipe,
                out=self._folder(),
                backend=self.backend,
                budget=self.budget,
                deterministic=self.deterministic,
                report=self.out is not None,
                command="SmallImageClassifier.fit",
                reporter=reporter,
            )
        self.model_ = self.run_.model.read_bytes()
        self.classifier_ = Classifier.from_bytes(self.model_, str(self.run_.model))
        return self

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """Return the most probable label of each image, shape (n,), of the dtype of `classes_`.

        Args:
            X: images, of the size of those in `fit`, in any of the forms above.
        """
        best = self.predict_proba(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[best]
        return labels

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float32]:  # noqa: N803
        """Return calibrated probabilities, float32, shape (n, classes), in the order of `classes_`.

        Args:
            X: as for `predict`.

        Raises:
            NotFittedError: before `fit`.
            ValueError: as for `fit`; also where images are of another size or range than there.
        """
        check_is_fitted(self, "classifier_")
        checked = validate_data(self, X, reset=False, **_rules(X))
        if checked[0].size != self.n_features_in_:
            raise UnfitArray(
                f"X has {checked[0].size} features, but SmallImageClassifier is expecting "
                f"{self.n_features_in_} features as input, images of shape {self.image_shape_}"
            )
        _check_range(checked, self.pixel_range_)
        return self.classifier_.probabilities(self._pixels(checked))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("classifier_", None)  # onnxruntime's session cannot be pickled; its bytes are
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "model_" in state:
            self.classifier_ = Classifier.from_bytes(self.model_, str(self.run_.model))

    def _recipe(self) -> Recipe:
        """Return the recipe with what the parameters change in it."""
        given = {
            "train.epochs": self.epochs,
            "train.seed": self.seed,
            "data.val": self.val,
            "data.test": self.test,
            "data.size": self.size,
        }
        changes = {key: value for key, value in given.items() if value is not None}
        recipe = self.recipe if isinstance(self.recipe, Recipe) else Recipe.load(self.recipe)
        return recipe.override({**(self.overrides or {}), **changes})

    def _folder(self) -> Path:
        if self.out is not None:
            return Path(self.out)
        folder = Path(tempfile.mkdtemp(prefix="tinylens-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    def _pixels(self, checked: NDArray[Any]) -> Images:
        """Return checked images as uint8, shape (n, height, width, channels)."""
        images = checked.reshape(len(checked), *self.image_shape_)
        if images.dtype == np.uint8 and self.pixel_range_ == (0.0, 255.0):
            return images
        low, high = self.pixel_range_
        scale = 255 / ((high - low) or 1.0)
        pixels: Images = np.clip(np.rint((images - low) * scale), 0, 255).astype(np.uint8)
        return pixels


def _rules(X: ArrayLike) -> dict[str, Any]:  # noqa: N803
    """Return what scikit-learn is to check of images in one of the forms that there are."""
    axes = X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim  # a sparse matrix has two
    # it counts features of flat images only: of others the second axis is the height
    return {"allow_nd": True, "ensure_2d": axes <= 2, "dtype": "numeric"}


def _image_shape(shape: tuple[int, ...], given: Sequence[int] | None) -> Shape:
    """Return height, width and channels of the images in an array of `shape`.

    >>> _image_shape((5, 28, 28), None), _image_shape((5, 3072), None), _image_shape((5, 7), None)
    ((28, 28, 1), (32, 32, 3), (1, 7, 1))
    """
    found = (*shape[1:], 1)[:3] if len(shape) == 3 else shape[1:]
    if len(shape) == 2:
        found = _shape_of_flat(shape[1]) if given is None else (*given, 1)[:3]
    if len(found) != 3 or found[2] not in (1, 3, 4) or min(found) < 1:
        raise UnfitArray(
            f"images of shape {found}; expected (n, height, width), (n, height, width, channels) "
            "with 1, 3 or 4 channels, or flat ones and image_shape=(height, width, channels)"
        )
    if math.prod(found) != math.prod(shape[1:]):
        raise UnfitArray(
            f"images have {math.prod(shape[1:])} numbers each, and image_shape={given} "
            f"has {math.prod(found)}; expected as many"
        )
    height, width, channels = map(int, found)
    return height, width, channels


def _shape_of_flat(length: int) -> tuple[int, ...]:
    for channels in (1, 3):
        side = math.isqrt(length // channels)
        if side * side * channels == length:
            return side, side, channels
    if length > LONGEST_ROW:
        raise UnfitArray(
            f"flat images of {length} numbers are neither square grey nor square RGB ones; say "
            "what they are: image_shape=(height, width) or (height, width, channels)"
        )
    return 1, length, 1


def _pixel_range(images: NDArray[Any]) -> tuple[float, float]:
    """Return which numbers become 0 and 255.

    >>> _pixel_range(np.array([0, 16.0])), _pixel_range(np.array([0.5, 1])), _pixel_range([-2, 2.5])
    ((0.0, 255.0), (0.0, 1.0), (-2.0, 2.5))
    """
    low, high = float(np.min(images)), float(np.max(images))
    if low >= 0 and high <= 255 and _whole(images):
        return 0.0, 255.0
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)


def _whole(images: ArrayLike) -> bool:
    array = np.asarray(images)
    return array.dtype.kind in "bui" or bool((array == np.rint(array)).all())


def _check_range(images: NDArray[Any], expected: tuple[float, float]) -> None:
    """Refuse images from 0 to 1 where 0 to 255 was learnt, and the other way round."""
    high = float(images.max())
    if expected == (0.0, 255.0) and high <= 1 and not _whole(images):
        raise UnfitArray(
            f"pixels are fractions up to {high:g}, and those in fit were whole numbers from 0 to "
            "255; multiply them by 255"
        )
    if expected == (0.0, 1.0) and high > 2:
        raise UnfitArray(
            f"pixels go up to {high:g}, and those in fit went from 0 to 1; divide them by 255"
        )


def _sized(images: Images, size: int | None) -> Images:
    """Return images as a network is to see them: square where a size is given, grey or RGB."""
    height, width, channels = images.shape[1:]
    rule = ImageRule(size or height, size or width, 1 if channels == 1 else 3)
    return convert(images, rule)


def _splits(images: Images, labels: Labels, classes: NDArray[Any], recipe: Recipe) -> Splits:
    """Return train, val and test; what there is no share for is one of the others."""
    names = tuple(map(str, classes.tolist()))
    if len(names) < 2:
        raise UnfitArray(
            f"found 1 class ({', '.join(names)}), expected at least 2; a classifier has nothing to "
            "decide here"
        )
    whole = Dataset(images, labels, names, source=SOURCE)
    rows, notes = {"train": np.arange(len(whole))}, []
    for name, share in (("test", recipe.data.test), ("val", recipe.data.val)):
        if share:
            _check_two_each(labels, names, f"{name}={share:g}")
            kept, part = stratified_split(labels[rows["train"]], share, recipe.data.split_seed)
            rows["train"], rows[name] = rows["train"][kept], rows["train"][part]
            notes.append(f"{name}: {share:.0%} of the images left, stratified ({len(part):,})")
    order = ("train", "val", "test")  # train beside val: training holds these two together
    parts = whole.split({name: rows[name] for name in order if name in rows})
    if "test" not in parts:
        instead = "val" if "val" in parts else "train"
        notes.append(
            f"fit was given no share to judge on (test=0): what is called test here is {instead}, "
            "so its figures flatter; judge on other images, by score"
        )
        parts["test"] = parts[instead]
    return Splits(parts["train"], parts.get("val"), parts["test"], tuple(notes))


def _check_two_each(labels: Labels, names: Sequence[str], share: str) -> None:
    counts = np.bincount(labels, minlength=len(names))
    single = [name for name, count in zip(names, counts, strict=True) if count == 1]
    if single:
        raise UnfitArray(
            f"one image alone of class {', '.join(single[:5])}, and {share} of each is to be set "
            "aside; expected at least 2: add images, leave the class out, or set it to 0"
        )
