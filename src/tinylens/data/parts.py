"""What a reader found: the parts of a data set as they were given, before any is carved out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tinylens.data.dataset import Dataset, Splits
from tinylens.errors import DataError

Progress = Callable[[int, int], None]  # called with pictures done and pictures in all

PART_NAMES = {  # the names that folders and files give the parts
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of a data set as they were given.

    Attributes:
        train: always there; everything, when nothing was said about parts.
        val: None when none was given.
        test: None when none was given.
        notes: what the reader of the figures must know, a sentence each.
    """

    train: Dataset
    val: Dataset | None = None
    test: Dataset | None = None
    notes: tuple[str, ...] = ()

    def items(self) -> Iterator[tuple[str, Dataset]]:
        """Yield (name, part) for the parts that were given."""
        for name, part in (("train", self.train), ("val", self.val), ("test", self.test)):
            if part is not None:
                yield name, part

    def published(self) -> Dataset | Splits:
        """Return a Dataset where there is one part, Splits where there is a test part.

        Raises:
            DataError: when there is a val part but no test part; `tinylens.load` carves one.
        """
        if self.test is not None:
            return Splits(self.train, self.val, self.test, self.notes)
        if self.val is not None:
            raise DataError(
                f"{self.train.source}: found train and val but no test part; read it with "
                "tinylens.load, which carves one out, or add a test part"
            )
        return self.train


def parts_of(found: Mapping[str, Dataset], source: str, notes: Sequence[str] = ()) -> Parts:
    """Return what was found by part name as Parts.

    Raises:
        DataError: when there is no train part.
    """
    if "train" not in found:
        raise DataError(
            f"{source}: found the parts {', '.join(sorted(found)) or 'none'} but no train part; "
            "expected train, and val and test where there are any"
        )
    return Parts(found["train"], found.get("val"), found.get("test"), tuple(notes))


def numbered_names(highest: int) -> tuple[str, ...]:
    """Return "0", "1", … for a set whose labels have no names.

    >>> numbered_names(2)
    ('0', '1', '2')
    """
    return tuple(str(number) for number in range(highest + 1))
