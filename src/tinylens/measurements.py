"""What is measured on a finished run: the schemas of robustness.json and learning_curve.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tinylens.scores import Score


@dataclass(frozen=True)
class Robustness:
    """Accuracy on changed test pictures, each with its 95 % interval.

    Attributes:
        pictures: how many were changed.
        clean: accuracy on them as they are.
        corruptions: by name, the accuracy at strengths 1 to 5.
        mean_corruption_error: the mean error over all of them; not divided by AlexNet's, as it is
            for ImageNet-C, so it is a share of pictures.
        shifts: by pixels, the mean accuracy over eight directions.
        turns: by degrees, over both sides.
        mirrored: accuracy on mirror images.
        jpeg: by quality.
    """

    pictures: int
    clean: Score
    corruptions: Mapping[str, tuple[Score, ...]]
    mean_corruption_error: Score
    shifts: Mapping[int, Score]
    turns: Mapping[int, Score]
    mirrored: Score
    jpeg: Mapping[int, Score]

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers."""
        return asdict(self)

    @staticmethod
    def from_json(tree: Mapping[str, Any]) -> Robustness:
        """Return what `to_json` gave, also after a way through JSON."""

        def by_number(part: Mapping[str, Any]) -> dict[int, Score]:
            return {int(number): Score.from_json(score) for number, score in part.items()}

        return Robustness(
            pictures=tree["pictures"],
            clean=Score.from_json(tree["clean"]),
            corruptions={
                name: tuple(map(Score.from_json, scores))
                for name, scores in tree["corruptions"].items()
            },
            mean_corruption_error=Score.from_json(tree["mean_corruption_error"]),
            shifts=by_number(tree["shifts"]),
            turns=by_number(tree["turns"]),
            mirrored=Score.from_json(tree["mirrored"]),
            jpeg=by_number(tree["jpeg"]),
        )


@dataclass(frozen=True)
class CurvePoint:
    """The error of networks trained on so many pictures.

    Attributes:
        pictures: trained on.
        epochs: passes over them.
        error: the mean over seeds, on val.
        by_seed: the error of each seed.
    """

    pictures: int
    epochs: float
    error: Score
    by_seed: tuple[float, ...]


@dataclass(frozen=True)
class FittedPoint:
    """The error that the fitted power laws expect of so many pictures."""

    pictures: int
    error: Score


@dataclass(frozen=True)
class LearningCurve:
    """How the error falls with the number of training pictures, and what more would give.

    Attributes:
        recipe: what was trained, for few epochs.
        judged: pictures of val, on which all was judged.
        points: what was measured, by rising numbers of pictures.
        fitted: the power laws, from the fewest pictures to twice the most.
        doubled: what twice the pictures, trained √2 times as long, would add to the accuracy; not
            defined where the errors do not lie on a power law.
        words: that in a sentence.
    """

    recipe: str
    judged: int
    points: tuple[CurvePoint, ...]
    fitted: tuple[FittedPoint, ...]
    doubled: Score
    words: str

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers."""
        return asdict(self)

    @staticmethod
    def from_json(tree: Mapping[str, Any]) -> LearningCurve:
        """Return what `to_json` gave, also after a way through JSON."""
        points = (
            {**row, "error": Score.from_json(row["error"]), "by_seed": tuple(row["by_seed"])}
            for row in tree["points"]
        )
        fitted = ({**row, "error": Score.from_json(row["error"])} for row in tree["fitted"])
        return LearningCurve(
            recipe=tree["recipe"],
            judged=tree["judged"],
            points=tuple(CurvePoint(**row) for row in points),
            fitted=tuple(FittedPoint(**row) for row in fitted),
            doubled=Score.from_json(tree["doubled"]),
            words=tree["words"],
        )
