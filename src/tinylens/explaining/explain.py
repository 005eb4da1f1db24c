"""Which images are explained, and all that is said of them, put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinylens.data.dataset import Dataset, Images, Labels
from tinylens.heatmaps import Heatmaps, highest_one
from tinylens.metrics import Probabilities
from tinylens.results import Explained, Heat, Neighbour, Sheet

PAIRS = 6  # confused pairs: of fast, half of the mistakes on Fashion-MNIST, 30 % on CIFAR-10
MISTAKES = 5  # of each pair, the most confident ones
NEIGHBOURS = 4
IMAGES_A_SHEET = 20  # of those that are named
STRETCH = 2_000  # images embedded between two tellings of how far it is

Features = NDArray[np.float32]
Look = Callable[[Images, Labels], Heatmaps]
Embed = Callable[[Images], Features]
Progress = Callable[[int, int], None]


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
