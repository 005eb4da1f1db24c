"""A model that is being served: opened, checked, warm, and watched for drift."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinylens.inference import drift
from tinylens.inference.classifier import Classifier, PredictOptions
from tinylens.inference.model_file import read_model

RECENT = 1000  # images that a comparison with the reference is made of, and up to twice as many
CONFIDENCE_STEPS = tuple(step / 20 for step in range(1, 20))


@dataclass(eq=False)
class Watch:
    """Counts of what is asked, in the bins of the model's reference.

    Attributes:
        reference: the model's, or None where its file has none.
        confidence: images since the start by confidence, in steps of 0.05.
        total: the sum of their confidences.
    """

    reference: drift.Reference | None
    confidence: list[int] = field(default_factory=lambda: [0] * (len(CONFIDENCE_STEPS) + 1))
    total: float = 0.0
    _older: dict[str, list[int]] = field(default_factory=dict)
    _newer: dict[str, list[int]] = field(default_factory=dict)

    def add(self, images: NDArray[np.uint8], confidence: NDArray[np.float32]) -> None:
        """Count images as the network saw them, uint8 (n, …), and how sure it was, (n,)."""
        _add(self.confidence, drift.count(confidence, CONFIDENCE_STEPS))
        self.total += float(confidence.sum())
        if self.reference is None:
            return
        for name, values in drift.measure(images, confidence).items():
            if name in self.reference.spreads:
                counts = drift.count(values, self.reference.spreads[name].edges)
                _add(self._newer.setdefault(name, [0] * len(counts)), counts)
        if any(sum(counts) >= RECENT for counts in self._newer.values()):
            self._older, self._newer = self._newer, {}

    def recent(self) -> dict[str, list[int]]:
        """Return the counts of the last 1,000 to 2,000 images, by what is watched."""
        found = {name: list(counts) for name, counts in self._older.items()}
        for name, counts in self._newer.items():
            _add(found.setdefault(name, [0] * len(counts)), counts)
        return found


@dataclass(frozen=True, eq=False)
class Hosted:
    """A model that is being served; a swap puts another in its place and never changes one.

    Attributes:
        name: that requests call it by.
        sha256: of the file.
        classifier: that answers.
        watch: what it was asked.
    """

    name: str
    sha256: str
    classifier: Classifier
    watch: Watch

    def requested(self, top: int) -> PredictOptions:
        """Return what to say of an image: what the model was trained to say."""
        return self.classifier.requested(top)


def load(name: str, path: str, shown: str, threads: int) -> Hosted:
    """Open a model, check that it gives its recorded answers, and run it once for a lone image.

    Args:
        name: that requests call it by.
        path: of its file.
        shown: what to call the file in an error.
        threads: of onnxruntime.

    Raises:
        ModelError: the file is damaged, not ours, or does not give its own answers.
    """
    content = read_model(Path(path))
    classifier = Classifier.from_bytes(content, shown, threads=threads)
    classifier.probabilities(np.zeros((1, *classifier.rule.shape), np.uint8))
    sha256 = hashlib.sha256(content).hexdigest()
    return Hosted(name, sha256, classifier, Watch(classifier.card.reference))


def _add(to: list[int], counts: list[int]) -> None:
    for place, number in enumerate(counts):
        to[place] += number
