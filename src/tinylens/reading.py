"""Pictures of callers: paths, files' contents or arrays in, the network's input out."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tinylens.data.images import Decoded, ImageRule, Pixels, convert, decode
from tinylens.doctor import Doctor, Finding
from tinylens.errors import DataError

Picture = str | os.PathLike[str] | bytes | NDArray[np.uint8]  # a path, a file's content or pixels

LARGEST_PICTURE_FILE = 256 * 2**20  # bytes; the decoder's limit of pixels takes up less, raw

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, eq=False)
class Read:
    """A picture as the network wants it, or why it could not be read.

    Attributes:
        path: of the file, or None for content and pixels.
        image: uint8, shape (height, width, channels), or None where it could not be read.
        notes: what to know about the picture, such as that it is animated.
        error: why it could not be read, or None.
        findings: of the input doctor, or None where it was not asked.
    """

    path: str | None
    image: NDArray[np.uint8] | None = None
    notes: tuple[str, ...] = ()
    error: str | None = None
    findings: tuple[Finding, ...] | None = None


def each(items: Picture | Sequence[Picture]) -> Sequence[Picture]:
    """Return the pictures that are meant: one, or each of several.

    Raises:
        DataError: one array of another type or shape.
    """
    if isinstance(items, str | os.PathLike | bytes):
        return [items]
    if not isinstance(items, np.ndarray):
        return items
    one = items.ndim == 2 or (items.ndim == 3 and items.shape[2] in (1, 3, 4))
    pictures = items[None] if one else items
    if items.ndim not in (2, 3, 4) or items.dtype != np.uint8:
        raise DataError(
            f"the array is {items.dtype} of shape {items.shape}, expected uint8 from 0 to 255, "
            "(height, width, channels) for one picture or (n, height, width, channels)"
        )
    return list(pictures)


def read(item: Picture, rule: ImageRule, doctor: Doctor | None = None) -> Read:
    """Return a picture as `rule` wants it; one that cannot be read says why.

    Args:
        item: a path, the content of a file, or uint8 pixels.
        rule: how the network wants it.
        doctor: looks at it before it is made small, and treats it as far as it is allowed to.
    """
    path = os.fspath(item) if isinstance(item, str | os.PathLike) else None
    found: tuple[Finding, ...] = ()

    def treatment(pixels: Pixels, orientation: int) -> Pixels:
        nonlocal found
        pixels, found = doctor.see(pixels, orientation) if doctor else (pixels, ())
        return pixels

    asked = treatment if doctor else None
    try:
        if isinstance(item, np.ndarray):
            decoded = Decoded(convert(item[None], rule, asked)[0])
        else:
            content = item if isinstance(item, bytes) else _content(Path(item))
            decoded = decode(content, rule, asked)
    except DataError as error:
        return Read(path, error=str(error), findings=() if doctor else None)
    return Read(path, decoded.image, decoded.notes, findings=found if doctor else None)


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_PICTURE_FILE + 1)
    except FileNotFoundError:
        raise DataError("no such file") from None
    except IsADirectoryError:
        raise DataError("a folder, expected a picture") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise DataError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > LARGEST_PICTURE_FILE:
        raise DataError(f"larger than {LARGEST_PICTURE_FILE // 2**20} MiB")
    return content


def map_ahead(
    function: Callable[[_Item], _Result], items: Iterable[_Item], workers: int, ahead: int
) -> Generator[_Result]:
    """Yield function(item) in order; threads work up to so many items ahead of the reader."""
    if workers == 1:
        yield from map(function, items)
        return
    from concurrent.futures import Future, ThreadPoolExecutor  # 10 ms that one picture saves

    pending: collections.deque[Future[_Result]] = collections.deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
