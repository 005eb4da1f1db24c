"""audit.html: what was found, and a page to go through it, image by image, by key or click."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tinylens.data.corrections import COLUMNS, image_mark
from tinylens.data.dataset import Dataset
from tinylens.reporting.document import document
from tinylens.results import Audit, LabelIssue, Oddity, Twin

Found = TypeVar("Found")

SHOWN = 300  # of each kind: at 32×32 pixels in colour the page stays under 5 MB


@dataclass(frozen=True, eq=False)
class Shown:
    """An image on the page.

    Attributes:
        image: uint8, shape (height, width, channels).
        caption: where it is, in words.
        label: its class.
    """

    image: NDArray[np.uint8]
    caption: str
    label: str


@dataclass(frozen=True, eq=False)
class Card:
    """An image to decide about; the attributes up to `given` go into fixes.csv.

    Attributes:
        proposed: the class to change to, or "".
        advice: "change", "drop" or "keep".
        why: what is wrong with it, in words.
        images: it, and the one that it is compared with.
    """

    split: str
    index: int
    image: str
    path: str
    given: str
    proposed: str
    advice: str
    why: str
    images: tuple[Shown, ...]


@dataclass(frozen=True, eq=False)
class Deck:
    """Cards of one kind; `count` were found, and as many as there is room for are shown."""

    name: str
    title: str
    about: str
    count: int
    cards: tuple[Card, ...]


def render(audit: Audit, parts: Mapping[str, Dataset]) -> str:
    """Return the page as HTML.

    Args:
        audit: what was found.
        parts: the data set that was audited.
    """
    return document(
        "audit.html.jinja",
        ("report.js", "audit.js"),
        audit=audit,
        decks=[deck for deck in _decks(audit, parts) if deck.count],
        columns=",".join(COLUMNS),
        name=f"{audit.source}:{parts['train'].fingerprint[:12]}",
    )


def _decks(audit: Audit, parts: Mapping[str, Dataset]) -> Iterator[Deck]:
    repeated = [twin for twin in audit.duplicates if not twin.leaks]
    yield _deck(
        "leaks",
        "Test images that are trained on",
        "Each flatters the figure. Dropped from train, the test split stays what it was.",
        audit.leaks,
        lambda twin: _twin_card(twin, parts),
    )
    yield _deck(
        "labels",
        "Labels that are probably wrong",
        "Networks that never saw the image answer another class, and are sure of it.",
        audit.label_issues,
        lambda issue: _label_card(issue, parts),
    )
    yield _deck(
        "repeats",
        "Images that occur twice",
        "Within one part they count twice; with two labels, one of these is wrong.",
        sorted(repeated, key=lambda twin: (twin.labels[0] == twin.labels[1], twin.distance)),
        lambda twin: _twin_card(twin, parts),
    )
    yield _deck(
        "outliers",
        "Images unlike all others",
        "Rare ones worth more of their kind, or ones that do not belong here.",
        audit.outliers,
        lambda oddity: _odd_card(oddity, parts),
    )
    yield _deck(
        "odd",
        "Odd images",
        "There is nothing in them to learn from, or something else is wrong with them.",
        audit.odd,
        lambda oddity: _odd_card(oddity, parts),
    )


def _deck(
    name: str, title: str, about: str, found: Sequence[Found], card: Callable[[Found], Card]
) -> Deck:
    return Deck(name, title, about, len(found), tuple(card(each) for each in found[:SHOWN]))


def _label_card(issue: LabelIssue, parts: Mapping[str, Dataset]) -> Card:
    return Card(
        **_place(issue.split, issue.index, parts),
        proposed=issue.proposed,
        advice="change",
        why=f"{issue.given} has a probability of {1 - issue.score:.3f}",
        images=(_shown(issue.split, issue.index, parts),),
    )


def _twin_card(twin: Twin, parts: Mapping[str, Dataset]) -> Card:
    """Return a card about the image of a pair that is not in test, or else about the second."""
    a, b = (twin.splits[0], twin.a), (twin.splits[1], twin.b)
    own, other = (a, b) if b[0] == "test" and a[0] != "test" else (b, a)
    alike = (
        "equal to the last bit" if twin.distance == 0 else f"alike, distance {twin.distance:.4f}"
    )
    contradicts = "" if twin.labels[0] == twin.labels[1] else ", and labelled otherwise"
    return Card(
        **_place(*own, parts),
        proposed="",
        advice="drop",
        why=f"{alike}{contradicts}",
        images=(_shown(*own, parts), _shown(*other, parts)),
    )


def _odd_card(oddity: Oddity, parts: Mapping[str, Dataset]) -> Card:
    return Card(
        **_place(oddity.split, oddity.index, parts),
        proposed="",
        advice="keep",
        why=oddity.reason,
        images=(_shown(oddity.split, oddity.index, parts),),
    )


def _place(split: str, index: int, parts: Mapping[str, Dataset]) -> dict[str, Any]:
    part = parts[split]
    return {
        "split": split,
        "index": index,
        "image": image_mark(part.images[index]),
        "path": part.paths[index] if part.paths else "",
        "given": part.class_names[part.labels[index]],
    }


def _shown(split: str, index: int, parts: Mapping[str, Dataset]) -> Shown:
    part = parts[split]
    label = part.class_names[part.labels[index]]
    return Shown(np.asarray(part.images[index]), f"{split} {index:,}", label)
