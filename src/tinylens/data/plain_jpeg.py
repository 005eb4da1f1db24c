"""Fast JPEG decoding with simplejpeg, bit-identical to Pillow.

Both bundle libjpeg-turbo with the accurate DCT and smooth chroma upsampling. Only plain JPEGs
qualify: 8 bits, grey or YCbCr in one of the three usual samplings, no EXIF, no colour profile,
complete, no warnings. `images.decode` handles all others.
"""

from __future__ import annotations

import functools
import io
import itertools
import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinylens.data.images import jpeg_segments

try:
    import simplejpeg
except ImportError:  # the runtime alone is installed; Pillow decodes everything
    simplejpeg = None

MAX_SIDE = 1_024  # a larger image is stretched anyway, by Pillow

_END = b"\xff\xd9"
_START_OF_SCAN = b"\xff\xda"
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive; not lossless, not arithmetic
_JFIF = 0xE0
_TABLES = (0xC4, 0xDB, 0xDD, 0xFE)  # Huffman, quantization, restart interval; and comments
_LUMA = ((1, 1), (2, 1), (2, 2))  # samples across and down for one of colour: 4:4:4, 4:2:2, 4:2:0
_SAMPLINGS = (*((luma,) for luma in _LUMA), *((luma, (1, 1), (1, 1)) for luma in _LUMA))


class Frame(NamedTuple):
    """Header of a plain JPEG: size in pixels, grey flag, bytes."""

    width: int
    height: int
    grey: bool
    header: bytes


def read_frame(content: bytes, like: Frame | None = None) -> Frame | None:
    """Parse the header of a plain JPEG; None for anything else.

    Args:
        content: File content.
        like: Frame of another image. Files from one program mostly share their header bytes,
            and comparing takes a thirtieth of the time of parsing.
    """
    if not content.endswith(_END):
        return None
    if like is not None and content.startswith(like.header):
        return like
    if simplejpeg is None or not content.startswith(b"\xff\xd8\xff"):
        return None
    frames, markers, end = [], set(), 2
    for start, end, marker in jpeg_segments(content):
        body = content[start + 4 : end]
        if marker in _FRAMES:
            frames.append(_sizes(body))
        elif marker not in _TABLES and not (marker == _JFIF and body.startswith(b"JFIF\0")):
            return None
        markers.add(marker)
    scan = content[end : end + 4]
    if len(frames) != 1 or frames[0] is None or _JFIF not in markers or scan[:2] != _START_OF_SCAN:
        return None
    return Frame(*frames[0], content[: end + 2 + int.from_bytes(scan[2:], "big")])


def _sizes(body: bytes) -> tuple[int, int, bool] | None:
    """Return (width, height, grey) for a plain JPEG's frame header."""
    if len(body) < 6:
        return None
    bits, height, width, count = struct.unpack_from(">BHHB", body)
    if bits != 8 or len(body) != 6 + 3 * count:
        return None
    if not 0 < min(height, width) <= max(height, width) <= MAX_SIDE:
        return None
    sampling = tuple(divmod(body[position], 16) for position in range(7, len(body), 3))
    if sampling not in _SAMPLINGS:
        return None
    return width, height, count == 1


def decode_into(content: bytes, pixels: NDArray[np.uint8]) -> bool:
    """Decode a plain JPEG into `pixels`; return False on any problem.

    Args:
        content: a file of which `read_frame` returned a frame.
        pixels: uint8, shape (height, width, 1 or 3) of that frame, in one piece, written to.
    """
    colours = "GRAY" if pixels.shape[2] == 1 else "RGB"
    try:
        simplejpeg.decode_jpeg(
            content, colours, fastdct=False, fastupsample=False, buffer=pixels, strict=True
        )
    except ValueError:  # an error, or a warning such as of bytes too many
        return False
    return True


@functools.cache
def agrees_with_pillow() -> bool:
    """Return whether the installed simplejpeg matches Pillow bit for bit.

    Guards against versions of libjpeg-turbo that round differently: twelve noise images cover
    each sampling and both coefficient orders in 5 ms.
    """
    if simplejpeg is None:
        return False
    from PIL import Image  # here: a decoding process starts a fifth sooner without Pillow

    noise = np.random.default_rng(0).integers(0, 256, (37, 43, 3), np.uint8)
    for subsampling, progressive in itertools.product((0, 1, 2), (False, True)):
        for image in (Image.fromarray(noise), Image.fromarray(noise[..., 0])):
            file = io.BytesIO()
            image.save(file, "JPEG", subsampling=subsampling, progressive=progressive)
            expected = np.asarray(Image.open(file)).reshape(37, 43, -1)
            pixels = np.empty_like(expected)
            if not decode_into(file.getvalue(), pixels) or not np.array_equal(pixels, expected):
                return False
    return True
