"""Which images are explained, and all that is said of them, put together."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from tinylens.backend import activate
from tinylens.data.dataset import Dataset, Images, Labels, Splits
from tinylens.data.load import reopen
from tinylens.errors import DataError, RecipeError, did_you_mean
from tinylens.evaluation.compare import test_answers
from tinylens.evaluation.evaluate import record_look
from tinylens.heatmaps import Heatmaps, highest_one
from tinylens.inference.batch_predict import expand
from tinylens.inference.classifier import Classifier, ImageInput, each
from tinylens.inference.occlusion import occlusion
from tinylens.metrics import Probabilities
from tinylens.results import Broken, Explained, Explanations, Heat, Neighbour, Sheet
from tinylens.run import Run

PAIRS = 6  # confused pairs: of fast, half of the mistakes on Fashion-MNIST, 30 % on CIFAR-10
MISTAKES = 5  # of each pair, the most confident ones
NEIGHBOURS = 4
IMAGES_A_SHEET = 20  # of those that are named
STRETCH = 2_000  # images embedded between two tellings of how far it is

Features = NDArray[np.float32]
Look = Callable[[Images, Labels], Heatmaps]
Embed = Callable[[Images], Features]
Progress = Callable[[int, int], None]
Watch = Callable[[str], AbstractContextManager[Progress | None]]  # a name → what is told of it
Describe = Callable[[str], object]

METHODS = ("grad-cam", "occlusion")
FLATTENED = (
    "This network flattens its maps: what speaks for a class in one place may speak against it in "
    "another, and Grad-CAM, which weighs both alike, may point beside the object. Occlusion "
    "does not: leave --method out."
)


@dataclass(frozen=True, eq=False)
class Confused:
    """Images of one class that were answered as another, both as numbers.

    Attributes:
        rows: int64, the most confident mistake first.
    """

    label: int
    answer: int
    rows: NDArray[np.int64]


class NearestImages:
    """Finds the training images nearest to others, by what a network sees in them.

    Distances are between directions: on the unit sphere, from 0 to 2.

    Args:
        embed: uint8 images → features.
        train: the images among which to look.
        progress: called with images done and images in all.
    """

    def __init__(self, embed: Embed, train: Dataset, progress: Progress | None = None) -> None:
        from sklearn.neighbors import NearestNeighbors
        from sklearn.preprocessing import normalize

        self.embed = embed
        self.train = train
        parts = []
        for start in range(0, len(train), STRETCH):
            parts.append(embed(train.images[start : start + STRETCH]))
            if progress:
                progress(min(start + STRETCH, len(train)), len(train))
        self._normalize = normalize
        count = min(NEIGHBOURS, len(train))
        search = NearestNeighbors(n_neighbors=count, algorithm="brute")
        self._search = search.fit(normalize(np.concatenate(parts)))

    def __call__(self, images: Images) -> list[tuple[Neighbour, ...]]:
        """Return the nearest training images of each image, the nearest first."""
        train = self.train
        distances, rows = self._search.kneighbors(self._normalize(self.embed(images)))
        return [
            tuple(
                Neighbour(row, train.class_names[train.labels[row]], distance, train.images[row])
                for row, distance in zip(found.tolist(), far.tolist(), strict=True)
            )
            for found, far in zip(rows, distances, strict=True)
        ]


def confused_pairs(answers: Probabilities, labels: Labels, count: int) -> list[Confused]:
    """Return the most frequent pairs of a class and a wrong answer, the most frequent first.

    Args:
        answers: probabilities, float, shape (n, classes).
        labels: int64, shape (n,).
        count: of pairs; fewer where there are fewer.

    >>> sure = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]], np.float32)
    >>> [pair] = confused_pairs(sure, np.array([1, 1, 1]), 5)
    >>> pair.label, pair.answer, pair.rows.tolist()
    (1, 0, [0, 1])
    """
    given, classes = answers.argmax(axis=1), answers.shape[1]
    wrong = np.flatnonzero(given != labels)
    kinds, counts = np.unique(labels[wrong] * classes + given[wrong], return_counts=True)
    pairs = []
    for kind in kinds[np.argsort(-counts, kind="stable")[:count]].tolist():
        label, answer = divmod(kind, classes)
        rows = wrong[(labels[wrong] == label) & (given[wrong] == answer)]
        order = np.argsort(-answers[rows, answer], kind="stable")
        pairs.append(Confused(label, answer, rows[order].astype(np.int64)))
    return pairs


def explain_mistakes(
    test: Dataset,
    answers: Probabilities,
    look: Look,
    find: NearestImages,
    *,
    pairs: int = PAIRS,
) -> tuple[Sheet, ...]:
    """Explain the most confident mistakes of each of the most frequent confused pairs.

    Each image is looked at twice: for the class that it has, and for the one that was answered.

    Args:
        test: the images.
        answers: their probabilities, float, shape (n, classes).
        look: uint8 images and a class for each → heatmaps.
        find: the nearest training images.
        pairs: how many of them.
    """
    found = confused_pairs(answers, test.labels, pairs)
    if not found:
        return ()
    rows = np.concatenate([pair.rows[:MISTAKES] for pair in found])
    requested = np.stack([test.labels[rows], answers[rows].argmax(axis=1)], axis=1)
    paths = [test.paths[row] if test.paths else "" for row in rows]
    named = _Named(rows.tolist(), paths, [test.class_names[label] for label in test.labels[rows]])
    explained = iter(
        _explained(test.images[rows], named, answers[rows], requested, test.class_names, look, find)
    )
    return tuple(
        Sheet(
            f"{test.class_names[pair.label]} → {test.class_names[pair.answer]}",
            len(pair.rows),
            tuple(next(explained) for _ in pair.rows[:MISTAKES]),
        )
        for pair in found
    )


def explain_images(
    images: Images,
    paths: Sequence[str],
    answers: Probabilities,
    class_names: Sequence[str],
    look: Look,
    find: NearestImages | None = None,
    *,
    requested: int | None = None,
) -> tuple[Sheet, ...]:
    """Explain images that were named, in their order.

    Args:
        images: uint8, shape (n, height, width, channels).
        paths: where each came from.
        answers: their probabilities, float, shape (n, classes).
        class_names: one name a class.
        look: uint8 images and a class for each → heatmaps.
        find: the nearest training images, where they are known.
        requested: the class that is asked about; None asks about each image's answer.
    """
    given = answers.argmax(axis=1) if requested is None else np.full(len(images), requested)
    named = _Named([None] * len(images), paths, [None] * len(images))
    explained = _explained(images, named, answers, given[:, None], class_names, look, find)
    starts = range(0, len(images), IMAGES_A_SHEET)
    parts = [tuple(explained[start : start + IMAGES_A_SHEET]) for start in starts]
    return tuple(
        Sheet("Images" if len(parts) == 1 else f"Images, sheet {number}", len(part), part)
        for number, part in enumerate(parts, start=1)
    )


@dataclass(frozen=True)
class _Named:
    """What images are called: rows of test, paths and labels, as far as they are known."""

    indices: Sequence[int | None]
    paths: Sequence[str]
    labels: Sequence[str | None]


def _explained(
    images: Images,
    named: _Named,
    answers: Probabilities,
    requested: Labels,
    class_names: Sequence[str],
    look: Look,
    find: NearestImages | None,
) -> list[Explained]:
    """Explain images for the classes `asked`, shape (n, classes asked about)."""
    times = requested.shape[1]
    seen = look(np.repeat(images, times, axis=0), requested.ravel())
    largest = np.maximum(seen.max(axis=(1, 2)), 0).reshape(len(images), times)
    maps = highest_one(seen).reshape(len(images), times, *seen.shape[1:])
    neighbours = find(images) if find else [()] * len(images)
    return [
        Explained(
            image=np.asarray(images[row]),
            index=named.indices[row],
            path=named.paths[row],
            label=named.labels[row],
            answer=class_names[answers[row].argmax()],
            confidence=float(answers[row].max()),
            heats=tuple(
                Heat(
                    class_name=class_names[label],
                    probability=float(answers[row, label]),
                    largest=float(largest[row, number]),
                    map=maps[row, number],
                )
                for number, label in enumerate(requested[row])
            ),
            neighbours=neighbours[row],
        )
        for row in range(len(images))
    ]


# --- the verb


@dataclass(frozen=True)
class _Request:
    """What is asked of `explain`, checked to go together; see there."""

    classifier: Classifier
    run: Run | None
    images: Sequence[ImageInput]
    class_name: str | None
    method: str | None
    top: int | None
    data: str | Path | Splits | None
    backend: str | None
    data_dir: Path | None
    watch: Watch
    describe: Describe

    def __post_init__(self) -> None:
        if self.run is None and not self.images:
            raise RecipeError(
                "a model alone does not know of its mistakes; name images: tinylens explain MODEL "
                "IMAGE…, or give the folder of its run"
            )
        if self.method not in (None, *METHODS):
            raise RecipeError(f"method is {self.method!r}, expected one of {', '.join(METHODS)}")
        if self.run is None and self.method == "grad-cam":
            raise RecipeError(
                "--method grad-cam takes the network itself, and model.onnx has no gradients; give "
                "the folder of its run, or leave --method out"
            )
        if self.run is None and self.data is not None:
            raise RecipeError("--data is where a run's images are; a model alone has none")
        if self.class_name is not None and not self.images:
            raise RecipeError(
                "--class asks about images that are named; a mistake is explained for its own "
                "class and for its answer"
            )
        if self.top is not None and self.images:
            raise RecipeError("--top counts confused pairs, but images are named; leave one out")
        names = self.classifier.class_names
        if self.class_name is not None and self.class_name not in names:
            raise RecipeError(
                f"--class {self.class_name}: no such class{did_you_mean(self.class_name, names)}; "
                f"the model has {', '.join(names)}"
            )

    def splits(self, run: Run) -> Splits:
        """Return what the run was trained on."""
        if isinstance(self.data, Splits):
            return self.data
        return reopen(run, self.data, self.data_dir)


def explain(  # noqa: PLR0913 - what the verb takes
    model: Run | str | Path,
    images: ImageInput | Sequence[ImageInput] | None = None,
    *,
    class_name: str | None = None,
    method: str | None = None,
    top: int | None = None,
    data: str | Path | Splits | None = None,
    backend: str | None = None,
    data_dir: str | Path | None = None,
    progress: Watch | None = None,
    describe: Describe | None = None,
    command: str = "tinylens.explain()",
    standard_input: IO[bytes] | None = None,
) -> Explanations:
    """Show where a network looks: in a run's worst mistakes, or in given images.

    Nothing is written, but that a run records a look at its test split.

    Args:
        model: a model.onnx, the folder of a run, or a `Run`.
        images: what to explain: a path, a folder, a pattern, the content of a file, uint8 pixels of
            shape (height, width, channels) or (n, height, width, channels), or several of these.
            None takes the most confident mistakes of a run on its test split.
        class_name: what the images are explained for; None takes each image's predicted class.
        method: "grad-cam", which takes a run, or "occlusion"; None takes Grad-CAM where a run's
            network pools its maps, else occlusion.
        top: how many confused pairs of classes; None is 6.
        data: where a run's images are, if they have moved, or its `Splits`.
        backend: "tensorflow", "jax" or "torch"; None as `tinylens.backend.choose` says.
        data_dir: where a set's files are looked for first.
        progress: opens what is called with images done and images in all, by a name for them.
        describe: called with a sentence on each thing that was left out.
        command: recorded in a run as what opened its test split.
        standard_input: where the path "-" reads paths from, one a line.

    Raises:
        DataError: no image can be read, or the run's data set cannot be opened.
        ModelError: the model file is missing or damaged.
        RecipeError: the arguments do not go together.
        RunError: the run is not finished, or cannot be written.

    >>> explain("runs/fast-1", "boot.png").sheets[0].images[0].answer  # doctest: +SKIP
    'Ankle boot'
    """
    path = Path(model)
    request = _Request(
        classifier=Classifier.open(path),
        run=Run(path) if path.is_dir() else None,
        images=() if images is None else each(images),
        class_name=class_name,
        method=method,
        top=top,
        data=data,
        backend=backend,
        data_dir=None if data_dir is None else Path(data_dir),
        watch=progress or (lambda _: contextlib.nullcontext()),
        describe=describe or (lambda _: None),
    )
    way = _way(request)
    if request.run and not len(request.images):
        return _of_mistakes(request, request.run, way, command)
    near = _near_if_there(request, request.run) if request.run else None
    return _of_images(path, request, way, near, standard_input or io.BytesIO())


@dataclass(frozen=True)
class _Way:
    """What finds out where a network looks, in how many places, and why its maps may mislead."""

    method: str
    look: Look
    places: tuple[int, int] | None = None
    caution: str = ""


def _way(request: _Request) -> _Way:
    """Return what was asked for; else Grad-CAM where a network pools its maps, or occlusion."""
    if request.run is None or request.method == "occlusion":
        return _Way("occlusion", _by_occlusion(request))
    activate(request.backend)
    from tinylens.explaining.gradcam import GradCam
    from tinylens.models.embedding import open_network

    grad_cam = GradCam(open_network(request.run.keras_model))
    if grad_cam.flattened and request.method is None:
        request.describe("occlusion, as the network flattens its maps: Grad-CAM would mislead")
        return _Way("occlusion", _by_occlusion(request))

    def look(images: Images, labels: Labels) -> Heatmaps:
        with request.watch("images looked at") as progress:
            return grad_cam(images, labels, progress)

    return _Way("grad-cam", look, grad_cam.places, FLATTENED if grad_cam.flattened else "")


def _by_occlusion(request: _Request) -> Look:
    def look(images: Images, labels: Labels) -> Heatmaps:
        with request.watch("images looked at") as progress:
            return occlusion(request.classifier.probabilities, images, labels, progress)

    return look


def _of_mistakes(request: _Request, run: Run, way: _Way, command: str) -> Explanations:
    """Explain the worst mistakes of a run; that test is looked at goes on record."""
    answers, labels = test_answers(run)
    splits = request.splits(run)
    record_look(run, command)
    near = _near(request, run, splits.train)
    pairs = request.top or PAIRS
    sheets = explain_mistakes(splits.test, answers, way.look, near, pairs=pairs)
    mistakes = int((answers.argmax(axis=1) != labels).sum())
    return Explanations(str(run.path), way.method, sheets, way.places, mistakes, (), way.caution)


def _of_images(
    model: Path,
    request: _Request,
    way: _Way,
    near: NearestImages | None,
    standard_input: IO[bytes],
) -> Explanations:
    """Explain given images; those that cannot be read are listed."""
    classifier, class_name = request.classifier, request.class_name
    names = [os.fspath(item) for item in request.images if isinstance(item, str | os.PathLike)]
    pixels = [item for item in request.images if not isinstance(item, str | os.PathLike)]
    items: list[ImageInput] = [*(expand(names, standard_input) if names else ()), *pixels]
    read = [classifier.read(item) for item in items]
    broken = tuple(Broken(each.path or "", each.error) for each in read if each.error)
    shown = [(each.path or "", each.image) for each in read if each.image is not None]
    if not shown:
        raise DataError(
            f"none of the {len(read)} images could be read; {broken[0].path}: {broken[0].reason}"
        )
    images = np.stack([image for _, image in shown])
    sheets = explain_images(
        images,
        [path for path, _ in shown],
        classifier.probabilities(images),
        classifier.class_names,
        way.look,
        near,
        requested=None if class_name is None else classifier.class_names.index(class_name),
    )
    return Explanations(str(model), way.method, sheets, way.places, None, broken, way.caution)


def _near_if_there(request: _Request, run: Run) -> NearestImages | None:
    """Return what finds the nearest training images; where they are gone, say so."""
    try:
        train = request.splits(run).train
    except DataError as error:
        if request.data is not None:
            raise
        request.describe(f"no training images are shown: {error}")
        return None
    return _near(request, run, train)


def _near(request: _Request, run: Run, train: Dataset) -> NearestImages:
    activate(request.backend)
    from tinylens.models.embedding import Embedding

    with request.watch("training images") as progress:
        return NearestImages(Embedding(run.keras_model), train, progress)
