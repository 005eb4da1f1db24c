"""Fetching files of known content: tried again, checked, and whole or not there at all."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinylens import files
from tinylens.errors import DataError, MissingExtra

_BLOCK = 1 << 16
_WORTH_TRYING_AGAIN = (408, 429, 500, 502, 503, 504)  # of the answers that are errors


@dataclass(frozen=True)
class Remote:
    """A file to fetch.

    Attributes:
        name: that it gets.
        sha256: of the file, or of what is in it once unzipped.
        urls: where it is, the first tried first.
        unzipped: whether `sha256` is of the unzipped content: copies are zipped differently.
        max_bytes: more than this is not taken, nor unzipped: the sender is not who it should be.
    """

    name: str
    sha256: str
    urls: Sequence[str]
    unzipped: bool = False
    max_bytes: int = 400_000_000


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server.

    Attributes:
        timeout: seconds without a byte after which it is given up.
        tries: of each address.
        pause: seconds before the second try, doubled before each later one.
    """

    timeout: float = 30.0
    tries: int = 3
    pause: float = 1.0


PATIENT = Patience()


def fetch(remote: Remote, folder: Path, patience: Patience = PATIENT) -> Path:
    """Return the path of `remote` in `folder`, fetched if it is not there.

    It gets its name once its hash is right. Another process that fetches the same file is waited
    for.

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
    """Fetch into `arriving`; return "" when its content is right, else what went wrong last."""
    problem, again = "not tried", True
    for number in range(patience.tries):
        if number:
            time.sleep(patience.pause * 2 ** (number - 1))
        problem, again = _try(url, arriving, remote, patience.timeout)
        if not again:
            break
    return problem


def _try(url: str, arriving: Path, remote: Remote, timeout: float) -> tuple[str, bool]:
    """Return what went wrong, or "", and whether it is worth trying again."""
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
    """A server sends more than the file can have."""


class _Limit:
    """What pooch takes for a progress bar: counts bytes, and ends a transfer of too many."""

    def __init__(self, most: int) -> None:
        self.total = 0
        self._most, self._left = most, most

    def update(self, size: int) -> None:
        """Count bytes that have come."""
        self._left -= size
        if self._left <= -_BLOCK:  # a block is counted whole, however short it is
            raise _TooMuch(f"more than {self._most:,} bytes")

    def reset(self) -> None:
        """Begin anew: pooch tells the whole size once more at the end."""
        self._left = self._most

    def close(self) -> None:
        """Do nothing."""


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until no other process is in here for the same file; a killed one is not waited for."""
    with lock.open("ab") as file:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
