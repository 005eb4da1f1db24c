"""Checks that every reader of a data format passes."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinylens.data.dataset import Dataset, Splits
from tinylens.errors import DataError
from tinylens.testing.battery import CheckFailed, require, run_checks
from tinylens.testing.datasets import tiny_dataset

Read = Callable[[Path], Dataset | Splits]
Write = Callable[[Path, Dataset], Path]
Damage = Callable[[Path], object]


@dataclass(frozen=True)
class ReaderCase:
    """A reader to check.

    Attributes:
        read: the reader; what it gives for a written set is that set, or Splits that train on it.
        write: writes a data set into an empty folder, without loss, and returns what `read` takes.
        damages: by name, functions that damage what `write` returned so that it must be refused.
        data: what is written.
    """

    read: Read
    write: Write
    damages: Mapping[str, Damage]
    data: Dataset


def check_reader(
    read: Read, write: Write, damages: Mapping[str, Damage], data: Dataset | None = None
) -> None:
    """Check that a reader gives back what was written, and refuses whatever is damaged.

    Args:
        read: takes a path and gives a data set, or Splits that train on it.
        write: its counterpart: writes a data set into an empty folder, without loss, and returns
            the path that `read` takes.
        damages: by name, functions that damage what lies at that path. See `FILE_DAMAGES` for
            those that suit any format of one file.
        data: a set that the format can hold; left out, 12 colour pictures of 4 classes.

    Raises:
        CheckFailed: the reader does not conform; every check that failed is named with the reason.
    """
    data = tiny_dataset((8, 8, 3), count=12) if data is None else data
    run_checks(_name(read), ReaderCase(read, write, damages, data), READER_CHECKS)


def check_gives_back_what_was_written(case: ReaderCase) -> None:
    """Pixels, labels, class names and their order survive."""
    with tempfile.TemporaryDirectory() as folder:
        found = _train_part(case.read(case.write(Path(folder), case.data)))
    require(
        found.class_names == case.data.class_names,
        f"class names: expected {case.data.class_names}, found {found.class_names}",
    )
    require(found.images.shape == case.data.images.shape, f"shape {found.images.shape}")
    require(np.array_equal(found.labels, case.data.labels), "the labels differ")
    require(np.array_equal(found.images, case.data.images), "the pixels differ")


def check_reading_twice_is_the_same(case: ReaderCase) -> None:
    """Two readings give one fingerprint, and leave the files as they are."""
    with tempfile.TemporaryDirectory() as folder:
        path = case.write(Path(folder), case.data)
        before = _content(Path(folder))
        fingerprints = {_train_part(case.read(path)).fingerprint for _ in range(2)}
        require(len(fingerprints) == 1, "two readings differ")
        require(_content(Path(folder)) == before, "reading has changed the files")


def check_refuses_every_damage(case: ReaderCase) -> None:
    """Each kind of damage is a DataError that names what was read: no other error, no data."""
    problems = [
        f"{name}: {problem}"
        for name, damage in case.damages.items()
        if (problem := _problem_with(case, damage))
    ]
    require(not problems, "; ".join(problems))


READER_CHECKS: tuple[Callable[[ReaderCase], None], ...] = (
    check_gives_back_what_was_written,
    check_reading_twice_is_the_same,
    check_refuses_every_damage,
)


def _problem_with(case: ReaderCase, damage: Damage) -> str:
    """Return what the reader does wrong with a damaged set, or ""."""
    with tempfile.TemporaryDirectory() as folder:
        path = case.write(Path(folder), case.data)
        damage(path)
        try:
            found = _train_part(case.read(path))
        except DataError as error:
            return "" if Path(folder).name in str(error) else f"the error names no path: {error}"
        except Exception as error:  # whatever else a parser lets through is what is looked for
            return f"raised {type(error).__name__} instead of DataError: {error}"
    return f"accepted, with {len(found)} pictures"


# --- damage to a file, whatever its format


def remove(path: Path) -> None:
    """Take the file away."""
    path.unlink()


def make_empty(path: Path) -> None:
    """Leave nothing in it, as a full disk does."""
    path.write_bytes(b"")


def cut_in_half(path: Path) -> None:
    """Keep the first half, as a broken download does."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_the_last_bytes(path: Path) -> None:
    """Leave out the last 7 bytes."""
    path.write_bytes(path.read_bytes()[:-7])


def keep_the_first_bytes(path: Path) -> None:
    """Keep 3 bytes, less than any header has."""
    path.write_bytes(path.read_bytes()[:3])


def overwrite_the_first_bytes(path: Path) -> None:
    """Spoil the bytes that say which format it is."""
    path.write_bytes(b"\x07" * 8 + path.read_bytes()[8:])


def fill_with_zeros(path: Path) -> None:
    """Keep the length alone, as a file system after a crash does."""
    path.write_bytes(b"\x00" * path.stat().st_size)


def replace_by_a_page(path: Path) -> None:
    """Put a web page in its place, as a portal that wants a login does."""
    path.write_bytes(b"<!doctype html><title>Sign in</title>" * 40)


def replace_by_noise(path: Path) -> None:
    """Put random bytes in its place."""
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def replace_by_a_folder(path: Path) -> None:
    """Put an empty folder in its place."""
    path.unlink()
    path.mkdir()


FILE_DAMAGES: Mapping[str, Damage] = {
    damage.__name__: damage
    for damage in (
        remove,
        make_empty,
        cut_in_half,
        cut_the_last_bytes,
        keep_the_first_bytes,
        overwrite_the_first_bytes,
        fill_with_zeros,
        replace_by_a_page,
        replace_by_noise,
        replace_by_a_folder,
    )
}


def _train_part(found: Dataset | Splits) -> Dataset:
    return found.train if isinstance(found, Splits) else found


def _content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _name(read: Read) -> str:
    module = getattr(read, "__module__", "")
    return f"reader {module}.{getattr(read, '__qualname__', repr(read))}"


__all__ = ["FILE_DAMAGES", "READER_CHECKS", "CheckFailed", "ReaderCase", "check_reader"]
