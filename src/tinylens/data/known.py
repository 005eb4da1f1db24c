"""The known sets: what they are called, what their files must contain, and where those may be.

A file is taken from wherever it lies already, and believed for its SHA-256 alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tinylens.data import arrays, cifar, debian, idx
from tinylens.data.cache import cache_root
from tinylens.data.download import PATIENT, Patience, Remote, digest, fetch
from tinylens.data.parts import Parts, numbered_names
from tinylens.errors import DataError

_CIFAR10_BINARY = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
_CIFAR10_PYTHON = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
_CIFAR100_BINARY = "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"
_CIFAR100_PYTHON = "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7"
_KERAS_MNIST = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"


@dataclass(frozen=True)
class IdxSet:
    """A known set of IDX files.

    Attributes:
        class_names: in the order of the official numbers.
        payloads: the SHA-256 of each file's unzipped content, by its name without .gz.
        mirrors: addresses that the files' names are put behind.
        package: the Debian package that holds the files, or "".
        package_folder: where it puts them, without the first slash.
        keras: the SHA-256 of Keras's .npz of the set, or "": Keras keeps IDX files.
    """

    name: str
    class_names: tuple[str, ...]
    payloads: Mapping[str, str]
    mirrors: Sequence[str]
    package: str = ""
    package_folder: str = ""
    keras: str = ""


@dataclass(frozen=True)
class CifarSet:
    """A known set in CIFAR's formats.

    Attributes:
        archive: the file to fetch.
        archives: the SHA-256 of the archives that are believed, by their names.
        folder: the unpacked python version, whose files are checked one by one.
    """

    name: str
    archive: Remote
    archives: Mapping[str, str]
    folder: str


FASHION_MNIST = IdxSet(
    name="fashion-mnist",
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    payloads={
        "train-images-idx3-ubyte": (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
        ),
        "train-labels-idx1-ubyte": (
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
        ),
        "t10k-images-idx3-ubyte": (
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
        ),
        "t10k-labels-idx1-ubyte": (
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
        ),
    },
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    ),
    package="dataset-fashion-mnist",
    package_folder="usr/share/datasets/fashion-mnist",
)

MNIST = IdxSet(
    name="mnist",
    class_names=numbered_names(9),
    payloads={
        "train-images-idx3-ubyte": (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
        ),
        "train-labels-idx1-ubyte": (
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
        ),
        "t10k-images-idx3-ubyte": (
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
        ),
        "t10k-labels-idx1-ubyte": (
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
        ),
    },
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    keras=_KERAS_MNIST,
)

CIFAR10 = CifarSet(
    name="cifar10",
    archive=Remote(
        "cifar-10-binary.tar.gz",
        _CIFAR10_BINARY,
        ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
    ),
    archives={
        "cifar-10-binary.tar.gz": _CIFAR10_BINARY,
        "cifar-10-python.tar.gz": _CIFAR10_PYTHON,
        "cifar-10-batches-py-target_archive": _CIFAR10_PYTHON,  # as Keras names it
        "cifar-10-batches-py.tar.gz": _CIFAR10_PYTHON,  # as Keras named it before
    },
    folder="cifar-10-batches-py",
)

CIFAR100 = CifarSet(
    name="cifar100",
    archive=Remote(
        "cifar-100-binary.tar.gz",
        _CIFAR100_BINARY,
        ("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",),
    ),
    archives={
        "cifar-100-binary.tar.gz": _CIFAR100_BINARY,
        "cifar-100-python.tar.gz": _CIFAR100_PYTHON,
        "cifar-100-python-target_archive": _CIFAR100_PYTHON,
    },
    folder="cifar-100-python",
)


@dataclass(frozen=True)
class Places:
    """Where files of known sets may lie.

    Attributes:
        given: the folder that was named, or None.
        cache: our own cache, or None where there is none to be had.
        keras: Keras's folder of data sets.
        system: the root of the file system, under which Debian's packages lie.
        patience: with servers.
        packages: whether a Debian package may be fetched when the download fails.
    """

    given: Path | None
    cache: Path | None
    keras: Path
    system: Path
    patience: Patience = PATIENT
    packages: bool = True


def usual_places(data_dir: Path | None) -> Places:
    """Return the places to look at on this machine."""
    keras_home = os.environ.get("KERAS_HOME")
    keras = Path(keras_home) if keras_home else Path("~/.keras")
    try:
        keras = keras.expanduser()
    except RuntimeError:  # no home folder: nothing of Keras's is there either
        keras = Path(os.devnull)
    try:
        cache = cache_root()
    except DataError:
        if data_dir is None:
            raise
        cache = None
    packages = debian.can_fetch_packages()
    return Places(data_dir, cache, keras / "datasets", Path("/"), packages=packages)


def read_known(known: IdxSet | CifarSet, places: Places) -> Parts:
    """Return a known set from the first place where its files are whole, else fetch it.

    Raises:
        DataError: when it is nowhere and cannot be fetched; says which file to put where.
    """
    passed_over: list[str] = []
    for origin, read in _origins(known, places):
        try:
            parts = read()
        except DataError as error:
            passed_over.append(f"passed over: {error}")
        else:
            return _named(parts, known.name, (f"files: {origin}", *passed_over))
    try:
        origin, parts = _fetched(known, places)
    except DataError as error:
        raise DataError("; ".join([f"{known.name}: {error}", *passed_over])) from error
    return _named(parts, known.name, (f"files: {origin}", *passed_over))


def _named(parts: Parts, name: str, notes: tuple[str, ...]) -> Parts:
    named = {part: replace(dataset, source=name) for part, dataset in parts.items()}
    return Parts(named["train"], None, named["test"], (*notes, *parts.notes))


def _folders(name: str, places: Places) -> Iterator[Path]:
    """Yield the folders that a set's files may lie in, the nearest first."""
    if places.given is not None:
        yield places.given
        yield places.given / name
    if places.cache is not None:
        yield places.cache / name
    yield places.keras / name
    yield places.keras


def _origins(
    known: IdxSet | CifarSet, places: Places
) -> Iterator[tuple[Path, Callable[[], Parts]]]:
    """Yield each place where the set's files are, with what reads them from there."""
    for folder in _folders(known.name, places):
        yield from _idx_in(known, folder) if isinstance(known, IdxSet) else _cifar_in(known, folder)
    if isinstance(known, IdxSet) and known.package:
        yield from _idx_in(known, places.system / known.package_folder)


def _idx_in(known: IdxSet, folder: Path) -> Iterator[tuple[Path, Callable[[], Parts]]]:
    if all(idx.find_file(folder, name) for name in known.payloads):
        yield folder, lambda: idx.read_parts(folder, known.class_names, known.payloads)
    packed = folder / f"{known.name}.npz"
    if known.keras and packed.is_file():
        remote = Remote(packed.name, known.keras, ())
        yield packed, lambda: arrays.read_parts(_verified(packed, remote), known.class_names)


def _cifar_in(known: CifarSet, folder: Path) -> Iterator[tuple[Path, Callable[[], Parts]]]:
    for name, sha256 in known.archives.items():
        archive = folder / name
        if archive.is_file():
            remote = Remote(name, sha256, ())
            # bound now: the loop goes on before it is called
            yield archive, lambda a=archive, r=remote: cifar.read_parts(_verified(a, r))  # type: ignore[misc]
    for place in (folder / known.folder, folder / f"{known.folder}-target" / known.folder):
        if place.is_dir():
            yield place, lambda p=place: cifar.read_parts(p)  # type: ignore[misc]


def _verified(path: Path, remote: Remote) -> Path:
    found = digest(path, remote)
    if found != remote.sha256:
        raise DataError(f"{path}: hash mismatch: expected {remote.sha256}, got {found}")
    return path


def _fetched(known: IdxSet | CifarSet, places: Places) -> tuple[Path, Parts]:
    folder = cache_root(places.given) / known.name
    if isinstance(known, CifarSet):
        archive = fetch(known.archive, folder, places.patience)
        return archive, cifar.read_parts(archive)
    try:
        for name, payload in known.payloads.items():
            urls = tuple(f"{mirror}{name}.gz" for mirror in known.mirrors)
            fetch(Remote(f"{name}.gz", payload, urls, unzipped=True), folder, places.patience)
    except DataError as error:
        if not (known.package and places.packages):
            raise
        try:
            inner = [f"{known.package_folder}/{name}.gz" for name in known.payloads]
            debian.fetch_files(known.package, inner, folder)
        except DataError as second:
            raise DataError(f"{error}; nor as a Debian package: {second}") from second
    return folder, idx.read_parts(folder, known.class_names, known.payloads)
