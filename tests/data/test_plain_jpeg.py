from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from builders_data import encoded, noise
from tinylens.data import plain_jpeg
from tinylens.data.encoded import Options
from tinylens.data.images import ImageRule, decode
from tinylens.data.plain_jpeg import agrees_with_pillow, decode_into, read_frame
from tinylens.data.readers.folder import read

ROOT = Path(__file__).parents[2]
CIFAR10 = Path(os.environ.get("TINYLENS_TEST_DATA", ROOT / "../shared/data")) / "cifar10"


def image_of(array: np.ndarray) -> Image.Image:
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def jpeg(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    image_of(array).save(file, "JPEG", **options)
    return file.getvalue()


def smooth(height: int, width: int, channels: int, seed: int) -> np.ndarray:
    """An image with edges and slopes, unlike noise."""
    small = image_of(noise(3, 3, channels, seed=seed))
    large = small.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(large).reshape(height, width, channels)


@settings(max_examples=400, deadline=None)
@given(
    height=st.integers(1, 97),
    width=st.integers(1, 97),
    channels=st.sampled_from([1, 3]),
    draw=st.sampled_from([noise, smooth]),
    seed=st.integers(0, 2**16),
    quality=st.integers(1, 100),
    subsampling=st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    flags=st.fixed_dictionaries({"progressive": st.booleans(), "optimize": st.booleans()}),
)
def test_plain_jpegs_have_pillows_pixels(
    height, width, channels, draw, seed, quality, subsampling, flags
):
    image = draw(height, width, channels, seed=seed)
    content = jpeg(image, quality=quality, subsampling=subsampling, **flags)
    frame = read_frame(content)
    assert frame is not None and frame[:3] == (width, height, channels == 1)
    for wanted in {channels, 3}:
        pixels = np.zeros((height, width, wanted), np.uint8)
        assert decode_into(content, pixels)
        assert np.array_equal(pixels, decode(content, ImageRule(height, width, wanted)).image)


def test_this_installation_decodes_as_pillow_does():
    assert agrees_with_pillow()


def test_another_libjpeg_would_be_noticed(monkeypatch):
    def rounds_differently(content, pixels):
        done = decode_into(content, pixels)
        pixels[0, 0, 0] ^= 1
        return done

    monkeypatch.setattr(plain_jpeg, "decode_into", rounds_differently)
    assert not agrees_with_pillow.__wrapped__()


def test_without_simplejpeg_nothing_is_plain(monkeypatch):
    monkeypatch.setattr(plain_jpeg, "simplejpeg", None)
    assert read_frame(jpeg(noise(8, 8, 3))) is None
    assert not agrees_with_pillow.__wrapped__()


def test_a_header_seen_before_is_not_read_again():
    first, second = (jpeg(noise(8, 8, 3, seed=seed)) for seed in (1, 2))
    frame = read_frame(first)
    assert read_frame(second, frame) is frame
    assert read_frame(jpeg(noise(8, 9, 3)), frame)[:3] == (9, 8, False)
    assert read_frame(second[:-1], frame) is None


PLAIN = jpeg(noise(16, 16, 3))
EXIF = Image.Exif()
EXIF[0x0112] = 6


@pytest.mark.parametrize(
    "content",
    [
        jpeg(noise(16, 16, 3), exif=EXIF),
        jpeg(noise(16, 16, 3), icc_profile=b"a profile"),
        jpeg(np.zeros((16, 16, 4), np.uint8)[..., :3], exif=b"Exif\0\0"),
        PLAIN[:2] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0" + PLAIN[2:],
        PLAIN.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"),
        PLAIN.replace(b"\xff\xc0\0\x11", b"\xff\xc3\0\x11"),
        PLAIN.replace(b"\x03\x01\x22\0\x02\x11", b"\x03\x01\x12\0\x02\x11"),
        PLAIN.replace(b"\xff\xc0\0\x11\x08\0\x10\0\x10", b"\xff\xc0\0\x11\x08\0\0\0\x10"),
        PLAIN.replace(b"JFIF\0", b"JFXX\0"),
        PLAIN[:-1],
        PLAIN + b"more",
        b"",
        b"\xff\xd9",
        b"\xff\xd8\xff\xd9",
        encoded(noise(8, 8, 3)),
    ],
    ids=[
        *("turned", "profile", "exif", "adobe", "12 bits", "lossless", "sampling", "no lines"),
        *("no JFIF", "cut", "more behind", "empty", "end alone", "no frame", "png"),
    ],
)
def test_what_is_not_plain_is_left_to_pillow(content):
    assert content != PLAIN
    assert read_frame(content) is None


def test_cmyk_is_left_to_pillow():
    file = io.BytesIO()
    Image.new("CMYK", (8, 8)).save(file, "JPEG")
    assert read_frame(file.getvalue()) is None


def test_damaged_pixels_are_left_to_pillow():
    frame = read_frame(PLAIN)
    damaged = frame.header + PLAIN[len(frame.header) : -40] + b"\xff\xd9"
    assert read_frame(damaged, frame) is frame
    assert not decode_into(damaged, np.zeros((16, 16, 3), np.uint8))


@settings(max_examples=300, deadline=None)
@given(st.integers(2, len(PLAIN) - 3), st.integers(0, 255), st.sampled_from([1, 3]))
def test_a_changed_byte_gives_pillows_pixels_or_none(position, value, channels):
    content = PLAIN[:position] + bytes([value]) + PLAIN[position + 1 :]
    frame = read_frame(content)
    if frame is None or frame[:2] != (16, 16):
        return
    pixels = np.zeros((16, 16, 3), np.uint8)
    if decode_into(content, pixels):
        assert np.array_equal(pixels, decode(content, ImageRule(16, 16, 3)).image)


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR10.is_dir(), reason="CIFAR-10 (JPEG) is not on this machine")
@pytest.mark.parametrize("part", ["train", "test"])
def test_cifar_10_has_pillows_pixels(part):
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(CIFAR10 / f"{part}.parquet", columns=["img"])
    pixels = np.empty((32, 32, 3), np.uint8)
    for cell in table.column("img").to_pylist():
        content = cell["bytes"]
        assert read_frame(content)[:3] == (32, 32, False)
        assert decode_into(content, pixels)
        assert np.array_equal(pixels, np.asarray(Image.open(io.BytesIO(content))))


def test_with_and_without_simplejpeg_a_folder_is_read_alike(tmp_path):
    """Without it: as where the runtime alone is installed, in a process that cannot import it."""
    for number in range(12):
        path = tmp_path / "pets" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(noise(16, 12, 3, seed=number), quality=30 + 5 * number))
    script = (
        "import sys, json; sys.modules['simplejpeg'] = None\n"
        "from pathlib import Path\n"
        "from tinylens.data.readers import folder as image_folder\n"
        "from tinylens.data.encoded import Options\n"
        f"data = image_folder.read({str(tmp_path / 'pets')!r}, "
        f"Options(data_dir=Path({str(tmp_path / 'without')!r})))\n"
        "print(json.dumps([data.fingerprint, sys.modules['simplejpeg']]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
    )
    data = read(tmp_path / "pets", Options(data_dir=tmp_path / "with"))
    assert json.loads(done.stdout) == [data.fingerprint, None]
