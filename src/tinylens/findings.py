"""What an audit found, as typed data: the schema of audit.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LabelIssue:
    """A label that is probably wrong.

    Attributes:
        split: the part that the picture is in.
        index: its row in that part, in the order in which the set gives it.
        path: where it came from; empty for one out of an array.
        given: the class that the set says.
        proposed: the class that networks answer which never saw the picture.
        score: how doubtful the label is, 0 to 1: one minus its probability.
    """

    split: str
    index: int
    path: str
    given: str
    proposed: str
    score: float


@dataclass(frozen=True)
class Twin:
    """Two pictures that are one.

    Attributes:
        a: the row of one in its part.
        b: the row of the other in its part.
        distance: 0 for equal pixels; see `tinylens.duplicates.Duplicate`.
        splits: the part of each.
        labels: the class of each.
    """

    a: int
    b: int
    distance: float
    splits: tuple[str, str]
    labels: tuple[str, str]

    @property
    def leaks(self) -> bool:
        """Whether one of the two is judged on, and the other is not."""
        return (self.splits[0] == "test") != (self.splits[1] == "test")


@dataclass(frozen=True)
class Oddity:
    """A picture that is unlike the others.

    Attributes:
        split: the part that it is in.
        index: its row in that part.
        path: where it came from; empty for one out of an array.
        given: its class.
        reason: what is odd about it.
        score: how odd, larger is odder; comparable among those of one reason.
    """

    split: str
    index: int
    path: str
    given: str
    reason: str
    score: float


@dataclass(frozen=True)
class Broken:
    """A file that was set aside, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Audit:
    """What was found in a data set, most suspect first.

    Attributes:
        source: the data set, in words.
        class_names: in the order of the labels.
        counts: pictures of each class, by part.
        doubted: the parts whose labels were looked at.
        compared: whether pictures were compared with each other by what a network sees in them;
            without that there are no outliers.
        label_issues: labels that are probably wrong.
        duplicates: pairs of pictures that are one.
        outliers: pictures unlike any that are trained on.
        odd: pictures that show nothing, or are grey among coloured ones.
        broken: files that were set aside.
    """

    source: str
    class_names: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]
    doubted: tuple[str, ...]
    compared: bool
    label_issues: tuple[LabelIssue, ...]
    duplicates: tuple[Twin, ...]
    outliers: tuple[Oddity, ...]
    odd: tuple[Oddity, ...]
    broken: tuple[Broken, ...]

    @property
    def leaks(self) -> tuple[Twin, ...]:
        """The pairs of which one is judged on and the other is not."""
        return tuple(twin for twin in self.duplicates if twin.leaks)

    @property
    def contradictions(self) -> tuple[Twin, ...]:
        """The pairs whose two labels differ."""
        return tuple(twin for twin in self.duplicates if twin.labels[0] != twin.labels[1])

    @property
    def leaked(self) -> frozenset[int]:
        """The rows of test pictures that occur in train or val too."""
        groups = _groups(self.duplicates)
        return frozenset(
            row
            for group in groups
            if any(part != "test" for part, _ in group)
            for part, row in group
            if part == "test"
        )

    @property
    def suspected(self) -> frozenset[int]:
        """The rows of test pictures whose labels are probably wrong."""
        return frozenset(issue.index for issue in self.label_issues if issue.split == "test")

    def imbalance(self, part: str) -> float:
        """Return how many times as many pictures the largest class has as the smallest.

        Infinite where a class has none.
        """
        fewest, most = min(self.counts[part]), max(self.counts[part])
        return most / fewest if fewest else float("inf")

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers."""
        return asdict(self)

    @staticmethod
    def from_json(tree: Mapping[str, Any]) -> Audit:
        """Return what `to_json` gave, also after a way through JSON."""
        pairs = (
            {**row, "splits": tuple(row["splits"]), "labels": tuple(row["labels"])}
            for row in tree["duplicates"]
        )
        return Audit(
            source=tree["source"],
            class_names=tuple(tree["class_names"]),
            counts={name: tuple(counts) for name, counts in tree["counts"].items()},
            doubted=tuple(tree["doubted"]),
            compared=tree["compared"],
            label_issues=tuple(LabelIssue(**row) for row in tree["label_issues"]),
            duplicates=tuple(Twin(**row) for row in pairs),
            outliers=tuple(Oddity(**row) for row in tree["outliers"]),
            odd=tuple(Oddity(**row) for row in tree["odd"]),
            broken=tuple(Broken(**row) for row in tree["broken"]),
        )


def _groups(twins: Iterable[Twin]) -> list[set[tuple[str, int]]]:
    """Return sets of pictures, as (part, row), that pairs lead from one to the other in."""
    group_of: dict[tuple[str, int], set[tuple[str, int]]] = {}
    for twin in twins:
        a, b = (twin.splits[0], twin.a), (twin.splits[1], twin.b)
        merged = group_of.get(a, {a}) | group_of.get(b, {b})
        group_of |= dict.fromkeys(merged, merged)
    return list({id(group): group for group in group_of.values()}.values())
