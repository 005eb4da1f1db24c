"""Why pictures were answered as they were, as typed data: the schema of explanations.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinylens.findings import Broken
from tinylens.heatmaps import Heatmaps


@dataclass(frozen=True, eq=False)
class Neighbour:
    """A training picture near to one that is explained.

    Attributes:
        index: its row in train.
        label: its class.
        distance: between the directions of their features, from 0 to 2.
        image: uint8, shape (height, width, channels).
    """

    index: int
    label: str
    distance: float
    image: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Heat:
    """Where a picture speaks for a class.

    Attributes:
        class_name: the class that was asked about.
        probability: what the classifier gives to it.
        largest: the map's largest value before it was scaled. Of occlusion it is in nats, and says
            how much a place can matter; of Grad-CAM it is 1, or 0 where nothing speaks for it.
        map: float32, shape (height, width), its largest value 1, or all 0.
    """

    class_name: str
    probability: float
    largest: float
    map: Heatmaps


@dataclass(frozen=True, eq=False)
class Explained:
    """A picture, and why it was answered so.

    Attributes:
        image: as the network sees it, uint8, shape (height, width, channels).
        index: its row in the test part; None for one that was named by its path.
        path: where it came from; empty for one out of an array.
        label: its class, where that is known.
        answer: the most probable class.
        confidence: the probability of `answer`.
        heats: one a class that was asked about.
        neighbours: the nearest training pictures, the nearest first.
    """

    image: NDArray[np.uint8]
    index: int | None
    path: str
    label: str | None
    answer: str
    confidence: float
    heats: tuple[Heat, ...]
    neighbours: tuple[Neighbour, ...]

    @property
    def name(self) -> str:
        """What it is called: its row in test, or its path."""
        return self.path if self.index is None else f"test {self.index:,}"

    def to_json(self) -> dict[str, Any]:
        """Return plain values; maps and pictures are left out."""
        return {
            "index": self.index,
            "path": self.path,
            "label": self.label,
            "answer": self.answer,
            "confidence": round(self.confidence, 6),
            "asked": [
                {
                    "class": heat.class_name,
                    "probability": round(heat.probability, 6),
                    "largest": round(heat.largest, 6),
                }
                for heat in self.heats
            ],
            "nearest": [
                {"index": each.index, "label": each.label, "distance": round(each.distance, 6)}
                for each in self.neighbours
            ],
        }


@dataclass(frozen=True, eq=False)
class Sheet:
    """Explained pictures that belong together.

    Attributes:
        title: what they share.
        count: how many there are; those in `pictures` are the most confident of them.
        pictures: the explained ones.
    """

    title: str
    count: int
    pictures: tuple[Explained, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        pictures = [each.to_json() for each in self.pictures]
        return {"title": self.title, "count": self.count, "pictures": pictures}


@dataclass(frozen=True, eq=False)
class Explanations:
    """What was explained, and how.

    Attributes:
        source: the run or the model file, in words.
        method: "grad-cam" or "occlusion".
        sheets: a confused pair each, the most frequent first; or pictures that were named.
        places: height and width of the maps that Grad-CAM adds up; None of occlusion.
        mistakes: on the test part in all; None where pictures were named.
        broken: pictures that could not be read.
        caution: why the maps may mislead; empty where they do not.
    """

    source: str
    method: str
    sheets: tuple[Sheet, ...]
    places: tuple[int, int] | None = None
    mistakes: int | None = None
    broken: tuple[Broken, ...] = ()
    caution: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers: what explanations.json holds."""
        return {
            "source": self.source,
            "method": self.method,
            "places": self.places,
            "mistakes": self.mistakes,
            "caution": self.caution,
            "sheets": [sheet.to_json() for sheet in self.sheets],
            "broken": [{"path": each.path, "reason": each.reason} for each in self.broken],
        }

    def maps(self) -> dict[str, Heatmaps]:
        """Return the maps of each sheet by "0", "1" …, float32 (pictures, asked, height, width)."""
        return {
            str(number): np.stack([[heat.map for heat in each.heats] for each in sheet.pictures])
            for number, sheet in enumerate(self.sheets)
        }
