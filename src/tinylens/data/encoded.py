"""Encoded datasets (folders, archives, tables): listing, parallel decoding, caching."""

from __future__ import annotations

import contextlib
import functools
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinylens import files
from tinylens.data.cache import (
    Stored,
    cache_root,
    find,
    find_by_key,
    key_of,
    knows,
    later,
    make_blank,
    point,
    settle,
    store,
)
from tinylens.data.canonical import canonical_rows, keep_rows
from tinylens.data.dataset import Dataset, Skipped
from tinylens.data.decode import (
    SMALL_SET,
    STRETCH,
    STRETCH_BYTES,
    Found,
    Item,
    Pool,
    Stamp,
    Target,
    examine,
    open_pool,
)
from tinylens.data.images import DECODER_VERSION, TINY_SIDE, ImageRule
from tinylens.data.plain_jpeg import agrees_with_pillow
from tinylens.data.resize_policy import AspectWanted, Facts, Wanted, choose, facts_of
from tinylens.data.splits import GUESSED, Columns, Parts, Progress, parts_of
from tinylens.errors import DataError

LARGE_BYTES = 1_000_000_000  # of pixels, from which on a set is put into order before it is decoded
SAMPLE = 8  # images that are looked at to guess what all will become


@dataclass(frozen=True)
class Seen:
    """File-system snapshot of a source.

    Attributes:
        values: JSON values that change with the contents.
        notes: Remarks on other files; not cached, since they can change on their own.
    """

    values: Any
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Encoded:
    """Encoded images, split by split.

    Attributes:
        parts: Row range by split name.
        items: Byte range of each image.
        labels: Label of each image.
        names: Name of each image within the source.
        class_names: Class names in label order.
        seen: the values of `Seen`, given the stamp of each image's file as it was read.
        unchanged: Whether the images are still those that were listed.
        notes: as in `Seen`.
        skipped: (split, name, reason) of skipped images.
    """

    parts: Mapping[str, tuple[int, int]]
    items: Sequence[Item]
    labels: Sequence[int]
    names: Sequence[str]
    class_names: tuple[str, ...]
    seen: Callable[[Sequence[Stamp]], Any]
    unchanged: Callable[[], bool]
    notes: Sequence[str] = ()
    skipped: Sequence[tuple[str, str, str]] = ()


@dataclass(frozen=True)
class Options:
    """Reading options of encoded datasets.

    Attributes:
        size: Output side in pixels; None chooses one.
        aspect: what becomes of images of another ratio; "auto" likewise.
        rule: all that the images are to become, in place of these two.
        strict: Raise on unreadable images instead of skipping them.
        data_dir: Cache folder; None for the one of `cache_root`.
        progress: Callback of (steps done, total steps), two per image.
        workers: processes that decode; None takes all cores, or one for a small set.
        columns: Table or manifest columns to read.
    """

    size: int | None = None
    aspect: AspectWanted = "auto"
    rule: ImageRule | None = None
    strict: bool = False
    data_dir: Path | None = None
    progress: Progress | None = None
    workers: int | None = None
    columns: Columns = GUESSED

    @property
    def wanted(self) -> Wanted:
        """Requested preprocessing."""
        return Wanted(self.size, self.aspect, self.rule)


DEFAULTS = Options()


@dataclass(frozen=True)
class Source:
    """Source of encoded images.

    Attributes:
        name: Display name, also recorded in the dataset.
        prefix: Path prefix of image names.
        look: asks the file system what is there, without reading an image.
        collect: lists the images; given a folder that it may put bytes into, and what to tell how
            many there are at least, as soon as it knows.
    """

    name: str
    prefix: str
    look: Callable[[], Seen]
    collect: Callable[[Path, Callable[[int], None]], Encoded]


def read_encoded(source: Source, options: Options = DEFAULTS) -> Parts:
    """Decode `source`, or load it from the cache.

    Large datasets are cached in the background; the process waits for that before it exits.

    Raises:
        DataError: when no image can be read, a class is left without any, the source changes
            while it is read, or the cache cannot be written; with `strict`, when any is broken.
    """
    settle()
    root = cache_root(options.data_dir)
    requested = [options.size, options.aspect, options.rule and options.rule.to_json()]
    place = key_of(DECODER_VERSION, requested, str(Path(source.prefix).absolute()))
    if knows(root, place):  # else there is no need to ask for the time of every file
        seen = source.look()
        stored = find(root, _signature(place, seen.values))
        if stored is not None:
            return _as_parts(source, stored, seen.notes, options)
    with _workspace(root) as workspace:
        with open_pool(options.workers) as pool:
            encoded = source.collect(workspace, pool.expect)
            decoded = _decode_all(source, encoded, pool, workspace, options)
        readable = zip(decoded.stamps, decoded.digests, strict=True)
        changed = any(size < 0 and digest for (size, _), digest in readable)
        if changed or not encoded.unchanged():
            raise _changed(source)
    try:
        return _as_parts(source, decoded.stored, encoded.notes, options)
    finally:
        keep = functools.partial(_keep, root, workspace, place, encoded, decoded)
        if len(encoded.items) < SMALL_SET:
            keep()
        else:
            later(keep)


def _changed(source: Source) -> DataError:
    return DataError(
        f"{source.name}: files changed while they were read; expected them to stay as they are: "
        "run the command again"
    )


def _signature(place: str, seen: Any) -> str:
    return f"{place}-{key_of(seen)}"


@contextlib.contextmanager
def _workspace(root: Path) -> Iterator[Path]:
    """Yield a temporary folder beside the cache, removed on failure or by `_keep`."""
    workspace = Path(tempfile.mkdtemp(dir=root, prefix=files.TEMPORARY_PREFIX))
    try:
        yield workspace
    except BaseException:
        shutil.rmtree(workspace, ignore_errors=True)
        raise


@dataclass(frozen=True, eq=False)
class _Decoded:
    """Decoded images with their cache identity."""

    stored: Stored
    rule: ImageRule
    digests: Sequence[str]
    stamps: Sequence[Stamp]


def _decode_all(
    source: Source, encoded: Encoded, pool: Pool, workspace: Path, options: Options
) -> _Decoded:
    """Decode into images.npy in the workspace: in one pass, where a sample foretells the rule.

    A large set is only surveyed in it, and then decoded in canonical order: moving rows of more
    than memory would take hours.
    """
    count = len(encoded.items)
    if not count:
        raise DataError(f"{source.name}: no images; expected at least one a class")
    pool.expect(count)
    run = _Run(pool, workspace / "images.npy", options.progress, 2 * count)
    guess = _guess(encoded, options.wanted)
    large = guess is not None and count * math.prod(guess.shape) > LARGE_BYTES
    if large:
        guess = None
    found = run.examine(encoded.items, guess, any_size=options.wanted.any_size)
    digests, stamps = found.digests, found.stamps
    if large:
        encoded, found = _in_order(encoded, found)
    facts = _facts(source.name, encoded, found)
    rule = choose(facts, options.wanted).rule
    left = found.left if rule == guess else range(count)
    if left:
        again = run.examine(encoded.items, rule, left)
        if len(again.digests) == count and again.digests != found.digests:
            raise _changed(source)
        found.broken[:] = (dict(found.broken) | dict(again.broken)).items()
        found.notes[:] = {*found.notes, *again.notes}
    run.step(2 * count)
    return _Decoded(_finish(run.images, encoded, found, facts), rule, digests, stamps)


class _Run:
    """Examination and decoding passes over a dataset."""

    def __init__(self, pool: Pool, images: Path, progress: Progress | None, steps: int) -> None:
        self.images = images
        self._pool, self._progress, self._steps, self._reached = pool, progress, steps, 0
        self._blank: tuple[int, ...] = ()

    def examine(
        self,
        items: Sequence[Item],
        rule: ImageRule | None,
        rows: Sequence[int] | None = None,
        *,
        any_size: bool = True,
    ) -> Found:
        """Examine images and decode them by `rule`; a second pass covers those near `rows`."""
        count, stretch, target = len(items), STRETCH, None
        if rule is not None:
            self._make_blank((count, *rule.shape))
            plain = agrees_with_pillow() and min(rule.height, rule.width) >= TINY_SIDE
            target = Target(rule, any_size, plain, str(self.images))
            stretch = min(max(STRETCH_BYTES // math.prod(rule.shape), 1), STRETCH)
        starts: Sequence[int] = range(0, count, stretch)
        if rows is not None:
            starts = sorted({row - row % stretch for row in rows})
        whole = Found([], [], Counter(), [], [], [])
        for found in self._pool.examine(items, starts, stretch, target):
            whole.add(found)
            done = len(whole.digests)
            self.step(done + (count if rows is not None else done - len(whole.left)))
        return whole

    def step(self, done: int) -> None:
        """Report progress; never decreases when images are processed again."""
        self._reached = max(self._reached, done)
        if self._progress:
            self._progress(self._reached, self._steps)

    def _make_blank(self, shape: tuple[int, ...]) -> None:
        if shape != self._blank:
            make_blank(self.images, shape)
            self._blank = shape


def _in_order(encoded: Encoded, found: Found) -> tuple[Encoded, Found]:
    """Put undecoded images into canonical order, with their examination results."""
    names, labels = encoded.names, encoded.labels
    order, bounds = canonical_rows(encoded.parts, (), found.digests, labels, names)
    place = {row: now for now, row in enumerate(order)}
    ordered = replace(
        encoded,
        parts={part: (start, stop) for part, (start, stop) in bounds.items()},
        items=[encoded.items[row] for row in order],
        labels=[labels[row] for row in order],
        names=[names[row] for row in order],
    )
    return ordered, found._replace(
        digests=[found.digests[row] for row in order],
        broken=[(place[row], reason) for row, reason in found.broken],
    )


def _guess(encoded: Encoded, wanted: Wanted) -> ImageRule | None:
    """Predict the preprocessing rule from a sample of images.

    Where a size is to be chosen from images that differ, a few say too little: to decode all by
    what they say, and again by what all say, would take twice as long.
    """
    sample = encoded.items[:: max(1, len(encoded.items) // SAMPLE)][:SAMPLE]
    found = examine(0, list(zip(*sample, strict=True)), None)
    if not found.sizes:
        return None
    facts = facts_of(found.counted_sizes())
    return choose(facts, wanted).rule if facts.sizes == 1 or wanted.any_size else None


def _facts(source: str, encoded: Encoded, found: Found) -> Facts:
    """Return the size statistics of the images; raise if none is readable."""
    if not found.sizes:
        broken = [Skipped(encoded.names[row], reason) for row, reason in found.broken]
        raise DataError(f"{source}: none of {len(broken)} files is an image: {_first(broken)}")
    return facts_of(found.counted_sizes())


def _finish(images: Path, encoded: Encoded, found: Found, facts: Facts) -> Stored:
    """Put rows into canonical order and drop broken images."""
    broken = dict(sorted(found.broken))
    kept, parts = canonical_rows(
        encoded.parts, broken, found.digests, encoded.labels, encoded.names
    )
    skipped = [list(one) for one in encoded.skipped]
    for part, (start, stop) in encoded.parts.items():
        skipped += [
            [part, encoded.names[row], broken[row]] for row in broken if start <= row < stop
        ]
    if kept != list(range(len(encoded.items))):
        keep_rows(images, kept)
    kinds = Counter(words.partition(":")[0] for _, words in found.notes)
    meta = {
        "parts": parts,
        "class_names": list(encoded.class_names),
        "names": [encoded.names[row] for row in kept],
        "skipped": skipped,
        "notes": [_image_note(kind, count) for kind, count in sorted(kinds.items())],
        "facts": facts.to_json(),
    }
    labels = np.array([encoded.labels[row] for row in kept], np.int64)
    return Stored(np.load(images, mmap_mode="r", allow_pickle=False), labels, meta)


def _keep(root: Path, workspace: Path, place: str, encoded: Encoded, decoded: _Decoded) -> None:
    """Move the workspace's images into the cache; existing memory maps stay valid."""
    key = key_of(
        DECODER_VERSION,
        decoded.rule.to_json(),
        {name: list(rows) for name, rows in encoded.parts.items()},
        [list(encoded.class_names), list(encoded.labels), list(encoded.names)],
        [list(decoded.digests), [list(skipped) for skipped in encoded.skipped]],
    )

    def write(folder: Path) -> dict[str, Any]:
        (workspace / "images.npy").rename(folder / "images.npy")
        np.save(folder / "labels.npy", decoded.stored.labels)
        return decoded.stored.meta

    try:
        if find_by_key(root, key) is None:
            store(root, key, write)
        point(root, _signature(place, encoded.seen(decoded.stamps)), key)
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def _image_note(kind: str, count: int) -> str:
    meaning = {
        "animated": "animated images: the first frame is used",
        "tiny": "images with a side under 4 pixels: look whether they are meant",
    }
    return f"{count:,} {meaning[kind]}"


def _as_parts(source: Source, stored: Stored, notes: Sequence[str], options: Options) -> Parts:
    meta = stored.meta
    chosen = choose(Facts.from_json(meta["facts"]), options.wanted)
    every = [Skipped(source.prefix + name, reason) for _, name, reason in meta["skipped"]]
    if options.strict and every:
        raise DataError(
            f"{source.name}: {len(every)} images cannot be read: {_first(every)}; mend or remove "
            "them, or leave --strict out to set them aside"
        )
    names = [source.prefix + name for name in meta["names"]]
    found: dict[str, Dataset] = {}
    for part, (start, stop) in meta["parts"].items():
        mine = [Skipped(source.prefix + n, why) for p, n, why in meta["skipped"] if p == part]
        if start == stop:
            raise DataError(f"{source.name}: no image of {part} can be read: {_first(mine)}")
        found[part] = Dataset(
            images=stored.images[start:stop],
            labels=stored.labels[start:stop],
            class_names=tuple(meta["class_names"]),
            source=source.name,
            paths=tuple(names[start:stop]),
            skipped=tuple(mine),
            aspect=chosen.rule.aspect,
        )
    all_notes = [*chosen.notes, *notes, *meta["notes"]]
    if every:
        all_notes.append(f"{len(every):,} images could not be read and were set aside")
    parts = parts_of(found, source.name, all_notes)
    _check_every_class_is_there(source.name, parts.train, every)
    return parts


def _check_every_class_is_there(source: str, train: Dataset, skipped: Sequence[Skipped]) -> None:
    empty = [name for name, n in zip(train.class_names, train.counts, strict=True) if n == 0]
    if empty:
        raise DataError(
            f"{source}: no image to train on of class {', '.join(empty)}; expected at least one "
            f"of each{': ' + _first(skipped) if skipped else ''}"
        )


def _first(skipped: Sequence[Skipped]) -> str:
    shown = "; ".join(f"{one.path}: {one.reason}" for one in skipped[:5])
    return shown + (f"; and {len(skipped) - 5:,} more" if len(skipped) > 5 else "")
