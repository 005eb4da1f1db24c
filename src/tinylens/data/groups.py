"""Group-aware splitting: images of one group, such as a product, share a split.

A network that has seen one photograph of a shoe recognizes its others, so splitting a group
overstates accuracy on new shoes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinylens.data import kinds
from tinylens.data.dataset import Dataset, Labels
from tinylens.data.encoded import DEFAULTS, Options
from tinylens.data.readers import arrays
from tinylens.data.splits import Parts
from tinylens.errors import DataError, MissingExtra, RecipeError

SHOWN = 3  # groups that an error names

Rows = NDArray[np.int64]


def with_groups(
    parts: Parts, source: str | Path, groups: str, options: Options = DEFAULTS
) -> Parts:
    """Attach a group to every image.

    Args:
        parts: as a reader gave them.
        source: where they came from.
        groups: the name of a column of a table or manifest, of an entry of a WebDataset's .json
            files, or of an array of an .npz file (there with _train, _val or _test behind it where
            x_train and the like are parted); else a pattern (regular expression) whose one
            (bracket) finds the group in an image's path, such as '(sku[0-9]+)'.
        options: how the parts were read.

    Raises:
        DataError: there is no such column or array, an image without a group, or a group in
            several of the parts that were given.
        RecipeError: the pattern cannot be used.
    """
    path = Path(source)
    named: Mapping[str, Sequence[Any]]
    if path.suffix.lower() == ".npz":
        named = arrays.read_groups(path, groups)
    elif parts.train.paths:
        paths = {name: part.paths for name, part in parts.items()}
        named = groups_of(path, groups, paths, options)
    else:
        raise DataError(
            f"{source}: its images have neither names nor columns, so groups {groups!r} cannot "
            "be found; give a folder of images, a table or an .npz file"
        )
    found = {name: _grouped(part, named[name], groups) for name, part in parts.items()}
    _check_apart(found, groups)
    return Parts(found["train"], found.get("val"), found.get("test"), parts.notes)


def groups_of(
    path: Path, groups: str, paths: Mapping[str, Sequence[str]], options: Options = DEFAULTS
) -> dict[str, list[str | None]]:
    """Return the group of each image from its path, by split; see `with_groups`.

    Raises:
        DataError: a table has no such column.
        RecipeError: it is no column and cannot be used as a pattern.
    """
    cells = kinds.find_kind(path).read_column(path, groups, options)
    if cells is not None:
        return {name: [_word(cells.get(row)) for row in rows] for name, rows in paths.items()}
    pattern = _pattern(groups)
    return {name: [_match(pattern, row) for row in rows] for name, rows in paths.items()}


def carve(labels: Labels, groups: Sequence[str], share: float, seed: int) -> tuple[Rows, Rows]:
    """Draw a stratified group split: (rest, part), with about `share` of every class in `part`.

    Takes scikit-learn's stratified group fold whose size is closest to the share.

    Raises:
        DataError: too few groups, or a class would be missing on one side.
        MissingExtra: scikit-learn is not installed.
    """
    count = max(round(1 / share), 2)
    folds = fold_numbers(labels, groups, count, seed)
    sizes = np.bincount(folds, minlength=count)
    chosen = folds == np.abs(sizes - share * len(labels)).argmin()
    on_both_sides = set(labels[chosen].tolist()) & set(labels[~chosen].tolist())
    lacking = set(labels.tolist()) - on_both_sides
    if lacking:
        raise DataError(
            f"{len(lacking)} classes have too few groups for {share:.0%} to be set aside (number "
            f"{', '.join(map(str, sorted(lacking)[:SHOWN]))}); expected at least {count} groups a "
            "class: set less aside, take another seed, or give the parts yourself"
        )
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def fold_numbers(labels: Labels, groups: Sequence[str], count: int, seed: int) -> Rows:
    """Return group-disjoint fold numbers from 0, int64, shape (n,).

    Raises:
        DataError: fewer groups than folds.
        MissingExtra: scikit-learn is not installed.
    """
    try:
        from sklearn.model_selection import StratifiedGroupKFold
    except ImportError:
        raise MissingExtra(
            "groups need scikit-learn, which is not installed; type: pip install 'tinylens[train]'"
        ) from None
    if len(set(groups)) < count:
        raise DataError(
            f"there are {len(set(groups))} groups, and {count} parts are to be made of them; "
            "expected at least one group a part"
        )
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    numbers = np.empty(len(labels), np.int64)
    for number, (_, held_out) in enumerate(folds.split(labels, labels, list(groups))):
        numbers[held_out] = number
    return numbers


def _word(cell: Any) -> str | None:
    return None if cell is None else str(cell)


def _pattern(groups: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(groups)
    except re.error as error:
        raise RecipeError(f"--groups {groups}: no regular expression: {error}") from None
    if pattern.groups != 1:
        raise RecipeError(
            f"--groups {groups}: {pattern.groups} brackets, expected one, around what tells the "
            "group in an image's path, such as '(sku[0-9]+)'; and no column is called so"
        )
    return pattern


def _match(pattern: re.Pattern[str], path: str) -> str | None:
    match = pattern.search(path)
    return match and match.group(1)


def _grouped(part: Dataset, named: Sequence[Any], groups: str) -> Dataset:
    lacking = [row for row, name in enumerate(named) if name is None or name == ""]
    if lacking:
        first = part.paths[lacking[0]] if part.paths else f"row {lacking[0]}"
        raise DataError(
            f"{part.source}: {len(lacking):,} of {len(named):,} images have no group by "
            f"{groups!r}, the first is {first}; expected one each"
        )
    return replace(part, groups=tuple(map(str, named)))


def _check_apart(found: dict[str, Dataset], groups: str) -> None:
    seen: dict[str, str] = {}
    for name, part in found.items():
        both = sorted({group for group in part.groups if seen.get(group, name) != name})
        if both:
            raise DataError(
                f"{part.source}: {len(both):,} groups by {groups!r} are in {name} and in another "
                f"part as well ({', '.join(both[:SHOWN])}), so what is judged on {name} has been "
                "seen before; give one part alone and let tinylens carve, or leave --groups out"
            )
        seen |= dict.fromkeys(part.groups, name)
