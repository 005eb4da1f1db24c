"""Image decoding and preprocessing to the network's input size.

Training, evaluation, prediction and the server share this code, so preprocessing never differs.
Wraps Pillow, which clips 16-bit images, blackens float images and raises many error types.
"""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from tinylens.data.dataset import Aspect, Dataset
from tinylens.errors import DataError

Pixels = NDArray[np.uint8]
Size = tuple[int, ...]  # height and width in pixels


def cropped(image: Image.Image, height: int, width: int) -> Image.Image:
    """Center-crop to the aspect ratio height : width, without resizing.

    >>> cropped(Image.new("L", (60, 20)), 8, 16).size
    (40, 20)
    """
    across, down = image.size
    if _is_wider((down, across), height, width):
        across = _share(down, width, height)
    else:
        down = _share(across, height, width)
    left, top = (image.width - across) // 2, (image.height - down) // 2
    return image.crop((left, top, left + across, top + down))


def inner_size(size: Size, height: int, width: int) -> tuple[int, int]:
    """Return (height, width) of an image of `size` within its padding to height × width.

    >>> inner_size((20, 60), 8, 16)
    (5, 16)
    """
    if _is_wider(size, height, width):
        return _share(size[0], width, size[1]), width
    return height, _share(size[1], height, size[0])


def outer_size(size: Size, height: int, width: int) -> tuple[int, int]:
    """Return the padded size with ratio height : width around an unscaled image.

    >>> outer_size((20, 60), 8, 16)
    (30, 60)
    """
    if _is_wider(size, height, width):
        return max(_share(size[1], height, width), size[0]), size[1]
    return size[0], max(_share(size[0], width, height), size[1])


def padded(inner: Pixels, height: int, width: int) -> Pixels:
    """Center an image on a height × width canvas of its mean edge colour.

    Args:
        inner: uint8, shape (h, w, channels), as high or as wide as the result.
        height: Output height in pixels.
        width: Output width in pixels.
    """
    down, across, channels = inner.shape
    if (down, across) == (height, width):
        return inner
    edges = inner[[0, -1]] if down < height else inner[:, [0, -1]]
    sums = edges.sum(axis=(0, 1), dtype=np.int64)
    count = edges.shape[0] * edges.shape[1]
    result = np.empty((height, width, channels), np.uint8)
    result[:] = (2 * sums + count) // (2 * count)  # rounded
    top, left = (height - down) // 2, (width - across) // 2
    result[top : top + down, left : left + across] = inner
    return result


def _is_wider(size: Size, height: int, width: int) -> bool:
    return size[1] * height > size[0] * width


def _share(side: int, times: int, of: int) -> int:
    """Return side · times / of, rounded, at least 1."""
    return max((2 * side * times + of) // (2 * of), 1)


ORIENTATION_TAG = 0x0112
SHORT = 3  # the TIFF number of a 16-bit value

_JPEG_APP1 = 0xE1  # EXIF, and XMP
_JPEG_START_OF_SCAN = 0xDA
_PNG_ANIMATION = (b"acTL", b"fcTL", b"fdAT")


class Header(NamedTuple):
    """Parsed image header.

    Attributes:
        kind: "PNG", "JPEG", "WEBP", "BMP" or "GIF".
        canvas: width and height as declared, or (0, 0) where opening the image reads no more
            than the header anyway.
        content: the bytes without what is not needed: EXIF in a JPEG, the animation in a PNG.
        exif: EXIF removed from a JPEG, or b"".
        frames: images in an animated PNG, else 1: the other formats tell while they are decoded.
    """

    kind: str
    canvas: tuple[int, int]
    content: bytes
    exif: bytes = b""
    frames: int = 1


def read_header(content: bytes) -> Header:
    """Parse an image header by content, ignoring file name and media type.

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
    """Detect the image format from its magic bytes.

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
        f"not an image: starts with {content[:8]!r}, expected PNG, JPEG, WebP, BMP or GIF"
    )


def orientation(exif: bytes) -> int:
    r"""Return the EXIF orientation, 1 to 8; 1 (upright) if missing or invalid.

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
    """Return the declared size for formats whose Pillow plugin allocates on open."""
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
    """Strip the APP1 segments of a JPEG; return it and the first EXIF."""
    kept, end, exif = [content[:2]], 2, b""
    for start, end, marker in jpeg_segments(content):
        if marker != _JPEG_APP1:
            kept.append(content[start:end])
        elif not exif and content[start + 4 : end].startswith(b"Exif\0\0"):
            exif = content[start + 4 : end]
    return b"".join([*kept, content[end:]]), exif


def jpeg_segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (start, end, marker) of the complete segments before the pixels."""
    start = 2
    while start + 4 <= len(content):
        prefix, marker, length = struct.unpack_from(">BBH", content, start)
        end = start + 2 + length
        if prefix != 0xFF or marker == _JPEG_START_OF_SCAN or end > len(content):
            return
        yield start, end, marker
        start = end


def _without_animation(content: bytes) -> tuple[bytes, int]:
    """Reduce an animated PNG to its first frame; return it and the frame count."""
    kept, end, frames = [content[:8]], 8, 0
    for start, end, name in _png_chunks(content):
        if name not in _PNG_ANIMATION:
            kept.append(content[start:end])
        frames += name == b"fcTL"
    return b"".join([*kept, content[end:]]), max(frames, 1)


def _png_chunks(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield (start, end, name) of the complete chunks."""
    start = 8
    while start + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, start)
        end = start + 12 + length
        if end > len(content):
            return
        yield start, end, content[start + 4 : start + 8]
        start = end


# What may be done to an image before it is made small. In: uint8, shape (height, width, 1 or 3),
# upright, opaque, of its own size and cropped or padded by the rule, and its EXIF orientation. Out:
# an image of any size, the very same array where nothing was done.
Treatment = Callable[[Pixels, int], Pixels]

DECODER_VERSION = f"3, Pillow {PIL.__version__}"  # a part of the key of whatever keeps pixels

MAX_PIXELS = 25_000_000  # 75 MB as RGB; a photograph of today's telephones has 12 million
MAX_SIDE = 16_384
MAX_RULE_SIDE = 4_096
TINY_SIDE = 4  # below it an image is more likely a mistake, such as a tracking pixel

# The plugins are called directly: Image.open would try 43 formats, and warn of large images.
_PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "WEBP": WebPImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
}
_UPRIGHT = {  # EXIF orientation → what sets the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_GREY_MODES = ("1", "L", "LA", "I", "I;16")
_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


@dataclass(frozen=True)
class ImageRule:
    """Preprocessing rule from any image to the network's input; stored in the model.

    Images are set upright, brought to 8 bits a channel (16-bit grey divided by 257 and rounded,
    of 16-bit colour the upper byte), composited on `background` where they are transparent, turned
    into grey (ITU-R 601) or RGB, and brought to the size with antialiased bicubic interpolation.

    Attributes:
        height: Output height in pixels.
        width: Output width in pixels.
        channels: 1 for grey, 3 for RGB.
        background: RGB from 0 to 255, behind transparent pixels.
        aspect: Resize mode for another aspect ratio: "stretch"; center "crop"; or "pad" with
            the mean colour of the edges next to the padding.

    Raises:
        DataError: when a value is impossible.

    >>> ImageRule.from_json(ImageRule(28, 28, 1).to_json())
    ImageRule(height=28, width=28, channels=1, background=(255, 255, 255), aspect='stretch')
    """

    height: int
    width: int
    channels: Literal[1, 3]
    background: tuple[int, int, int] = (255, 255, 255)
    aspect: Aspect = "stretch"

    def __post_init__(self) -> None:
        sides_fit = all(_is_int(side, 1, MAX_RULE_SIDE) for side in (self.height, self.width))
        if not sides_fit or not _is_int(self.channels, 1, 3) or self.channels not in (1, 3):
            raise DataError(
                f"image rule: size {self.height}×{self.width} with {self.channels} channels, "
                f"expected sides from 1 to {MAX_RULE_SIDE} and 1 or 3 channels"
            )
        if len(self.background) != 3 or not all(_is_int(v, 0, 255) for v in self.background):
            raise DataError(
                f"image rule: background {self.background}, expected three numbers from 0 to 255"
            )
        if self.aspect not in get_args(Aspect):
            raise DataError(
                f"image rule: aspect {self.aspect!r}, expected {', '.join(get_args(Aspect))}"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return self.height, self.width, self.channels

    def to_json(self) -> dict[str, Any]:
        """Return the rule as JSON values.

        The default aspect "stretch" is omitted.
        """
        tree = {**asdict(self), "background": list(self.background)}
        if self.aspect == "stretch":
            del tree["aspect"]
        return tree

    @staticmethod
    def from_json(tree: Any) -> ImageRule:
        """Return the rule that `to_json` wrote.

        Raises:
            DataError: when `tree` is not such a rule.
        """
        names = {"height", "width", "channels", "background"}
        if not isinstance(tree, Mapping) or set(tree) - {"aspect"} != names:
            raise DataError(f"image rule: found {tree!r}, expected {', '.join(sorted(names))}")
        if not isinstance(tree["background"], list | tuple):
            raise DataError(f"image rule: background {tree['background']!r}, expected a list")
        height, width, channels = tree["height"], tree["width"], tree["channels"]
        aspect = tree.get("aspect", "stretch")
        return ImageRule(height, width, channels, tuple(tree["background"]), aspect)


def rule_of(data: Dataset) -> ImageRule:
    """Return the preprocessing rule that matches `data`."""
    height, width, channels = data.image_shape
    return ImageRule(height, width, 1 if channels == 1 else 3, aspect=data.aspect)


@dataclass(frozen=True)
class Decoded:
    """A decoded image.

    Attributes:
        image: uint8, shape (height, width, channels) of the rule.
        notes: Remarks, such as "animated: first of 3 frames used".
    """

    image: Pixels
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Probed:
    """Header data: upright size in pixels and whether the image is grey."""

    width: int
    height: int
    grey: bool


def decode(content: bytes, rule: ImageRule, treatment: Treatment | None = None) -> Decoded:
    """Decode an image and apply `rule`.

    Supports PNG, JPEG, WebP, BMP and GIF; of an animation, the first frame. A treatment runs
    before downscaling.

    Raises:
        DataError: with a short reason, when `content` is no such image, is cut off, is too
            large or holds floats. The reason names no file: the caller knows which.
    """
    header = read_header(content)
    with _any_error_is_bad_data(header.kind):
        image = _opened(header)
        size = image.size
        image.load()
        turned = _orientation(header, image)
        turn = _UPRIGHT.get(turned)
        upright = image.transpose(turn) if turn is not None else image
        pixels = _fitted(upright, rule) if treatment is None else _own(upright, rule)
        frames = max(header.frames, getattr(image, "n_frames", 1))  # a GIF is read on to count
    if treatment is not None:
        pixels = _treated(upright, pixels, rule, treatment, turned)
    return Decoded(pixels, _notes(size, frames))


def probe(content: bytes) -> Probed:
    """Read size and colour from the header without decoding pixels.

    Raises:
        DataError: with a short reason, when `content` is no image or too large.
    """
    header = read_header(content)
    with _any_error_is_bad_data(header.kind):
        image = _opened(header)
        width, height = image.size
        if _orientation(header, image) >= 5:  # turned by a quarter
            width, height = height, width
        return Probed(width, height, image.mode in _GREY_MODES)


def convert(images: NDArray[Any], rule: ImageRule, treatment: Treatment | None = None) -> Pixels:
    """Apply `rule` to image arrays, with the same steps as `decode`.

    Args:
        images: uint8, shape (n, h, w) or (n, h, w, channels) with 1, 3 or 4 (RGBA) channels.
        rule: Preprocessing rule.
        treatment: Function applied to each image before downscaling.

    Returns:
        uint8, shape (n, height, width, channels); `images` itself if nothing changes.

    Raises:
        DataError: when type or shape is another.

    >>> convert(np.zeros((2, 8, 8), np.uint8), ImageRule(4, 4, 3)).shape
    (2, 4, 4, 3)
    """
    if images.dtype != np.uint8:
        raise DataError(f"images are {images.dtype}, expected uint8 from 0 to 255")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, 3, 4) or 0 in images.shape[1:3]:
        raise DataError(
            f"images have shape {images.shape}, expected (n, height, width) or "
            "(n, height, width, channels) with 1, 3 or 4 channels"
        )
    if images.shape[1:] == rule.shape and treatment is None:
        return images
    converted = np.empty((len(images), *rule.shape), np.uint8)
    for row, pixels in enumerate(images):
        squeezed = pixels[..., 0] if pixels.shape[2] == 1 else pixels
        image = Image.fromarray(np.ascontiguousarray(squeezed))
        converted[row] = (
            _fitted(image, rule)
            if treatment is None
            else _treated(image, _own(image, rule), rule, treatment)
        )
    return converted


@contextlib.contextmanager
def _any_error_is_bad_data(kind: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # Pillow raises ten types on broken bytes, and lists none of them
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(f"broken {kind}: {reason}") from error


def _opened(header: Header) -> ImageFile.ImageFile:
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise DataError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set, which turns cut-off images grey; "
            "expected False: unset it where your program sets it"
        )
    _check_size(*header.canvas)
    image = _PLUGINS[header.kind](io.BytesIO(header.content))
    _check_size(*image.size)
    return image


def _check_size(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise DataError(
            f"too large: {width}×{height} pixels, expected sides up to {MAX_SIDE} and "
            f"{MAX_PIXELS // 1_000_000} million pixels in all"
        )


def _orientation(header: Header, image: Image.Image) -> int:
    exif = header.exif or image.info.get("exif", b"")
    return orientation(exif) if isinstance(exif, bytes) else 1


def _own(image: Image.Image, rule: ImageRule) -> Pixels:
    """Return unscaled opaque pixels, (height, width, 1 or 3), cropped or padded by the rule."""
    image = _flat(_eight_bit(image), rule.background)
    image = image.convert("L" if image.mode in _GREY_MODES else "RGB")
    if rule.aspect == "crop":
        image = cropped(image, rule.height, rule.width)
    pixels = np.array(image).reshape(*image.size[::-1], -1)
    if rule.aspect != "pad":
        return pixels
    height, width = outer_size(pixels.shape[:2], rule.height, rule.width)
    if height * width > MAX_PIXELS:  # a strip would become a square of a gigabyte
        return pixels
    return padded(pixels, height, width)


def _treated(
    image: Image.Image, own: Pixels, rule: ImageRule, treatment: Treatment, orientation: int = 1
) -> Pixels:
    """Return a treated image at network size; an unchanged one is fitted directly."""
    treated = treatment(own, orientation)
    return _fitted(image, rule) if treated is own else convert(treated[None], rule)[0]


def _fitted(image: Image.Image, rule: ImageRule) -> Pixels:
    image = _flat(_eight_bit(image), rule.background)
    image = image.convert("L" if rule.channels == 1 else "RGB")
    if rule.aspect == "crop":
        image = cropped(image, rule.height, rule.width)
    height, width, _ = rule.shape
    if rule.aspect == "pad":
        height, width = inner_size((image.height, image.width), height, width)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return padded(np.array(image).reshape(height, width, -1), rule.height, rule.width)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits: 65535 / 255 = 257; Pillow would clip it to white."""
    if image.mode in _EIGHT_BIT_MODES:
        return image
    values = np.asarray(image)
    if image.mode not in ("I", "I;16") or values.min() < 0 or values.max() > 65_535:
        raise DataError(
            f"pixels of mode {image.mode} have no known range, expected 8 or 16 bits a channel"
        )
    grey = Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):  # the one grey level that is to be seen through
        opaque = np.where(values == transparent, 0, 255).astype(np.uint8)
        grey = Image.merge("LA", (grey, Image.fromarray(opaque)))
    return grey


def _flat(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Composite transparent pixels on `background`."""
    if not image.has_transparency_data:
        return image
    over = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", over.size, (*background, 255)), over)


def _notes(size: tuple[int, int], frames: int) -> tuple[str, ...]:
    notes = []
    if frames > 1:
        notes.append(f"animated: first of {frames} frames used")
    if min(size) < TINY_SIDE:
        notes.append(f"tiny: {size[0]}×{size[1]}")
    return tuple(notes)


def _is_int(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
