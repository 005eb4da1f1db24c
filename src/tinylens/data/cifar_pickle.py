"""Reading CIFAR's pickles without running anything that is in them.

A pickle is a program that may call whatever it names. Here it can name five things, and each of
them only writes down what it is told: no code runs, and no array is made until its size is known
to be the size of its bytes.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from tinylens.data.dataset import Images
from tinylens.errors import DataError


def unpickled(where: str, content: bytes) -> object:
    """Return what the pickle holds: dict, list, text, bytes, numbers and `PickledArray`.

    Raises:
        DataError: naming `where`, when it is damaged or asks for anything else.
    """
    try:
        return _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # hostile bytes make the unpickler raise whatever they like
        raise DataError(
            f"{where}: cannot be unpickled: {error}; expected arrays, text and numbers alone"
        ) from error


def entry(tree: object, key: str) -> object:
    """Return `tree[key]`; the published files have bytes for keys."""
    if not isinstance(tree, dict):
        return None
    return tree.get(key.encode(), tree.get(key))


class PickledArray:
    """Stands for numpy.ndarray while unpickling: keeps what it is told, allocates nothing."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.kind = ""
        self.content = b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, by_column, content = state
        if by_column or not isinstance(kind, _Kind) or not isinstance(content, bytes):
            raise pickle.UnpicklingError("an array of another kind than uint8 rows")
        self.shape, self.kind, self.content = tuple(shape), kind.code, content

    def values(self, where: str) -> Images:
        """Return the array, uint8.

        Raises:
            DataError: naming `where`, when it is of another type or has other bytes than its shape.
        """
        size = int(np.prod(self.shape, dtype=object)) if self.shape else 0
        if self.kind not in ("u1", "uint8", "|u1") or len(self.content) != size:
            raise DataError(
                f"{where}: data of type {self.kind} in {len(self.content):,} bytes for shape "
                f"{self.shape}, expected uint8"
            )
        return np.frombuffer(self.content, np.uint8).reshape(self.shape)


class _Kind:
    """Stands for numpy.dtype while unpickling."""

    def __init__(self, code: str, *_: object) -> None:
        self.code = code.decode("ascii") if isinstance(code, bytes) else str(code)

    def __setstate__(self, state: object) -> None:
        """Byte order and alignment say nothing about bytes."""


def _new_array(*_: object) -> PickledArray:
    return PickledArray()


def _as_bytes(text: str, encoding: str) -> bytes:
    """Stands for codecs.encode, with which Python 3 writes bytes for Python 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in {encoding!r}")
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy.core.multiarray", "_reconstruct"): _new_array,
    ("numpy._core.multiarray", "_reconstruct"): _new_array,
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _as_bytes,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"asks for {module}.{name}")
        return _KNOWN[module, name]
