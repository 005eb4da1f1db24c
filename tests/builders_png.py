"""PNGs of every kind that the format knows; Pillow itself writes but a few of them."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

import numpy as np

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
KINDS = [  # colour type and depth
    *((0, depth) for depth in (1, 2, 4, 8, 16)),
    *((2, depth) for depth in (8, 16)),
    *((3, depth) for depth in (1, 2, 4, 8)),
    *((4, depth) for depth in (8, 16)),
    *((6, depth) for depth in (8, 16)),
]
ADAM7 = [
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
]


@dataclass(frozen=True, eq=False)
class Png:
    """What to write.

    Attributes:
        kind: colour type.
        depth: bits of a sample.
        samples: integers, shape (height, width, channels).
        interlaced: in seven passes.
        palette: bytes, three a colour.
        transparency: bytes of the part tRNS, or None.
        seed: of the filters of the rows.
        extra: parts before the pixels, by name.
    """

    kind: int
    depth: int
    samples: np.ndarray
    interlaced: bool = False
    palette: bytes = b""
    transparency: bytes | None = None
    seed: int = 0
    extra: dict[bytes, bytes] = field(default_factory=dict)


def write_png(png: Png) -> bytes:
    height, width, _ = png.samples.shape
    header = struct.pack(">IIBBBBB", width, height, png.depth, png.kind, 0, 0, png.interlaced)
    rng = np.random.default_rng(png.seed)
    passes = ADAM7 if png.interlaced else [(0, 0, 1, 1)]
    parts = (png.samples[y::down, x::right] for x, y, right, down in passes)
    rows = b"".join(_filtered(png, part, rng) for part in parts if part.size)
    packed = zlib.compress(rows)
    middle = len(packed) // 2  # pixels may be in several parts
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *(chunk(name, body) for name, body in png.extra.items()),
            chunk(b"PLTE", png.palette) if png.palette else b"",
            chunk(b"tRNS", png.transparency) if png.transparency is not None else b"",
            chunk(b"IDAT", packed[:middle]),
            chunk(b"IDAT", packed[middle:]),
            chunk(b"IEND", b""),
        )
    )


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _filtered(png: Png, part: np.ndarray, rng: np.random.Generator) -> bytes:
    pixel = max(1, CHANNELS[png.kind] * png.depth // 8)
    rows = [_bits(row.reshape(-1), png.depth) for row in part]
    above = np.zeros(len(rows[0]), np.uint8)
    written = []
    for row in rows:
        left = np.concatenate([np.zeros(pixel, np.uint8), row])[: len(row)].astype(int)
        corner = np.concatenate([np.zeros(pixel, np.uint8), above])[: len(row)].astype(int)
        up = above.astype(int)
        kind = int(rng.integers(5))
        guess = [0, left, up, (left + up) // 2, _paeth(left, up, corner)][kind]
        written.append(bytes([kind]) + ((row.astype(int) - guess) % 256).astype(np.uint8).tobytes())
        above = row
    return b"".join(written)


def _paeth(left: np.ndarray, up: np.ndarray, corner: np.ndarray) -> np.ndarray:
    by_left, by_up, by_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    nearest = np.where(by_up <= by_corner, up, corner)
    return np.where((by_left <= by_up) & (by_left <= by_corner), left, nearest)


def _bits(samples: np.ndarray, depth: int) -> np.ndarray:
    if depth == 16:
        return np.frombuffer(samples.astype(">u2").tobytes(), np.uint8)
    bits = (samples[:, None] >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.reshape(-1).astype(np.uint8))
