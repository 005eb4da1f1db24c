"""Canonical image order, independent of file names and container format.

Within a split, rows are sorted by the SHA-256 of their encoded bytes. A folder, an archive and a
table of the same images thus give the same fingerprint, splits and, from the same seed, weights.
The order is effectively shuffled: any slice is a representative sample of the classes.
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
    """Return the kept rows in canonical order, split by split, and each split's range.

    Ties between identical bytes are broken by label, then by name.

    Args:
        parts: Row range of each split.
        broken: Rows to drop.
        digests: SHA-256 of each image's encoded bytes.
        labels: Label of each image.
        names: Name of each image.

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
    """Rewrite a .npy file with only `rows`, in order, block by block."""
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
