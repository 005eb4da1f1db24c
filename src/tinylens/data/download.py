"""Fetching files of known content: resumed, tried again, checked, and whole or not there at all."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import socket
import sys
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinylens.errors import DataError

_BLOCK = 1 << 20
_WORTH_TRYING_AGAIN = (408, 416, 429, 500, 502, 503, 504)  # of the answers that are errors


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

    What arrives is kept as NAME.part, and goes on from there the next time; it gets its name once
    its hash is right. Another process that fetches the same file is waited for.

    Raises:
        DataError: saying which file to put where by hand, when no address gives it.
    """
    final = folder / remote.name
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / f"{remote.name}.lock"):
        if final.is_file() and digest(final, remote) == remote.sha256:
            return final
        part = folder / f"{remote.name}.part"
        problems: list[str] = []
        for url in remote.urls:
            problem = _from_address(url, part, remote, patience)
            if problem is None:
                part.replace(final)
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


@dataclass(frozen=True)
class _Failed:
    problem: str
    worth_trying_again: bool = True


def _from_address(url: str, part: Path, remote: Remote, patience: Patience) -> str | None:
    """Fetch into `part`; return None when its content is right, else what went wrong last."""
    failed = _Failed("not tried")
    for number in range(patience.tries):
        if number:
            time.sleep(patience.pause * 2 ** (number - 1))
        outcome = _try(url, part, remote, patience.timeout)
        if outcome is None:
            return None
        failed = outcome
        if not failed.worth_trying_again:
            break
    return failed.problem


def _try(url: str, part: Path, remote: Remote, timeout: float) -> _Failed | None:
    resumed = part.is_file() and part.stat().st_size > 0
    try:
        _receive(url, part, remote.max_bytes, timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # there is nothing after what we have
            part.unlink(missing_ok=True)
        return _Failed(
            f"the server answers {error.code} {error.reason}", error.code in _WORTH_TRYING_AGAIN
        )
    except (OSError, http.client.HTTPException) as error:
        offline = isinstance(getattr(error, "reason", None), socket.gaierror)
        return _Failed(_words(error), worth_trying_again=not offline)
    found = digest(part, remote)
    if found == remote.sha256:
        return None
    part.unlink(missing_ok=True)
    # after a resumption, what lay there before may have been the wrong half
    return _Failed(
        f"hash mismatch: expected {remote.sha256}, got {found or 'no gzip file'}",
        worth_trying_again=resumed,
    )


def _receive(url: str, part: Path, max_bytes: int, timeout: float) -> None:
    """Append to `part` what it lacks.

    Raises:
        OSError: when the connection fails, stalls or ends early; what came is kept.
        http.client.HTTPException: when the server does not speak HTTP.
    """
    start = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "tinylens"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    with urllib.request.urlopen(request, timeout=timeout) as response:
        given = response.headers.get("Content-Range", "")
        goes_on = response.status == 206 and given.startswith(f"bytes {start}-")
        size = start if goes_on else 0
        announced = response.headers.get("Content-Length")
        expected = size + int(announced) if announced and announced.isdigit() else None
        with part.open("ab" if goes_on else "wb") as file:
            while block := response.read1(_BLOCK):
                size += len(block)
                if size > max_bytes:
                    part.unlink()
                    raise OSError(f"more than {max_bytes:,} bytes")
                file.write(block)
    if expected is not None and size < expected:
        raise OSError(f"the connection ended after {size:,} of {expected:,} bytes")


def _words(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return "the server stopped answering"
    return str(getattr(reason, "strerror", None) or reason or type(error).__name__)


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
