"""Built-in datasets: names, checksums, search paths and download.

A local copy is used from any known location if its SHA-256 matches.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tinylens import files
from tinylens.data.cache import cache_root
from tinylens.data.readers import arrays, idx
from tinylens.data.readers.cifar import read_parts
from tinylens.data.splits import Parts, numbered_names
from tinylens.errors import DataError, MissingExtra

_BLOCK = 1 << 16
_WORTH_TRYING_AGAIN = (408, 429, 500, 502, 503, 504)  # of the answers that are errors


@dataclass(frozen=True)
class Remote:
    """A file to fetch.

    Attributes:
        name: Local file name.
        sha256: Digest of the file, or of its unzipped content.
        urls: Download addresses, in the order they are tried.
        unzipped: whether `sha256` is of the unzipped content: copies are zipped differently.
        max_bytes: Upper limit for the download and for its unzipped content.
    """

    name: str
    sha256: str
    urls: Sequence[str]
    unzipped: bool = False
    max_bytes: int = 400_000_000


@dataclass(frozen=True)
class Patience:
    """Timeout and retry policy for downloads.

    Attributes:
        timeout: Seconds without data before an attempt is abandoned.
        tries: Attempts per address.
        pause: Seconds before the second attempt; doubles with each further one.
    """

    timeout: float = 30.0
    tries: int = 3
    pause: float = 1.0


PATIENT = Patience()


def fetch(remote: Remote, folder: Path, patience: Patience = PATIENT) -> Path:
    """Return the path of `remote` in `folder`; download it if it is missing.

    The file is renamed into place once its hash matches. Concurrent downloads are serialized.

    Raises:
        DataError: saying which file to put where by hand, when no address gives it.
        MissingExtra: when pooch is not installed.
    """
    final = folder / remote.name
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / f"{remote.name}.lock"):
        if final.is_file() and digest(final, remote) == remote.sha256:
            return final
        problems: list[str] = []
        with tempfile.TemporaryDirectory(dir=folder, prefix=files.TEMPORARY_PREFIX) as temporary:
            arriving = Path(temporary) / remote.name
            for url in remote.urls:
                problem = _from_address(url, arriving, remote, patience)
                if not problem:
                    arriving.replace(final)
                    return final
                problems.append(f"{url}: {problem}")
    raise DataError(
        f"cannot fetch {remote.name}: {'; '.join(problems)}. By hand: put the file from "
        f"{remote.urls[0]} into {folder}"
    )


def digest(path: Path, remote: Remote) -> str:
    """Return the SHA-256 of the file, or of its unzipped content; "" when it cannot be unzipped."""
    found = hashlib.sha256()
    try:
        with gzip.open(path, "rb") if remote.unzipped else path.open("rb") as file:
            total = 0
            while block := file.read(_BLOCK):
                total += len(block)
                if total > remote.max_bytes:
                    return ""
                found.update(block)
    except (OSError, EOFError, zlib.error):
        return ""
    return found.hexdigest()


def _from_address(url: str, arriving: Path, remote: Remote, patience: Patience) -> str:
    """Download into `arriving`; return "" on success, else the last error."""
    problem, again = "not tried", True
    for number in range(patience.tries):
        if number:
            time.sleep(patience.pause * 2 ** (number - 1))
        problem, again = _try(url, arriving, remote, patience.timeout)
        if not again:
            break
    return problem


def _try(url: str, arriving: Path, remote: Remote, timeout: float) -> tuple[str, bool]:
    """Return (error or "", whether to retry)."""
    try:
        import pooch
        import requests
        import urllib3.exceptions
    except ImportError as error:
        raise MissingExtra(
            f"{remote.name} is not on this machine, and to fetch it needs pooch; expected it to be "
            "installed: pip install 'tinylens[train]'"
        ) from error
    download = pooch.HTTPDownloader(
        progressbar=_Limit(remote.max_bytes),
        chunk_size=_BLOCK,
        timeout=timeout,
        headers={"User-Agent": "tinylens", "Accept-Encoding": "identity"},
    )
    try:
        download(url, str(arriving), None)
    except requests.HTTPError as error:
        status = error.response.status_code
        problem = f"the server answers {status} {error.response.reason}"
        return problem, status in _WORTH_TRYING_AGAIN
    except OSError as error:  # of which those of requests are kinds
        reason: object = error.args[0] if error.args else error
        reason = getattr(reason, "reason", reason)
        if isinstance(error, requests.Timeout) or "timed out" in str(reason):
            return "the server stopped answering", True
        offline = isinstance(reason, urllib3.exceptions.NameResolutionError)
        words = error.strerror or " ".join(str(reason).split())[:160] or type(error).__name__
        return words, not (offline or isinstance(error, _TooMuch))
    if arriving.stat().st_size > remote.max_bytes:
        return f"more than {remote.max_bytes:,} bytes", False
    found = digest(arriving, remote)
    if found == remote.sha256:
        return "", False
    return f"hash mismatch: expected {remote.sha256}, got {found or 'no gzip file'}", False


class _TooMuch(OSError):
    """Download larger than its limit."""


class _Limit:
    """Progress bar for pooch that aborts a transfer above the size limit."""

    def __init__(self, most: int) -> None:
        self.total = 0
        self._most, self._left = most, most

    def update(self, size: int) -> None:
        """Add received bytes."""
        self._left -= size
        if self._left <= -_BLOCK:  # a block is counted whole, however short it is
            raise _TooMuch(f"more than {self._most:,} bytes")

    def reset(self) -> None:
        """Reset the count: pooch reports the full size once more at the end."""
        self._left = self._most

    def close(self) -> None:
        """Do nothing."""


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Lock a file across processes; a killed process releases its lock."""
    with lock.open("ab") as file:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


SECONDS = 300.0  # an update of package lists takes about ten


def can_fetch_packages() -> bool:
    """Return whether this machine can download Debian packages."""
    return bool(shutil.which("apt-get") and shutil.which("dpkg-deb"))


def fetch_files(package: str, inner: Sequence[str], folder: Path) -> None:
    """Extract files from a Debian package into `folder`, by base name.

    Args:
        package: the name of a package in the machine's own package sources.
        inner: paths within the package, without the first slash.
        folder: made if it is missing.

    Raises:
        DataError: when the package cannot be had or lacks a file.
    """
    with tempfile.TemporaryDirectory(prefix="tinylens-") as temporary:
        workspace = Path(temporary)
        _download(package, workspace)
        packed = next(workspace.glob("*.deb"), None)
        if packed is None:
            raise DataError(f"the Debian package {package} did not arrive")
        _run(["dpkg-deb", "-x", str(packed), str(workspace / "content")], workspace)
        for path in inner:
            source = workspace / "content" / path
            if not source.is_file():
                raise DataError(f"the Debian package {package} has no {path}")
            files.write_bytes(folder / source.name, source.read_bytes())


def _download(package: str, workspace: Path) -> None:
    """Download the package with the system's package lists, or with temporary fresh ones."""
    try:
        _run(["apt-get", "download", package], workspace)
    except DataError:
        lists, cache = workspace / "lists", workspace / "cache"
        for place in (lists, cache):
            (place / "partial").mkdir(parents=True)
        own = ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={cache}"]
        _run(["apt-get", *own, "update"], workspace)
        _run(["apt-get", *own, "download", package], workspace)


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f"{command[0]} did not run: {error}") from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or ["no reason given"]
        raise DataError(f"{command[0]} ended with code {done.returncode}: {last[0]}")


_CIFAR10_BINARY = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
_CIFAR10_PYTHON = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
_CIFAR100_BINARY = "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"
_CIFAR100_PYTHON = "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7"
_KERAS_MNIST = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"


@dataclass(frozen=True)
class IdxSet:
    """Built-in dataset of IDX files.

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
    """Built-in dataset in a CIFAR format.

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
    """Search paths for the files of built-in datasets.

    Attributes:
        given: Folder given by the user, or None.
        cache: tinylens cache, or None if none is available.
        keras: Dataset folder of Keras.
        system: the root of the file system, under which Debian's packages lie.
        patience: Timeout and retry policy.
        packages: whether a Debian package may be fetched when the download fails.
    """

    given: Path | None
    cache: Path | None
    keras: Path
    system: Path
    patience: Patience = PATIENT
    packages: bool = True


def usual_places(data_dir: Path | None) -> Places:
    """Return the default search paths on this machine."""
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
    packages = can_fetch_packages()
    return Places(data_dir, cache, keras / "datasets", Path("/"), packages=packages)


def read_known(known: IdxSet | CifarSet, places: Places) -> Parts:
    """Load a built-in dataset from the first intact local copy, else download it.

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
    """Yield the candidate folders of a dataset, in search order."""
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
    """Yield (location, reader) for each local copy of a dataset."""
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
            yield archive, lambda a=archive, r=remote: read_parts(_verified(a, r))  # type: ignore[misc]
    for place in (folder / known.folder, folder / f"{known.folder}-target" / known.folder):
        if place.is_dir():
            yield place, lambda p=place: read_parts(p)  # type: ignore[misc]


def _verified(path: Path, remote: Remote) -> Path:
    found = digest(path, remote)
    if found != remote.sha256:
        raise DataError(f"{path}: hash mismatch: expected {remote.sha256}, got {found}")
    return path


def _fetched(known: IdxSet | CifarSet, places: Places) -> tuple[Path, Parts]:
    folder = cache_root(places.given) / known.name
    if isinstance(known, CifarSet):
        archive = fetch(known.archive, folder, places.patience)
        return archive, read_parts(archive)
    try:
        for name, payload in known.payloads.items():
            urls = tuple(f"{mirror}{name}.gz" for mirror in known.mirrors)
            fetch(Remote(f"{name}.gz", payload, urls, unzipped=True), folder, places.patience)
    except DataError as error:
        if not (known.package and places.packages):
            raise
        try:
            inner = [f"{known.package_folder}/{name}.gz" for name in known.payloads]
            fetch_files(known.package, inner, folder)
        except DataError as second:
            raise DataError(f"{error}; nor as a Debian package: {second}") from second
    return folder, idx.read_parts(folder, known.class_names, known.payloads)
