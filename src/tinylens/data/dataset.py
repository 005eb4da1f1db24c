"""Labelled images (`Dataset`) and their train/val/test splits (`Splits`)."""

from __future__ import annotations

import hashlib
import html
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinylens.display import html_table, shortened
from tinylens.errors import DataError

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Aspect = Literal["stretch", "pad", "crop"]  # see `tinylens.data.images.ImageRule`
Gather = Callable[[Images, NDArray[np.int64]], Images]

SPLIT_NAMES = ("train", "val", "test")


@dataclass(frozen=True)
class Skipped:
    """Image skipped while reading, with the reason."""

    path: str
    reason: str


@dataclass(frozen=True, eq=False)
class Dataset:
    """Validated images and labels.

    Attributes:
        images: uint8, shape (n, height, width, channels), channels 1 (grey) or 3 (RGB).
        labels: int64, shape (n,), each an index into `class_names`.
        class_names: Class names in label order.
        source: Built-in dataset name or path.
        paths: Source path of each image, shape (n,); empty for arrays.
        skipped: Images skipped while reading, with reasons.
        groups: Group of each image, shape (n,), e.g. its product; a group never spans splits.
            Empty if images are independent.
        aspect: Resize mode for images of another aspect ratio.

    Raises:
        DataError: when shapes, types, counts or labels do not fit together.

    >>> import numpy as np
    >>> data = Dataset(np.zeros((2, 8, 8, 1), np.uint8), [0, 1], ("cat", "dog"), source="example")
    >>> len(data), data.image_shape, data.counts.tolist()
    (2, (8, 8, 1), [1, 1])
    """

    images: Images
    labels: Labels
    class_names: tuple[str, ...]
    source: str
    paths: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    groups: tuple[str, ...] = ()
    aspect: Aspect = "stretch"

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(self.class_names))
        object.__setattr__(self, "images", _checked_images(self.images, self.source))
        labels = _checked_labels(self.labels, len(self.images), self.class_names, self.source)
        object.__setattr__(self, "labels", labels)
        for what, each in (("path", self.paths), ("group", self.groups)):
            if each and len(each) != len(self.images):
                raise DataError(
                    f"{self.source}: {len(self.images)} images but {len(each)} {what}s; "
                    f"give one {what} an image, or none"
                )

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.image_shape))
        return (
            f"Dataset({self.source!r}: {len(self):,} images of {shape}; "
            f"{len(self.class_names):,} classes: {shortened(self.class_names)})"
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    @property
    def counts(self) -> NDArray[np.int64]:
        """Images in each class, int64, shape (classes,)."""
        return np.bincount(self.labels, minlength=len(self.class_names)).astype(np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of pixels, labels and class names: equal exactly when the data are equal."""
        digest = hashlib.sha256(repr((self.images.shape, self.class_names)).encode())
        for start in range(0, len(self), 4096):  # in pieces: a memory-mapped set need not fit
            digest.update(np.ascontiguousarray(self.images[start : start + 4096]).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()

    def subset(self, rows: ArrayLike, gather: Gather = operator.getitem) -> Dataset:
        """Select `rows`, in that order.

        Args:
            rows: Integer indices, shape (m,).
            gather: Function of (images, int64 rows) that returns the selected images.
        """
        index = np.asarray(rows, dtype=np.int64)
        paths, groups = (
            tuple(each[i] for i in index) if each else () for each in (self.paths, self.groups)
        )
        return replace(
            self,
            images=gather(self.images, index),
            labels=self.labels[index],
            paths=paths,
            skipped=(),
            groups=groups,
        )

    def split(
        self, rows: Mapping[str, ArrayLike], gather: Gather = operator.getitem
    ) -> dict[str, Dataset]:
        """Split into named subsets; see `subset`.

        The images are copied once; the subsets are consecutive views of that array, so `joined`
        can rejoin neighbours without a copy.
        """
        every = np.concatenate([np.asarray(each, np.int64) for each in rows.values()])
        whole = self.subset(every, gather)
        parts, start = {}, 0
        for name, each in rows.items():
            stop = start + len(np.asarray(each))
            parts[name] = replace(
                whole,
                images=whole.images[start:stop],
                labels=whole.labels[start:stop],
                paths=whole.paths[start:stop],
                groups=whole.groups[start:stop],
            )
            start = stop
        return parts


@dataclass(frozen=True, eq=False)
class Splits:
    """Train, validation and test splits.

    Attributes:
        train: Training split.
        val: Validation split for early stopping, checkpoint selection and calibration; None
            without one.
        test: Test split, evaluated once at the end.
        notes: Origin of the splits, one sentence each, for the report.
    """

    train: Dataset
    val: Dataset | None
    test: Dataset
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        for name, part in self.items():
            _check_same_kind(self.train, part, name)

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.train.image_shape))
        sizes = ", ".join(f"{name} {len(part):,}" for name, part in self.items())
        return (
            f"Splits({self.source!r}: {sizes}; images of {shape}; "
            f"{len(self.class_names):,} classes: {shortened(self.class_names)})"
        )

    def _repr_html_(self) -> str:
        rows = []
        for name, part in self.items():
            fewest, most = int(part.counts.min()), int(part.counts.max())
            images = fewest if fewest == most else f"{fewest:,}–{most:,}"
            rows.append([name, f"{len(part):,}", images])
        table = html_table([["split", "images", "images per class"], *rows])
        return f"<p>{html.escape(repr(self))}</p>{table}"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names shared by all splits."""
        return self.train.class_names

    @property
    def source(self) -> str:
        """Source of the training split."""
        return self.train.source

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the fingerprints of the splits."""
        parts = (f"{name}:{part.fingerprint}" for name, part in self.items())
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def items(self) -> Iterator[tuple[str, Dataset]]:
        """Yield (name, split) for train, val (if present) and test."""
        yield "train", self.train
        if self.val is not None:
            yield "val", self.val
        yield "test", self.test


def joined(parts: Sequence[Images]) -> Images:
    """Concatenate images, uint8, shape (sum of all n, height, width, channels).

    Consecutive views of one array, as from `Dataset.split` and the file readers, are not copied.
    The result is read-only.

    >>> array = np.zeros((5, 8, 8, 1), np.uint8)
    >>> np.shares_memory(joined([array[:3], array[3:]]), array)
    True
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    end = first.ctypes.data
    for part in parts:
        neighbours = part.ctypes.data == end and part.flags.c_contiguous
        if not (neighbours and part.base is not None and part.base is first.base):
            return np.concatenate(parts)
        end += part.nbytes
    shape = (sum(map(len, parts)), *first.shape[1:])
    return np.lib.stride_tricks.as_strided(first, shape, first.strides, writeable=False)


def stratified_split(
    labels: Labels, fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw a stratified split: (rest, part), with `fraction` of every class in `part`.

    Each side gets at least one image per class. Rows are in ascending order.

    Raises:
        DataError: A class has a single image.

    >>> rest, part = stratified_split(np.array([0, 0, 0, 0, 1, 1]), 0.25, seed=0)
    >>> len(rest), len(part)
    (4, 2)
    """
    random = np.random.default_rng([seed, 0x5EED])
    chosen: list[NDArray[np.int64]] = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) < 2:
            raise DataError(
                f"class number {label} has {len(rows)} image, and a part of {fraction:.0%} is to "
                "be carved out; expected at least 2 a class: add images or leave the class out"
            )
        count = min(max(round(len(rows) * fraction), 1), len(rows) - 1)
        chosen.append(random.permutation(rows)[:count])
    part = np.sort(np.concatenate(chosen))
    rest = np.setdiff1d(np.arange(len(labels)), part)
    return rest, part


def _checked_images(given: Any, source: str) -> Images:
    # an array is kept as it is: a memory-mapped one stays on the disk
    images: NDArray[Any] = given if isinstance(given, np.ndarray) else np.asarray(given)
    if images.dtype != np.uint8:
        raise DataError(
            f"{source}: images are {images.dtype}, expected uint8 from 0 to 255; "
            "scale and convert them, for example (255 * images).astype('uint8')"
        )
    if images.ndim == 3:  # (n, height, width): grey without a channel axis, as Keras gives MNIST
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape[1:3]:
        raise DataError(
            f"{source}: images have shape {images.shape}, expected (n, height, width) or "
            "(n, height, width, channels) with 1 or 3 channels"
        )
    if not len(images):
        raise DataError(f"{source}: no images; expected at least one")
    return images


def _checked_labels(labels: Any, count: int, class_names: Sequence[str], source: str) -> Labels:
    array = np.asarray(labels)
    if array.ndim == 2 and array.shape[1] == 1:  # Keras gives CIFAR labels as (n, 1)
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iu":
        way = (
            "measurements are no classes: cut them into ranges with numpy.digitize(labels, edges)"
            if array.ndim == 1
            else "turn one-hot rows into numbers with labels.argmax(axis=1)"
        )
        raise DataError(
            f"{source}: labels are {array.dtype} of shape {array.shape}, expected whole numbers of "
            f"shape (n,); {way}"
        )
    if len(array) != count:
        raise DataError(f"{source}: {count} images but {len(array)} labels; expected one each")
    if len(class_names) < 2:
        raise DataError(
            f"{source}: found {len(class_names)} class ({', '.join(class_names)}), expected at "
            "least 2; a classifier has nothing to decide here"
        )
    if len(set(class_names)) != len(class_names):
        twins = sorted({name for name in class_names if class_names.count(name) > 1})
        raise DataError(f"{source}: class names given twice: {', '.join(twins)}; rename one")
    wrong = np.flatnonzero((array < 0) | (array >= len(class_names)))
    if len(wrong):
        shown = ", ".join(f"row {row}: {array[row]}" for row in wrong[:5])
        raise DataError(
            f"{source}: {len(wrong)} labels outside 0…{len(class_names) - 1} ({shown}); "
            "expected each label to number one of the class names"
        )
    return array.astype(np.int64)


def _check_same_kind(train: Dataset, part: Dataset, name: str) -> None:
    if part.class_names != train.class_names:
        missing = sorted(set(train.class_names) - set(part.class_names))
        extra = sorted(set(part.class_names) - set(train.class_names))
        found = (
            f"{name} lacks {missing} and adds {extra}"
            if missing or extra
            else f"{name} has the same classes in another order: {', '.join(part.class_names)}"
        )
        raise DataError(
            f"train and {name} do not have the same classes: {found}; expected "
            f"{', '.join(train.class_names)}"
        )
    if part.image_shape != train.image_shape:
        raise DataError(
            f"{name} images are {part.image_shape}, train images {train.image_shape}; "
            "expected one size and channel count"
        )
    if part.aspect != train.aspect:
        raise DataError(
            f"{name} images were brought to their size by {part.aspect}, train images by "
            f"{train.aspect}; expected one way"
        )
