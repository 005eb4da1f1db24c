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


def check_gives_back_what_was_written(case: ReaderCase) -> None:
    """Pixels, labels, class names and their order survive."""
    with tempfile.TemporaryDirectory() as folder:
        found = _train_part(case.read(case.write(Path(folder), case.data)))
    assert found.class_names == case.data.class_names, (
        f"class names: expected {case.data.class_names}, found {found.class_names}"
    )
    assert found.images.shape == case.data.images.shape, f"shape {found.images.shape}"
    assert np.array_equal(found.labels, case.data.labels), "the labels differ"
    assert np.array_equal(found.images, case.data.images), "the pixels differ"


def check_reading_twice_is_the_same(case: ReaderCase) -> None:
    """Two readings give one fingerprint, and leave the files as they are."""
    with tempfile.TemporaryDirectory() as folder:
        path = case.write(Path(folder), case.data)
        before = _content(Path(folder))
        fingerprints = {_train_part(case.read(path)).fingerprint for _ in range(2)}
        assert len(fingerprints) == 1, "two readings differ"
        assert _content(Path(folder)) == before, "reading has changed the files"


def check_refuses_every_damage(case: ReaderCase) -> None:
    """Each kind of damage is a DataError that names what was read: no other error, no data."""
    problems = [
        f"{name}: {problem}"
        for name, damage in case.damages.items()
        if (problem := _problem_with(case, damage))
    ]
    assert not problems, "; ".join(problems)


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
    return f"accepted, with {len(found)} images"


def _replace_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


FILE_DAMAGES: Mapping[str, Damage] = {  # to a file, whatever its format
    "remove": Path.unlink,
    "make_empty": lambda path: path.write_bytes(b""),  # as a full disk does
    "cut_in_half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "cut_the_last_bytes": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "keep_the_first_bytes": lambda path: path.write_bytes(path.read_bytes()[:3]),
    "overwrite_the_first_bytes": lambda path: path.write_bytes(b"\7" * 8 + path.read_bytes()[8:]),
    "fill_with_zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "replace_by_a_page": lambda path: path.write_bytes(b"<!doctype html><title>Sign in" * 40),
    "replace_by_noise": lambda path: path.write_bytes(
        np.random.default_rng(0).bytes(path.stat().st_size)
    ),
    "replace_by_a_folder": _replace_by_a_folder,
}


def _train_part(found: Dataset | Splits) -> Dataset:
    return found.train if isinstance(found, Splits) else found


def _content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
