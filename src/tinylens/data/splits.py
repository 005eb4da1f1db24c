"""Dataset splits as stored, and helpers shared by the readers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tinylens.data.dataset import Dataset, Splits
from tinylens.data.validation import check_class_names
from tinylens.errors import DataError

Progress = Callable[[int, int], None]  # called with images done and images in all

SPLIT_NAMES = {  # the names that folders and files give the parts
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
CLASS_NAME_FILES = frozenset({"classnames.txt", "classes.txt"})  # a class a line, by number


@dataclass(frozen=True)
class Columns:
    """Column names of a table or manifest; "" for detection by usual names.

    Attributes:
        image: Image or path column.
        label: Label column.
    """

    image: str = ""
    label: str = ""


GUESSED = Columns()


@dataclass(frozen=True, eq=False)
class Parts:
    """Splits of a dataset as stored.

    Attributes:
        train: Training split; all images if there are no splits.
        val: Validation split, or None.
        test: Test split, or None.
        notes: Remarks that affect metrics, one sentence each.
    """

    train: Dataset
    val: Dataset | None = None
    test: Dataset | None = None
    notes: tuple[str, ...] = ()

    def items(self) -> Iterator[tuple[str, Dataset]]:
        """Yield (name, split) for the splits present."""
        for name, part in (("train", self.train), ("val", self.val), ("test", self.test)):
            if part is not None:
                yield name, part

    def published(self) -> Dataset | Splits:
        """Return a Dataset if there is only train, Splits if there is a test split.

        Raises:
            DataError: when there is a val split but no test split; `tinylens.load` carves one.
        """
        if self.test is not None:
            return Splits(self.train, self.val, self.test, self.notes)
        if self.val is not None:
            raise DataError(
                f"{self.train.source}: found train and val but no test split; read it with "
                "tinylens.load, which carves one out, or add a test split"
            )
        return self.train


def as_parts(data: Dataset | Splits) -> Parts:
    """Return the parts of a data set that is in memory; a `Dataset` is all train."""
    if isinstance(data, Dataset):
        return Parts(data)
    return Parts(data.train, data.val, data.test, data.notes)


def parts_of(found: Mapping[str, Dataset], source: str, notes: Sequence[str] = ()) -> Parts:
    """Build `Parts` from datasets by split name.

    Raises:
        DataError: when there is no train split.
    """
    if "train" not in found:
        raise DataError(
            f"{source}: found the parts {', '.join(sorted(found)) or 'none'} but no train split; "
            "expected train, and val and test where there are any"
        )
    return Parts(found["train"], found.get("val"), found.get("test"), tuple(notes))


def numbered_names(highest: int) -> tuple[str, ...]:
    """Return "0", "1", … for a set whose labels have no names.

    >>> numbered_names(2)
    ('0', '1', '2')
    """
    return tuple(str(number) for number in range(highest + 1))


def ordered_names(names: Iterable[str]) -> tuple[str, ...]:
    """Sort class names into their default label order.

    Integers sort by value, all else by code point.

    >>> ordered_names({"10", "9"}), ordered_names({"b", "a", "Z"})
    (('9', '10'), ('Z', 'a', 'b'))
    """
    words = list(names)
    if all(word.isdecimal() for word in words):
        return tuple(sorted(words, key=lambda word: (int(word), word)))
    return tuple(sorted(words))


def inner_path(name: str, where: str) -> str:
    r"""Normalize a name from an archive or manifest to a relative path with "/".

    Raises:
        DataError: it is absolute, leads out of the folder, or is none; reading stops there, since
            whoever wrote it means harm or other images than these.

    >>> inner_path(".\\cat\\1.png", "pets.zip")
    'cat/1.png'
    """
    path = name.replace("\\", "/")
    steps = [step for step in path.split("/") if step not in ("", ".")]
    if path.startswith("/") or path[1:3] == ":/" or ".." in steps or not steps or "\0" in path:
        raise DataError(
            f"{where}: {name!a} leads out of the folder that it stands in; expected paths within "
            "it, such as cat/1.png: put the images beneath it and name them from there"
        )
    return "/".join(steps)


def parse_class_names(where: str, content: bytes) -> tuple[str, ...]:
    r"""Parse a classnames.txt, one class per line.

    Raises:
        DataError: it is no text, or holds no line or the same one twice.

    >>> parse_class_names("classnames.txt", b"small\nlarge\n")
    ('small', 'large')
    """
    try:
        names = content.decode("utf-8-sig").replace("\r\n", "\n").rstrip("\n").split("\n")
    except UnicodeDecodeError:
        raise DataError(f"{where}: is not UTF-8 text; expected a class name a line") from None
    if "" in names or len(set(names)) < len(names):
        raise DataError(f"{where}: holds an empty line, or a name twice; expected a class a line")
    check_class_names(names, where)
    return tuple(names)


def shown(name: str) -> str:
    r"""Escape the unprintable characters of a name.

    >>> shown("new\nline")
    'new\\nline'
    """
    if name.isprintable():
        return name
    escape = "unicode_escape"
    return "".join(c if c.isprintable() else c.encode(escape).decode("ascii") for c in name)
