"""Dataset audit: duplicates, label errors, outliers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinylens.auditing import outliers
from tinylens.auditing.duplicates import find_duplicates
from tinylens.auditing.label_errors import doubted_labels
from tinylens.data.dataset import Dataset, Images, Splits, joined
from tinylens.data.encoded import DEFAULTS
from tinylens.data.load import load_parts
from tinylens.data.splits import as_parts
from tinylens.metrics import Probabilities
from tinylens.results import Audit, Broken, LabelIssue, Oddity, Twin

Embed = Callable[[Images], NDArray[np.float32]]
Progress = Callable[[int, int], None]


def audit(
    data: str | Path | Dataset | Splits | Mapping[str, Dataset],
    answers: Mapping[str, Probabilities] | None = None,
    embed: Embed | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Audit a dataset for duplicates, label errors and outliers.

    Args:
        data: a known set's name or a path, as for `tinylens.load`, but no split is carved out;
            what is in memory already; or datasets by the names of their splits, "train" among
            them, all of one kind of image and with the same classes.
        answers: by the names of parts, probabilities from networks that were not trained on the
            part's images, float, shape (n, classes). Labels are doubted where there are some.
        embed: uint8 images → features, of a network that was trained on such images; without
            it no outliers are looked for.
        progress: called with images compared and images in all.

    Raises:
        DataError: the data set cannot be used.
        MissingExtra: there are answers, and cleanlab is not installed.

    >>> images = np.zeros((2, 8, 8, 1), np.uint8)
    >>> data = Dataset(images, [0, 1], ("cat", "dog"), source="example")
    >>> [(twin.a, twin.b, twin.labels) for twin in audit(data).contradictions]
    [(0, 1, ('cat', 'dog'))]
    """
    parts = _parts(data)
    answers = answers or {}
    train = parts["train"]
    return Audit(
        source=train.source,
        class_names=train.class_names,
        counts={name: tuple(part.counts.tolist()) for name, part in parts.items()},
        doubted=tuple(name for name in parts if name in answers),
        compared=embed is not None,
        label_issues=_label_issues(parts, answers),
        duplicates=_duplicates(parts, progress),
        outliers=() if embed is None else _outliers(parts, embed),
        odd=tuple(_odd(parts)),
        broken=tuple(
            Broken(each.path, each.reason) for part in parts.values() for each in part.skipped
        ),
    )


def _parts(data: str | Path | Dataset | Splits | Mapping[str, Dataset]) -> Mapping[str, Dataset]:
    """Return datasets by the names of their splits."""
    if isinstance(data, Mapping):
        return data
    if isinstance(data, Dataset | Splits):
        return dict(as_parts(data).items())
    return dict(load_parts(data, DEFAULTS).items())


def _label_issues(
    parts: Mapping[str, Dataset], answers: Mapping[str, Probabilities]
) -> tuple[LabelIssue, ...]:
    found = [
        LabelIssue(
            split=name,
            index=doubt.row,
            path=_path(part, doubt.row),
            given=part.class_names[doubt.given],
            proposed=part.class_names[doubt.proposed],
            score=round(doubt.score, 6),
        )
        for name, part in parts.items()
        if name in answers
        for doubt in doubted_labels(answers[name], part.labels)
    ]
    return tuple(sorted(found, key=lambda issue: -issue.score))


def _duplicates(parts: Mapping[str, Dataset], progress: Progress | None) -> tuple[Twin, ...]:
    names, sizes = list(parts), [len(part) for part in parts.values()]
    ends = np.cumsum(sizes)

    def place(row: int) -> tuple[str, int, str]:
        number = int(np.searchsorted(ends, row, side="right"))
        name = names[number]
        own = row - int(ends[number]) + sizes[number]
        return name, own, parts[name].class_names[parts[name].labels[own]]

    twins = []
    for pair in find_duplicates(joined([part.images for part in parts.values()]), progress):
        (part_a, a, label_a), (part_b, b, label_b) = place(pair.a), place(pair.b)
        distance = round(pair.distance, 6)
        twins.append(Twin(a, b, distance, (part_a, part_b), (label_a, label_b)))
    return tuple(twins)


def _outliers(parts: Mapping[str, Dataset], embed: Embed) -> tuple[Oddity, ...]:
    reference = embed(parts["train"].images)
    distances = {"train": outliers.unlikeness(reference, reference, same=True)}
    for name in parts.keys() - {"train"}:
        features = embed(parts[name].images)
        distances[name] = outliers.unlikeness(features, reference, same=False)
    # to its network train looks more alike than new images do: val says better what is ordinary
    limit = outliers.fence(distances["val" if "val" in parts else "train"])
    reason = "unlike what is trained on"
    found = [
        _oddity(name, part, int(row), reason, float(distances[name][row]) / limit)
        for name, part in parts.items()
        for row in np.flatnonzero(distances[name] > limit)
    ]
    return tuple(sorted(found, key=lambda each: -each.score))


def _odd(parts: Mapping[str, Dataset]) -> Iterator[Oddity]:
    kinds = (
        (outliers.flat, "nearly one colour: it shows nothing"),
        (outliers.grey_among_coloured, "grey, where nearly all others are coloured"),
    )
    for find, reason in kinds:
        for name, part in parts.items():
            for row in find(part.images):
                yield _oddity(name, part, int(row), reason, 1.0)


def _oddity(name: str, part: Dataset, row: int, reason: str, score: float) -> Oddity:
    given = part.class_names[part.labels[row]]
    return Oddity(name, int(row), _path(part, row), given, reason, round(score, 4))


def _path(part: Dataset, row: int) -> str:
    return part.paths[row] if part.paths else ""
