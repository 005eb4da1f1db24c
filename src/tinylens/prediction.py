"""What is said of a picture: the likeliest classes, how sure, and whether that is an answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinylens.deciding import Level, SetLevel
from tinylens.doctor import Finding
from tinylens.modelfile import ModelCard
from tinylens.reading import Read

Ranked = tuple[tuple[str, float], ...]  # classes with their probabilities, best first

_STRANGE = "it is unlike what the model was trained on: stranger than {:.1f} % of ordinary pictures"


@dataclass(frozen=True)
class Prediction:
    """The answer for one picture, or why there is none.

    Attributes:
        path: of the file, or None for content and pixels.
        label: the most probable class, or None where the picture could not be read.
        confidence: the probability of `label`, calibrated if the model is.
        top: the most probable classes with their probabilities, best first.
        unknown: whether `label` is not sure enough to be given as an answer, or the picture is too
            unlike those trained on.
        reason: why the answer is unknown, or None.
        label_set: the classes of which the right one is one as often as was asked for, likeliest
            first; empty where nothing was asked for.
        strangeness: share of ordinary pictures, val's, that are less unlike those trained on, 0 to
            1; None where the model does not know.
        error: why there is no answer, or None.
        notes: what to know about the picture, such as that it is animated.
        findings: what is unlike the training pictures about it, and whether that was fixed; None
            where nobody asked. See `tinylens.doctor`.
    """

    path: str | None
    label: str | None = None
    confidence: float | None = None
    top: tuple[tuple[str, float], ...] = ()
    unknown: bool = False
    reason: str | None = None
    label_set: tuple[str, ...] = ()
    strangeness: float | None = None
    error: str | None = None
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the row of `tinylens predict --json`.

        "reason" is in it where the answer is unknown, "set" where a coverage was asked for, and
        "findings" where the input doctor was.
        """
        extra: dict[str, Any] = {"reason": self.reason} if self.unknown else {}
        if self.label_set:
            extra["set"] = list(self.label_set)
        if self.findings is not None:
            extra["findings"] = [finding.to_json() for finding in self.findings]
        return {
            "path": self.path,
            "label": self.label,
            "confidence": self.confidence,
            "top": [{"label": label, "probability": value} for label, value in self.top],
            "unknown": self.unknown,
            "strangeness": self.strangeness,
            "error": self.error,
            **extra,
        }


@dataclass(frozen=True)
class Asked:
    """What an answer is to say, and when it is not to be given.

    Attributes:
        top: how many of the likeliest classes.
        level: below whose confidence the answer is unknown.
        set_level: which classes to name as a set.
        strangest: the strangeness above which the answer is unknown.
    """

    top: int
    level: Level | None
    set_level: SetLevel | None
    strangest: float | None


def tell(
    card: ModelCard,
    pictures: Sequence[Read],
    probabilities: NDArray[np.float32],
    strange: NDArray[np.float32] | None,
    asked: Asked,
) -> Iterator[Prediction]:
    """Yield a prediction a picture, from the answers to those that could be read.

    Args:
        card: of the model that answered.
        pictures: as `tinylens.reading.read` gave them, m of which could be.
        probabilities: shape (m, classes).
        strange: shape (m,), or None where the model does not tell it.
        asked: what to say.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    if asked.set_level is None:
        order = order[:, : max(asked.top, 1)]
    values = np.take_along_axis(probabilities, order, axis=1).tolist()
    strangest = [None] * len(values) if strange is None else strange.tolist()
    rows = zip(order.tolist(), values, strangest, strict=True)
    for picture in pictures:
        if picture.image is None:
            yield Prediction(picture.path, error=picture.error, findings=picture.findings)
            continue
        columns, shares, stranger = next(rows)
        ranked = tuple(zip([card.class_names[at] for at in columns], shares, strict=True))
        yield _told(card, picture, ranked, stranger, asked)


def _told(
    card: ModelCard, picture: Read, ranked: Ranked, strange: float | None, asked: Asked
) -> Prediction:
    label, confidence = ranked[0]
    strangeness = None if strange is None else card.deciding.less_strange(strange)
    reason = _too_unsure(confidence, asked.level)
    if strange is not None and _too_strange(strange, asked.strangest):
        reason = _STRANGE.format(100 * (strangeness or 0.0))
    return Prediction(
        picture.path,
        label,
        confidence,
        ranked[: asked.top],
        unknown=reason is not None,
        reason=reason,
        label_set=() if asked.set_level is None else _label_set(ranked, asked.set_level),
        strangeness=strangeness,
        notes=picture.notes,
        findings=picture.findings,
    )


def _too_unsure(confidence: float, level: Level | None) -> str | None:
    if level is None or confidence >= level.threshold:
        return None
    return (
        f"its confidence is under {level.threshold:.3f}, from which on at most "
        f"{100 * level.max_error:g} % of answers are wrong"
    )


def _too_strange(strangeness: float, limit: float | None) -> bool:
    # also what is not a number, as infinite logits would give
    return limit is not None and not strangeness <= limit


def _label_set(ranked: Ranked, level: SetLevel) -> tuple[str, ...]:
    inside = [label for label, probability in ranked if probability >= level.threshold]
    return tuple(inside or [ranked[0][0]])
