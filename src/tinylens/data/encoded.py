"""Sets of encoded pictures, in folders or tables: surveyed, decoded with all cores, and cached."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinylens import files
from tinylens.data import cache
from tinylens.data.cache import Stored
from tinylens.data.dataset import Dataset, Skipped
from tinylens.data.decode_pool import open_pool
from tinylens.data.decode_worker import Item, Outcome, Surveyed
from tinylens.data.images import DECODER_VERSION, ImageRule
from tinylens.data.parts import Parts, Progress, parts_of
from tinylens.errors import DataError

OWN_SIDE = 128  # pictures of one size up to this keep it
COMMON_SIDE = 64  # all others are stretched to this, unless a size was asked for


@dataclass(frozen=True)
class Encoded:
    """Pictures still encoded, part after part.

    Attributes:
        parts: rows from and up to which each part goes, by its name.
        items: where each picture's bytes lie.
        labels: the number of each picture's class.
        names: what each picture is called within the source.
        class_names: one name a class.
        skipped: (part, name, reason) of what was set aside before.
    """

    parts: Mapping[str, tuple[int, int]]
    items: Sequence[Item]
    labels: Sequence[int]
    names: Sequence[str]
    class_names: tuple[str, ...]
    skipped: Sequence[tuple[str, str, str]] = ()


@dataclass(frozen=True)
class Options:
    """How a set of encoded pictures is read.

    Attributes:
        size: side in pixels of the result; None keeps a small common size, else takes 64.
        strict: a picture that cannot be read is an error, not set aside.
        data_dir: where decoded pictures are kept; None is the cache of `cache_root`.
        progress: called with steps done and steps in all, two a picture.
        workers: processes that decode; None takes all cores, or one for a small set.
    """

    size: int | None = None
    strict: bool = False
    data_dir: Path | None = None
    progress: Progress | None = None
    workers: int | None = None


DEFAULTS = Options()


@dataclass(frozen=True)
class Source:
    """Where encoded pictures come from.

    Attributes:
        name: for messages and the data set's own record.
        prefix: put before the name of a picture to give its path.
        seen: what the file system says of it, JSON values: another answer, other contents.
        look: asks the file system again.
        collect: lists the pictures; given a folder that it may put bytes into.
        notes: on what is seen beside the pictures; not kept with them, since it may change alone.
    """

    name: str
    prefix: str
    seen: Any
    look: Callable[[], Any]
    collect: Callable[[Path], Encoded]
    notes: Sequence[str] = ()


def read_encoded(source: Source, options: Options = DEFAULTS) -> Parts:
    """Return the pictures of `source` decoded, from the cache where they are known.

    Raises:
        DataError: when no picture can be read, a class is left without any, the source changes
            while it is read, or the cache cannot be written; with `strict`, when any is broken.
    """
    root = cache.cache_root(options.data_dir)
    where = str(Path(source.prefix).absolute())
    signature = cache.key_of(DECODER_VERSION, options.size, where, source.seen)
    stored = cache.find(root, signature)
    if stored is None:
        with tempfile.TemporaryDirectory(dir=root, prefix=files.TEMPORARY_PREFIX) as workspace:
            encoded = source.collect(Path(workspace))
            key = _decode_all(source, encoded, root, Path(workspace), options)
        if source.look() != source.seen:
            raise DataError(
                f"{source.name}: files changed while they were read; expected them to stay as "
                "they are: run the command again"
            )
        cache.point(root, signature, key)
        stored = cache.find_by_key(root, key)
        if stored is None:
            raise DataError(f"{root}: the decoded pictures vanished; run the command again")
    return _as_parts(source, stored, options.strict)


def _decode_all(
    source: Source, encoded: Encoded, root: Path, workspace: Path, options: Options
) -> str:
    """Decode into the cache unless the same contents are there; return the key."""
    if not encoded.items:
        raise DataError(f"{source.name}: no pictures; expected at least one a class")
    with open_pool(encoded.items, workspace, options.workers) as pool:
        steps = _Steps(options.progress, 2 * len(encoded.items))
        surveyed = pool.survey(steps.first_half)
        rule, rule_note = _rule(source.name, encoded, surveyed, options.size)
        digests = [one.digest for one in surveyed]
        key = cache.key_of(
            DECODER_VERSION,
            rule.to_json(),
            {name: list(rows) for name, rows in encoded.parts.items()},
            [list(encoded.class_names), list(encoded.labels), list(encoded.names), digests],
            [list(skipped) for skipped in encoded.skipped],
        )

        def write(folder: Path) -> dict[str, Any]:
            outcome = pool.decode(rule, _blank(folder, len(digests), rule), steps.second_half)
            return {**_finish(folder, encoded, outcome), "rule_note": rule_note}

        if cache.find_by_key(root, key) is None:
            cache.store(root, key, write)
    return key


@dataclass(frozen=True)
class _Steps:
    """Turns the progress of two passes over the pictures into one count."""

    progress: Progress | None
    total: int

    def first_half(self, done: int) -> None:
        if self.progress:
            self.progress(done, self.total)

    def second_half(self, done: int) -> None:
        self.first_half(self.total // 2 + done)


def _rule(
    source: str, encoded: Encoded, surveyed: Sequence[Surveyed], side: int | None
) -> tuple[ImageRule, str]:
    """Return the rule for these pictures, and a note where it changes their size."""
    readable = [one for one in surveyed if not one.reason]
    if not readable:
        broken = [
            Skipped(name, one.reason) for name, one in zip(encoded.names, surveyed, strict=True)
        ]
        raise DataError(f"{source}: none of {len(broken)} files is a picture: {_first(broken)}")
    sizes = {(one.width, one.height) for one in readable}
    width, height = next(iter(sizes))
    if side is not None:
        width = height = side
    elif len(sizes) > 1 or max(width, height) > OWN_SIDE:
        width = height = COMMON_SIDE
    rule = ImageRule(height, width, 1 if all(one.grey for one in readable) else 3)
    if sizes == {(width, height)}:
        return rule, ""
    found = f"{len(sizes)} sizes" if len(sizes) > 1 else "{}×{} pixels".format(*sizes.pop())
    return rule, f"pictures of {found} were stretched to {width}×{height}"


def _blank(folder: Path, count: int, rule: ImageRule) -> Path:
    """Make images.npy with its disk space: writing to a map of a full disk kills the process."""
    path = folder / "images.npy"
    shape = (count, *rule.shape)
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return path


def _finish(folder: Path, encoded: Encoded, outcome: Outcome) -> dict[str, Any]:
    """Leave the rows of broken pictures out; return what is to be known of the set."""
    broken = dict(outcome.broken)
    good = [row for row in range(len(encoded.items)) if row not in broken]
    skipped = [list(one) for one in encoded.skipped]
    parts: dict[str, list[int]] = {}
    for part, (start, stop) in encoded.parts.items():
        first = sum(row < start for row in good)
        parts[part] = [first, first + sum(start <= row < stop for row in good)]
        skipped += [
            [part, encoded.names[row], broken[row]] for row in broken if start <= row < stop
        ]
    if broken:
        _keep_rows(folder / "images.npy", good)
    np.save(folder / "labels.npy", np.array([encoded.labels[row] for row in good], np.int64))
    kinds = Counter(words.partition(":")[0] for _, words in outcome.notes)
    return {
        "parts": parts,
        "class_names": list(encoded.class_names),
        "names": [encoded.names[row] for row in good],
        "skipped": skipped,
        "notes": [_picture_note(kind, count) for kind, count in sorted(kinds.items())],
    }


def _keep_rows(path: Path, rows: Sequence[int]) -> None:
    """Write the .npy file anew with `rows` alone, in blocks: it may be larger than memory."""
    kept = path.with_name("kept.npy")
    old = np.load(path, mmap_mode="r")
    shape = (len(rows), *old.shape[1:])
    new = np.lib.format.open_memmap(kept, mode="w+", dtype=np.uint8, shape=shape)
    for start in range(0, len(rows), 4096):
        new[start : start + 4096] = old[rows[start : start + 4096]]
    new.flush()
    kept.replace(path)


def _picture_note(kind: str, count: int) -> str:
    meaning = {
        "animated": "animated pictures: the first frame is used",
        "tiny": "pictures with a side under 4 pixels: look whether they are meant",
    }
    return f"{count:,} {meaning[kind]}"


def _as_parts(source: Source, stored: Stored, strict: bool) -> Parts:
    meta = stored.meta
    every = [Skipped(source.prefix + name, reason) for _, name, reason in meta["skipped"]]
    if strict and every:
        raise DataError(
            f"{source.name}: {len(every)} pictures cannot be read: {_first(every)}; mend or remove "
            "them, or leave --strict out to set them aside"
        )
    names = [source.prefix + name for name in meta["names"]]
    found: dict[str, Dataset] = {}
    for part, (start, stop) in meta["parts"].items():
        mine = [Skipped(source.prefix + n, why) for p, n, why in meta["skipped"] if p == part]
        if start == stop:
            raise DataError(f"{source.name}: no picture of {part} can be read: {_first(mine)}")
        found[part] = Dataset(
            images=stored.images[start:stop],
            labels=stored.labels[start:stop],
            class_names=tuple(meta["class_names"]),
            source=source.name,
            paths=tuple(names[start:stop]),
            skipped=tuple(mine),
        )
    notes = [note for note in (meta["rule_note"], *source.notes, *meta["notes"]) if note]
    if every:
        notes.append(f"{len(every):,} pictures could not be read and were set aside")
    parts = parts_of(found, source.name, notes)
    _check_every_class_is_there(source.name, parts.train, every)
    return parts


def _check_every_class_is_there(source: str, train: Dataset, skipped: Sequence[Skipped]) -> None:
    empty = [name for name, n in zip(train.class_names, train.counts, strict=True) if n == 0]
    if empty:
        raise DataError(
            f"{source}: no picture to train on of class {', '.join(empty)}; expected at least one "
            f"of each{': ' + _first(skipped) if skipped else ''}"
        )


def _first(skipped: Sequence[Skipped]) -> str:
    shown = "; ".join(f"{one.path}: {one.reason}" for one in skipped[:5])
    return shown + (f"; and {len(skipped) - 5:,} more" if len(skipped) > 5 else "")
