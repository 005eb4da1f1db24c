"""What the bytes of a picture say before any pixel is decoded: format, size, frames, orientation.

Only bytes are looked at here, none is trusted, and what Pillow would stumble over or warn about is
taken out before Pillow sees it: a warning can be neither caught nor silenced for one thread alone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from tinylens.errors import DataError

ORIENTATION_TAG = 0x0112
SHORT = 3  # the TIFF number of a 16-bit value

_JPEG_APP1 = 0xE1  # EXIF, and XMP
_JPEG_START_OF_SCAN = 0xDA
_PNG_ANIMATION = (b"acTL", b"fcTL", b"fdAT")


class Header(NamedTuple):
    """What the bytes say.

    Attributes:
        kind: "PNG", "JPEG", "WEBP", "BMP" or "GIF".
        canvas: width and height as declared, or (0, 0) where opening the picture reads no more
            than the header anyway.
        content: the bytes without what is not needed: EXIF in a JPEG, the animation in a PNG.
        exif: the EXIF that was taken out of a JPEG, or b"".
        frames: pictures in an animated PNG, else 1: the other formats tell while they are decoded.
    """

    kind: str
    canvas: tuple[int, int]
    content: bytes
    exif: bytes = b""
    frames: int = 1


def read_header(content: bytes) -> Header:
    """Return what the bytes say, by their content alone: names and types lie.

    Raises:
        DataError: when `content` starts like none of the five formats.
    """
    kind = sniff(content)
    canvas = _canvas(kind, content)
    if kind == "JPEG" and b"Exif\0\0" in content:
        without, exif = _without_exif(content)
        return Header(kind, canvas, without, exif=exif)
    if kind == "PNG" and b"acTL" in content:
        without, frames = _without_animation(content)
        return Header(kind, canvas, without, frames=frames)
    return Header(kind, canvas, content)


def sniff(content: bytes) -> str:
    """Return the format that `content` starts like.

    Raises:
        DataError: when it is none of the five.

    >>> sniff(b"GIF89a")
    'GIF'
    """
    if not content:
        raise DataError("empty file")
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if content.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if content.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "WEBP"
    if content.startswith(b"BM"):
        return "BMP"
    raise DataError(
        f"not a picture: starts with {content[:8]!r}, expected PNG, JPEG, WebP, BMP or GIF"
    )


def orientation(exif: bytes) -> int:
    r"""Return the EXIF orientation, 1 to 8; 1, upright, where there is none to be understood.

    >>> tag = b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"
    >>> orientation(b"Exif\0\0II*\0\x08\0\0\0\x01\0" + tag)
    6
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return 1
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    if start + 2 > len(tiff):
        return 1
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    for entry in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
        if tag == ORIENTATION_TAG:
            return value if kind == SHORT and 1 <= value <= 8 else 1
    return 1


def _canvas(kind: str, content: bytes) -> tuple[int, int]:
    """Return the declared size in the formats whose Pillow plugin allocates while it opens."""
    if kind == "GIF" and len(content) >= 10:
        width, height = struct.unpack_from("<HH", content, 6)
        return width, height
    if kind != "WEBP" or len(content) < 30:
        return 0, 0
    chunk = content[12:16]
    if chunk == b"VP8X":  # 24 bits each, less one
        sides = int.from_bytes(content[24:27], "little"), int.from_bytes(content[27:30], "little")
        return sides[0] + 1, sides[1] + 1
    if chunk == b"VP8L":  # 14 bits each, less one, after a signature byte
        bits = int.from_bytes(content[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", content, 26)  # VP8: 14 bits and 2 of scaling
    return width & 0x3FFF, height & 0x3FFF


def _without_exif(content: bytes) -> tuple[bytes, bytes]:
    """Return a JPEG without its APP1 segments, and the first EXIF among them."""
    kept, end, exif = [content[:2]], 2, b""
    for start, end, marker in jpeg_segments(content):
        if marker != _JPEG_APP1:
            kept.append(content[start:end])
        elif not exif and content[start + 4 : end].startswith(b"Exif\0\0"):
            exif = content[start + 4 : end]
    return b"".join([*kept, content[end:]]), exif


def jpeg_segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (start, end, marker) of the segments before the pixels, as far as they are whole."""
    start = 2
    while start + 4 <= len(content):
        prefix, marker, length = struct.unpack_from(">BBH", content, start)
        end = start + 2 + length
        if prefix != 0xFF or marker == _JPEG_START_OF_SCAN or end > len(content):
            return
        yield start, end, marker
        start = end


def _without_animation(content: bytes) -> tuple[bytes, int]:
    """Return a PNG with its first picture alone, and the number of frames there were."""
    kept, end, frames = [content[:8]], 8, 0
    for start, end, name in _png_chunks(content):
        if name not in _PNG_ANIMATION:
            kept.append(content[start:end])
        frames += name == b"fcTL"
    return b"".join([*kept, content[end:]]), max(frames, 1)


def _png_chunks(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield (start, end, name) of the chunks, as far as they are whole."""
    start = 8
    while start + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, start)
        end = start + 12 + length
        if end > len(content):
            return
        yield start, end, content[start + 4 : start + 8]
        start = end
