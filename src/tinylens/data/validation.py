"""Dataset validation shared by all readers, with actionable error messages."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tinylens.data.dataset import Dataset, Splits
from tinylens.errors import DataError, did_you_mean

LISTED = 5  # of many names; the rest is counted
MEASUREMENTS = 20  # names that are fractions, above which they are no classes

MOST_CLASSES = 2_000  # with them a training of 6,000 tiny images is judged in 40 s
BYTES_A_PAIR = 34  # of classes: 98 MB of evaluation.json and 40 MB of report.html for 2,000

_BLOCK = 1_024  # images compared at a time


def listed(names: Iterable[str]) -> str:
    """Join names for a sentence, truncated.

    >>> listed("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    every = list(names)
    shown = ", ".join(every[:LISTED])
    return shown + (f" and {len(every) - LISTED:,} more" if len(every) > LISTED else "")


# --- names of classes


def check_class_names(names: Sequence[str], source: str) -> None:
    """Reject class names that collide or are measurements.

    Raises:
        DataError: when two names differ in their Unicode form or in case alone, or when there are
            many and all are numbers, most of them fractions.
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(folded(name), name)
        if other != name:
            raise DataError(
                f"{source}: the classes {other!a} and {name!a} differ {_difference(other, name)} "
                "alone; expected names that differ on every system: to join the two give their "
                "images one name, in a folder by moving them into one; else rename one"
            )
    if len(names) > MEASUREMENTS and _are_fractions(names):
        raise DataError(
            f"{source}: the {len(names):,} classes are numbers: {listed(names)}; expected classes, "
            "not measurements: cut these into a few ranges, such as low, middle and high"
        )


def folded(name: str) -> str:
    """Fold case and Unicode form of a name."""
    return unicodedata.normalize("NFC", name).casefold()


def _difference(one: str, other: str) -> str:
    same = unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)
    return "in Unicode form" if same else "in upper and lower case"


def _are_fractions(names: Sequence[str]) -> bool:
    try:
        numbers = [float(name) for name in names]
    except ValueError:
        return False
    finite = [number for number in numbers if math.isfinite(number)]
    return sum(not number.is_integer() for number in finite) > len(names) / 2


def check_same_classes(part: str, found: Iterable[str], train: Sequence[str], source: str) -> None:
    """Reject a split with classes missing from train.

    Raises:
        DataError: naming them, and what they may be meant for.
    """
    extra = sorted(set(found) - set(train))
    if not extra:
        return
    alike = {folded(name): name for name in train}
    meant = [
        f"{name!a} and {alike[folded(name)]!a} of train differ "
        f"{_difference(name, alike[folded(name)])} alone"
        for name in extra
        if folded(name) in alike
    ]
    hint = f" ({listed(meant)})" if meant else did_you_mean(extra[0], train)
    raise DataError(
        f"{source}: {part} has classes that train lacks: {listed(extra)}; train has "
        f"{listed(train)}{hint}; expected the same names: rename or remove them, or add "
        "images of them to train"
    )


# --- names and contents of parts


def check_part_names(root: Path, folders: Mapping[str, bool], known: Mapping[str, str]) -> None:
    """Reject split-like folders with unknown or duplicate split names.

    Args:
        root: Dataset folder.
        folders: Subfolders, with whether they hold folders themselves.
        known: Lowercase split names, mapped to their split.

    Raises:
        DataError: some are no parts, or a part is there twice.
    """
    parts = {name: known[name.lower()] for name in folders if name.lower() in known}
    named = {name for name in folders if set(_words(name)) & set(known)}
    # without a train split that holds folders they may be classes, unless they look like parts
    trained = any(part == "train" and folders[name] for name, part in parts.items())
    all_named = any(folders.values()) and len(named) == len(folders)
    if not trained and not all_named and not (parts and all(folders.values())):
        return
    if not trained and "train" in parts.values():
        empty = next(name for name, part in parts.items() if part == "train")
        beside = listed(sorted(set(folders) - {empty}))
        raise DataError(
            f"{root / empty}: no folders in it, and {beside} beside it; expected a folder of "
            f"images for each class, as in {root.name}/{empty}/CLASS"
        )
    if trained and len(parts) == len(folders) == len(set(parts.values())):
        return
    raise DataError(
        f"{root}: found the folders {listed(sorted(folders))}; expected classes alone, or train, "
        "val and test alone, each once: rename or move the others"
    )


def _words(name: str) -> list[str]:
    """Split a name into words.

    >>> _words("Test_images2")
    ['test', 'images']
    """
    return "".join(each if each.isalpha() else " " for each in name.lower()).split()


def empty_part(source: str, part: str) -> DataError:
    """Return the error for a split without images."""
    return DataError(
        f"{source}: {part} holds no image; expected some: add them, or remove {part}, and a "
        "share of train is set aside for it"
    )


def single_images(source: str, names: Sequence[str], part: str, share: float) -> DataError:
    """Return the error for classes too small to draw a split from."""
    least, way = (
        ("2, and 3 with a val split", f"put what to judge on into a folder {part} beside train")
        if part == "test"
        else ("3 with a test split", "set none aside with --val 0")
    )
    return DataError(
        f"{source}: one image alone of class {listed(names)}, and {share:.0%} of each is to be "
        f"set aside for {part}; expected at least {least}: add images, leave the class out, or "
        f"{way}"
    )


def no_set(path: Path, suffixes: Iterable[str]) -> str:
    """Explain why `path` is no dataset and how to fix it; "" if unknown.

    Args:
        path: File or folder.
        suffixes: Lowercase image suffixes without a dot.
    """
    images = set(suffixes)

    def is_image(file: Path) -> bool:
        return file.is_file() and file.suffix.lower().removeprefix(".") in images

    if is_image(path):
        return "it is one image: give the folder that holds a folder of images for each class; "
    if path.is_file():
        return "it is a file: give the folder that holds a folder of images for each class; "
    entries = list(path.iterdir())
    count = sum(map(is_image, entries))
    if count:
        return (
            f"its {count:,} images lie in no folder of a class: put those of each class into a "
            "folder of its name; "
        )
    return "" if entries else "the folder is empty; "


# --- what cannot be trained on


def check_trainable(splits: Splits) -> None:
    """Reject a readable dataset that cannot be trained on.

    Raises:
        DataError: all images are the same, or there are too many classes to judge.
    """
    if wrong := identical(splits) or _too_many_classes(splits):
        raise DataError(wrong)


def identical(splits: Splits) -> str:
    """Return an error message if all images are identical, else "".

    >>> import numpy as np
    >>> data = Dataset(np.zeros((4, 8, 8, 1), np.uint8), [0, 1] * 2, ("a", "b"), source="x")
    >>> identical(Splits(data, None, data)).partition(";")[0]
    'all 8 images of x are the same'
    """
    first = splits.train.images[:1]
    parts = [part.images for _, part in splits.items()]
    for images in parts:
        for start in range(0, len(images), _BLOCK):  # a set that can be learnt ends in the first
            if (images[start : start + _BLOCK] != first).any():
                return ""
    example = f", such as {splits.train.paths[0]}" if splits.train.paths else ""
    return (
        f"all {sum(map(len, parts)):,} images of {splits.source} are the same{example}; expected "
        "images that differ: look whether they are placeholders of a download that failed"
    )


def remarks(splits: Splits) -> Iterator[str]:
    """Yield remarks on a trainable dataset that affect its metrics."""
    if wrong := identical(splits) or _too_many_classes(splits):
        yield wrong
    for name, part in splits.items():
        if name != "train" and (missing := _without_images(part)):
            what = "is said of how they are told" if name == "test" else "is chosen by them"
            yield f"{name} has no image of {listed(missing)}: nothing {what}; add some to {name}"


def _too_many_classes(splits: Splits) -> str:
    classes = len(splits.class_names)
    if classes <= MOST_CLASSES:
        return ""
    return (
        f"{classes:,} classes: the tables of what is taken for what would come to "
        f"{classes**2 * BYTES_A_PAIR / 1e9:.1f} GB in evaluation.json and report.html; expected at "
        f"most {MOST_CLASSES:,} classes to train on: leave some out, or put together what is alike"
    )


def _without_images(part: Dataset) -> list[str]:
    return [name for name, count in zip(part.class_names, part.counts, strict=True) if not count]
