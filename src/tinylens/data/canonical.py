"""One order for the images of a set, whatever they came in and whatever they are called.

The rows of a part stand in the order of the SHA-256 of their encoded bytes. So a folder, an archive
and a table of the same images are the same data set: the same fingerprint, the same parts carved
out, the same weights from the same seed. The order is also as good as shuffled: any stretch of rows
is a fair sample of the classes, which the folders of a set, class after class, are not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

BLOCK_BYTES = 8_000_000  # of pixels that are moved at a time

Bounds = dict[str, list[int]]


def canonical_rows(
    parts: Mapping[str, tuple[int, int]],
    broken: Collection[int],
    digests: Sequence[str],
    labels: Sequence[int],
    names: Sequence[str],
) -> tuple[list[int], Bounds]:
    """Return the rows to keep, part after part in canonical order, and where each part lies then.

    Images of the same bytes stand in the order of their labels; those of one label are the same
    in all that the set holds, and stand in the order of their names.

    Args:
        parts: rows from and up to which each part goes.
        broken: rows to leave out.
        digests: of each image's encoded bytes.
        labels: of each image.
        names: of each image.

    >>> canonical_rows({"train": (0, 3), "test": (3, 4)}, {1}, "cbaz", [0, 0, 0, 0], "0123")
    ([2, 0, 3], {'train': [0, 2], 'test': [2, 3]})
    """
    kept: list[int] = []
    bounds: Bounds = {}
    for part, (start, stop) in parts.items():
        before = len(kept)
        rows = (row for row in range(start, stop) if row not in broken)
        kept += sorted(rows, key=lambda row: (digests[row], labels[row], names[row]))
        bounds[part] = [before, len(kept)]
    return kept, bounds


def keep_rows(path: Path, rows: Sequence[int]) -> None:
    """Write a .npy file anew with `rows` alone, in their order; in blocks, beyond memory too."""
    kept = path.with_name("kept.npy")
    old = np.load(path, mmap_mode="r", allow_pickle=False)
    index = np.asarray(rows, np.int64)
    shape = (len(index), *old.shape[1:])
    step = max(1, BLOCK_BYTES // old[0].nbytes)
    with kept.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(index), step):
            file.write(np.take(old, index[start : start + step], axis=0).data)
    kept.replace(path)
