"""Dataset loading, splitting and reopening for a run."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinylens.data import kinds
from tinylens.data.builtin import CIFAR10, CIFAR100, FASHION_MNIST, MNIST, read_known, usual_places
from tinylens.data.cache import changed, gathered
from tinylens.data.dataset import Dataset, Gather, Images, Splits, stratified_split
from tinylens.data.encoded import Options
from tinylens.data.groups import carve, with_groups
from tinylens.data.images import ImageRule, convert, rule_of
from tinylens.data.readers.synthetic import shapes
from tinylens.data.resize_policy import ASPECTS, AspectWanted, brought_to
from tinylens.data.splits import Columns, Parts, Progress
from tinylens.data.validation import remarks, single_images
from tinylens.errors import DataError, RecipeError, did_you_mean
from tinylens.recipe import DataSection
from tinylens.run import Run

_KNOWN = {each.name: each for each in (FASHION_MNIST, MNIST, CIFAR10, CIFAR100)}
KNOWN_NAMES = (*_KNOWN, "shapes")

Rows = NDArray[np.int64]


def load(  # noqa: PLR0913 - what there is to say of a data set
    source: str | Path,
    *,
    val: float = 0.1,
    test: float = 0.15,
    split_seed: int = 0,
    size: int | None = None,
    aspect: str = "auto",
    rule: ImageRule | None = None,
    groups: str = "",
    image_column: str = "",
    label_column: str = "",
    strict: bool = False,
    data_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> Splits:
    """Load a dataset with train, val and test splits.

    Existing splits are kept. A missing test split, then a missing val split, is drawn from train,
    stratified by class.

    Args:
        source: fashion-mnist, mnist, cifar10, cifar100 or shapes; or the path of a folder of
            images or a .zip or .tar of it, a .csv that lists images, a parquet file, a Hugging
            Face folder, WebDataset shards, a CIFAR archive or folder, a folder of IDX files, an
            .npz file, or a folder of .npy files.
        val: Validation share of train; 0 for no validation split.
        test: Test share.
        split_seed: Random seed of the splits.
        size: Output side in pixels; None keeps the images' own, or chooses one if they differ;
            see `tinylens.data.resize_policy`.
        aspect: Resize mode for other aspect ratios: "stretch", "pad" or "crop"; "auto" pads a
            folder of mixed aspect ratios and stretches otherwise.
        rule: Full preprocessing rule, such as a model's; overrides `size` and `aspect`.
        groups: Column, array or pattern that names each image's group; a group never spans
            splits; see `tinylens.data.groups`.
        image_column: Image column of a table or manifest, if its name is unusual.
        label_column: Label column, likewise.
        strict: Raise on unreadable images instead of skipping them.
        data_dir: Folder to search first and to store files in; None for the user's cache.
        progress: Callback of (steps done, total steps) during decoding.

    Raises:
        DataError: when the source cannot be used; says why and what was expected.
        RecipeError: when `val`, `test`, `size` or `aspect` is impossible.

    >>> splits = load("shapes", size=16)
    >>> [(name, len(part)) for name, part in splits.items()]
    [('train', 4500), ('val', 500), ('test', 1000)]
    """
    _check_shares(val, test)
    folder = None if data_dir is None else Path(data_dir)
    columns = Columns(image_column, label_column)
    options = Options(size, aspect_of(aspect), rule, strict, folder, progress, columns=columns)
    parts = load_parts(source, options)
    if groups:
        parts = with_groups(parts, source, groups, options)
    return _carved(parts, val, test, split_seed, partial(gathered, data_dir=folder))


def load_by(
    section: DataSection,
    source: str | Path,
    *,
    rule: ImageRule | None = None,
    strict: bool = False,
    data_dir: Path | None = None,
    progress: Progress | None = None,
) -> Splits:
    """Load a dataset with the splits of a recipe.

    Args:
        section: Data section of the recipe.
        source: as for `load`.
        rule: Preprocessing rule, such as a model's; overrides the recipe.
        strict: as for `load`.
        data_dir: as for `load`.
        progress: as for `load`.

    Raises:
        DataError: as `load` does.
        RecipeError: as `load` does.
    """
    return load(
        source,
        val=section.val,
        test=section.test,
        split_seed=section.split_seed,
        size=section.size,
        aspect=section.aspect,
        rule=rule,
        groups=section.groups,
        image_column=section.image_column,
        label_column=section.label_column,
        strict=strict,
        data_dir=data_dir,
        progress=progress,
    )


def load_parts(source: str | Path, options: Options) -> Parts:
    """Load the stored splits without drawing new ones; see `load`.

    Raises:
        DataError: when the source cannot be used; says why and what was expected.
        RecipeError: when the size is impossible.
    """
    _check_size(options.size)
    return _resized(_read(source, options), options)


def _check_shares(val: float, test: float) -> None:
    if not 0 <= val < 1:
        raise RecipeError(f"val is {val}, expected a share from 0 to under 1, such as 0.1")
    if not 0 < test < 1:
        raise RecipeError(f"test is {test}, expected a share over 0 and under 1, such as 0.15")


def _check_size(size: int | None) -> None:
    if size is not None and not 1 <= size <= 4096:
        raise RecipeError(f"size is {size}, expected a side from 1 to 4096 pixels, such as 32")


def aspect_of(given: str) -> AspectWanted:
    """Validate a resize mode against `ASPECTS`.

    Raises:
        RecipeError: it is none of them.
    """
    for known_one in ASPECTS:
        if given == known_one:
            return known_one
    raise RecipeError(
        f"aspect is {given!r}, expected one of {', '.join(ASPECTS)}{did_you_mean(given, ASPECTS)}"
    )


def _read(source: str | Path, options: Options) -> Parts:
    if isinstance(source, str) and source in _KNOWN:
        return read_known(_KNOWN[source], usual_places(options.data_dir))
    if source == "shapes":
        drawn = shapes()
        return Parts(drawn.train, None, drawn.test)
    return read_path(Path(source), options)


def read_path(path: Path, options: Options) -> Parts:
    """Read the splits at `path`, in any format of `kinds.KINDS`.

    Raises:
        DataError: when it is none of them, or is damaged.
    """
    return kind_of(path).read(path, options)


def kind_of(path: Path) -> kinds.Kind:
    """Detect the dataset format of `path`.

    Raises:
        DataError: there is none.
    """
    try:
        if not path.exists():
            raise DataError(
                f"{path}: neither a path that exists nor a known set"
                f"{did_you_mean(str(path), KNOWN_NAMES)}; expected a path, or one of "
                f"{', '.join(KNOWN_NAMES)}"
            )
        return kinds.find_kind(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _resized(parts: Parts, options: Options) -> Parts:
    """Resize splits of arrays; readers of encoded images have already done so."""
    rule = options.rule or _rule(parts.train, options)
    if rule == rule_of(parts.train):
        return parts
    height, width, _ = parts.train.image_shape

    def fit(images: Images) -> Images:
        return convert(images, rule)

    shape = (rule.height, rule.width, rule.channels)
    resized = {
        name: replace(
            part,
            images=changed(part.images, fit, shape, options.data_dir),
            aspect=rule.aspect,
        )
        for name, part in parts.items()
    }
    notes = list(parts.notes)
    if (height, width) != (rule.height, rule.width):
        notes.append(f"images of {width}×{height} pixels were {brought_to(rule)}")
    return Parts(resized["train"], resized.get("val"), resized.get("test"), tuple(notes))


def _rule(train: Dataset, options: Options) -> ImageRule:
    """Return the preprocessing rule for images like those of `train`."""
    own = rule_of(train)
    side = options.size
    return replace(
        own,
        height=side or own.height,
        width=side or own.width,
        aspect=own.aspect if options.aspect == "auto" else options.aspect,
    )


def _carved(parts: Parts, val: float, test: float, seed: int, gather: Gather) -> Splits:
    """Draw the missing splits; they share one array with train, after one copy."""
    whole, notes = parts.train, list(parts.notes)
    how = "stratified, groups kept whole" if whole.groups else "stratified"
    rows = {"train": np.arange(len(whole))}
    if parts.test is None:
        rows["train"], rows["test"] = _carve(whole, rows["train"], "test", test, seed)
        notes.append(
            f"no test split was given: {test:.0%} of train, {how}, seed {seed} "
            f"({len(rows['test']):,} images), was set aside for it"
        )
    if parts.val is None and val > 0:
        rows["train"], rows["val"] = _carve(whole, rows["train"], "val", val, seed)
        notes.append(f"val: {val:.0%} of train, {how}, seed {seed} ({len(rows['val']):,} images)")
    carved = {"train": whole}
    if len(rows) > 1:
        order = ("train", "val", "test")  # train beside val: training holds these two together
        carved = whole.split({name: rows[name] for name in order if name in rows}, gather)
        # what was set aside while reading stays on the record of train
        carved["train"] = replace(carved["train"], skipped=whole.skipped)
    test_part = parts.test or carved["test"]
    splits = Splits(carved["train"], parts.val or carved.get("val"), test_part, tuple(notes))
    return replace(splits, notes=(*notes, *remarks(splits)))


def _carve(whole: Dataset, rows: Rows, name: str, share: float, seed: int) -> tuple[Rows, Rows]:
    """Split `rows` of `whole` into (rest, part), with `share` of every class in split `name`."""
    labels = whole.labels[rows]
    counts = np.bincount(labels, minlength=len(whole.class_names))
    single = [each for each, n in zip(whole.class_names, counts, strict=True) if n == 1]
    if single:
        raise single_images(whole.source, single, name, share)
    if whole.groups:
        rest, part = carve(labels, [whole.groups[row] for row in rows], share, seed)
    else:
        rest, part = stratified_split(labels, share, seed)
    return rows[rest], rows[part]


def reopen(run: Run, source: str | Path | None = None, data_dir: Path | None = None) -> Splits:
    """Reopen the splits of a run and check that the data are unchanged.

    Args:
        run: Run whose recipe and run.json define the splits.
        source: Built-in dataset name or path; None for the one in run.json.
        data_dir: Folder to search first.

    Raises:
        DataError: the set cannot be opened, or it is not the same any more.
        RunError: the run's own files cannot be read.
    """
    info, section = run.info, run.recipe.data
    rule = ImageRule.from_json(info.image) if info.image else None
    try:
        splits = load_by(section, source or info.dataset, rule=rule, data_dir=data_dir)
    except DataError as error:
        raise DataError(
            f"the images of {run.path} cannot be opened: {error}; say where they are with --data"
        ) from None
    if splits.fingerprint != info.fingerprint:
        raise DataError(
            f"{source or info.dataset} is not what {run.path} was trained on: fingerprint "
            f"{splits.fingerprint[:12]}, expected {info.fingerprint[:12]}; give the set as it was "
            "then with --data, or train again"
        )
    return splits
