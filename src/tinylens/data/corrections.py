"""Label corrections: read, write and apply fixes.csv."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinylens import files
from tinylens.data.dataset import Dataset, Splits
from tinylens.data.encoded import Options
from tinylens.data.groups import with_groups
from tinylens.data.load import aspect_of, load_parts
from tinylens.data.readers import arrays
from tinylens.data.splits import Columns, Parts, Progress, as_parts
from tinylens.errors import DataError, RecipeError

ACTIONS = ("keep", "change", "drop")
COLUMNS = ("split", "index", "image", "path", "given", "action", "label")


@dataclass(frozen=True)
class Fix:
    """Correction of one image.

    Attributes:
        split: Split name.
        index: Row in the split.
        image: Pixel hash, `image_mark`.
        given: Current class.
        action: "keep", "change" or "drop".
        label: New class for "change".
        path: Source path, informational only.
    """

    split: str
    index: int
    image: str
    given: str
    action: str
    label: str
    path: str = ""


@dataclass(frozen=True, eq=False)
class Corrected:
    """A data set with fixes made.

    Attributes:
        parts: the corrected splits.
        fixes: how many rows of fixes.csv were applied.
        before: the number of images per split as the set was given.
        after: the number of images per split now.
    """

    parts: Parts
    fixes: int
    before: dict[str, int]
    after: dict[str, int]

    @property
    def data(self) -> Dataset | Splits:
        """A Dataset where there is one split, Splits where there is a test split.

        Raises:
            DataError: there is a val split but no test split; write it to a file and load that.
        """
        return self.parts.published()


def apply_fixes(  # noqa: PLR0913 - what there is to say of a data set
    data: str | Path | Dataset | Splits,
    fixes: str | Path | Sequence[Fix],
    out: str | Path | None = None,
    *,
    size: int | None = None,
    aspect: str = "auto",
    groups: str = "",
    image_column: str = "",
    label_column: str = "",
    data_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> Corrected:
    """Change labels and drop images as fixes.csv says, in a copy of the data set.

    Args:
        data: a known set's name or a path, as for `tinylens.load`, or what is in memory already;
            the set that was audited.
        fixes: the fixes.csv that the page of an audit saved, or its rows.
        out: an .npz file to write the corrected set to; None writes none.
        size: as the set was audited.
        aspect: as for `tinylens.load`.
        groups: as for `tinylens.load`; kept as the array "groups".
        image_column: as for `tinylens.load`.
        label_column: as for `tinylens.load`.
        data_dir: as for `tinylens.load`.
        progress: called with steps done and steps in all while images are decoded.

    Raises:
        DataError: the set or fixes.csv cannot be read, or a fix is about another image or class
            than is in its row.
        RecipeError: `out` is no .npz file, or `size` or `aspect` is impossible.

    >>> images = np.zeros((2, 8, 8, 1), np.uint8)
    >>> given = Dataset(images, [0, 1], ("cat", "dog"), source="example")
    >>> fix = Fix("train", 1, image_mark(images[1]), "dog", "change", "cat")
    >>> apply_fixes(given, [fix]).data.labels.tolist()
    [0, 0]
    """
    target = None if out is None else Path(out)
    if target is not None and target.suffix != ".npz":
        raise RecipeError(
            f"--out {target}: expected a file .npz, such as {target.with_suffix('.npz')}"
        )
    decided = read(fixes) if isinstance(fixes, str | Path) else tuple(fixes)
    if isinstance(data, Dataset | Splits):
        given = as_parts(data)
    else:
        options = Options(
            size=size,
            aspect=aspect_of(aspect),
            data_dir=None if data_dir is None else Path(data_dir),
            progress=progress,
            columns=Columns(image_column, label_column),
        )
        given = load_parts(data, options)
        if groups:
            given = with_groups(given, data, groups, options)
    corrected = apply(given, decided)
    if target is not None:
        arrays.write_parts(target, corrected)
    before, after = (
        {name: len(part) for name, part in each.items()} for each in (given, corrected)
    )
    return Corrected(corrected, len(decided), before, after)


def image_mark(image: NDArray[np.uint8]) -> str:
    """Return a 16-digit hexadecimal pixel hash.

    >>> image_mark(np.zeros((2, 2, 1), np.uint8))
    '4e842f2f50cc089e'
    """
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8).hexdigest()


def read(path: str | Path) -> tuple[Fix, ...]:
    """Read a fixes.csv.

    Raises:
        DataError: naming file and line, where it cannot be read or understood.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8 text; expected a fixes.csv") from None
    reader = csv.DictReader(io.StringIO(text))
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise DataError(
            f"{path}: has no column {', '.join(missing)}; expected {', '.join(COLUMNS)}, as the "
            "page of `tinylens audit` writes them"
        )
    return tuple(_fix(path, number, row) for number, row in enumerate(reader, start=2))


def write(path: Path, fixes: tuple[Fix, ...]) -> None:
    """Write a fixes.csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: getattr(fix, name) for name in COLUMNS} for fix in fixes)
    files.write_text(path, text.getvalue())


def apply(parts: Parts, fixes: tuple[Fix, ...]) -> Parts:
    """Apply fixes to the splits.

    Raises:
        DataError: a fix is about another image or class than stands at its row, names a class
            that the set does not have, or two fixes of one image differ.
    """
    given = dict(parts.items())
    changed = {name: part.labels.copy() for name, part in given.items()}
    kept = {name: np.ones(len(part), bool) for name, part in given.items()}
    for fix in _agreed(fixes):
        part = _checked(fix, given, parts.train.source)
        if fix.action == "drop":
            kept[fix.split][fix.index] = False
        elif fix.action == "change":
            changed[fix.split][fix.index] = part.class_names.index(fix.label)
    corrected = {
        name: replace(
            replace(part, labels=changed[name]).subset(np.flatnonzero(kept[name])),
            skipped=part.skipped,
        )
        for name, part in given.items()
    }
    note = _note(fixes)
    return Parts(
        corrected["train"], corrected.get("val"), corrected.get("test"), (*parts.notes, note)
    )


def _fix(path: Path, number: int, row: Mapping[str, str | None]) -> Fix:
    where = f"{path}, line {number}"
    values = {name: (row[name] or "").strip() for name in COLUMNS}
    if values["action"] not in ACTIONS:
        raise DataError(f"{where}: action {values['action']!r}, expected {', '.join(ACTIONS)}")
    if not values["index"].isdecimal():
        raise DataError(f"{where}: index {values['index']!r}, expected a row's number from 0")
    if values["action"] == "change" and not values["label"]:
        raise DataError(f"{where}: says change, but names no label to change to")
    index = int(values.pop("index"))
    return Fix(index=index, **values)


def _agreed(fixes: tuple[Fix, ...]) -> list[Fix]:
    """Return one fix per image."""
    by_place: dict[tuple[str, int], Fix] = {}
    for fix in fixes:
        before = by_place.setdefault((fix.split, fix.index), fix)
        if (before.action, before.label) != (fix.action, fix.label):
            raise DataError(
                f"two fixes of {fix.split} {fix.index} differ: {before.action} {before.label} and "
                f"{fix.action} {fix.label}; leave one of them"
            )
    return list(by_place.values())


def _checked(fix: Fix, given: Mapping[str, Dataset], source: str) -> Dataset:
    """Return the split of a fix after checking its image and class."""
    place = f"{fix.split} {fix.index}"
    if fix.split not in given or fix.index >= len(given[fix.split]):
        sizes = ", ".join(f"{name} of {len(part):,}" for name, part in given.items())
        raise DataError(f"{source} has no {place}, which a fix is about; it has {sizes}")
    part = given[fix.split]
    label = part.class_names[part.labels[fix.index]]
    if label != fix.given or image_mark(part.images[fix.index]) != fix.image:
        raise DataError(
            f"{source}: {place} is another image or of another class ({label}) than the fix is "
            f"about ({fix.given}); apply fixes to the set that was audited, before other changes"
        )
    if fix.action == "change" and fix.label not in part.class_names:
        raise DataError(
            f"the fix of {place} names the class {fix.label!r}; {source} has "
            f"{', '.join(part.class_names)}"
        )
    return part


def _note(fixes: tuple[Fix, ...]) -> str:
    counts = {action: sum(fix.action == action for fix in _agreed(fixes)) for action in ACTIONS}
    return (
        f"corrected by hand: {counts['change']:,} labels changed, {counts['drop']:,} images "
        f"dropped, {counts['keep']:,} looked at and kept"
    )
