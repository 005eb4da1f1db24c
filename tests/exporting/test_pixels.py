"""The browser's pixels against those of the one decoder, bit for bit, in a real Chromium."""

from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tinylens.data.images import MAX_PIXELS, MAX_SIDE, ImageRule, decode
from tinylens.errors import DataError
from tinylens.exporting.webpage import page as webpage

CHROMIUM = shutil.which("chromium")
playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium to decode with")

STATIC = Path(webpage.__file__).parent / "static"
SITE = "http://tinylens.test/"
PIXELS = """async ([content, rule, most]) => {
  const { pixelsOf } = await import("/pixels.js");
  const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
  try {
    const { height, width, channels, data } = await pixelsOf(new Blob([bytes]), rule, most);
    const letters = Array.from(data, (value) => String.fromCharCode(value));
    return { shape: [height, width, channels], data: btoa(letters.join("")) };
  } catch (error) {
    return { error: error.message };
  }
}"""
RESIZED = """async ([content, width, height, channels, newWidth, newHeight]) => {
  const { resized } = await import("/resample.js");
  const data = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
  const result = resized({ width, height, channels, data }, newWidth, newHeight);
  return btoa(Array.from(result.data, (value) => String.fromCharCode(value)).join(""));
}"""
MOST = {"pixels": MAX_PIXELS, "side": MAX_SIDE}
LEVELS = st.sampled_from(["noise", "extremes", "ramp", "flat"])


@pytest.fixture(scope="module")
def page():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page()
        opened.route(f"{SITE}**", serve)
        opened.goto(f"{SITE}index.html")
        yield opened
        browser.close()


def serve(route):
    name = route.request.url.removeprefix(SITE)
    if name.endswith(".js"):
        route.fulfill(path=STATIC / name, content_type="text/javascript")
    else:
        route.fulfill(body="<!doctype html>", content_type="text/html")


def in_browser(page, content, rule):
    """The pixels, or the words of a refusal."""
    found = page.evaluate(PIXELS, [encoded(content), rule.to_json(), MOST])
    if "error" in found:
        return found["error"]
    return np.frombuffer(base64.b64decode(found["data"]), np.uint8).reshape(found["shape"])


def encoded(content):
    return base64.b64encode(content).decode()


def assert_same(page, content, rule):
    np.testing.assert_array_equal(in_browser(page, content, rule), decode(content, rule).image)


def make_image(kind, shape, most, seed):
    """Values from 0 to `most`: what rounds, overshoots, rises or stays."""
    rng = np.random.default_rng(seed)
    if kind == "noise":
        return rng.integers(0, most + 1, shape)
    if kind == "extremes":
        return rng.integers(0, 2, shape) * most
    if kind == "flat":
        return np.full(shape, rng.integers(0, most + 1))
    return np.indices(shape).sum(axis=0) * max(most // 255, 1) % (most + 1)


def smooth(shape, seed):
    """An image whose neighbours are alike, as in photographs."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, shape[2])).astype(np.uint8)
    image = Image.fromarray(small[..., 0] if shape[2] == 1 else small)
    return np.asarray(image.resize(shape[1::-1], Image.Resampling.BICUBIC)).reshape(shape)


def saved(pixels, format, **options):
    buffer = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)
    image.save(buffer, format, **options)
    return buffer.getvalue()


@settings(max_examples=150, deadline=None)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    new=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    channels=st.sampled_from([1, 3]),
    kind=LEVELS,
    seed=st.integers(0, 10**6),
)
def test_a_image_is_resampled_as_pillow_does(page, size, new, channels, kind, seed):
    pixels = make_image(kind, (*size, channels), 255, seed).astype(np.uint8)
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    expected = np.asarray(image.resize((new[1], new[0]), Image.Resampling.BICUBIC))
    given = [encoded(pixels.tobytes()), size[1], size[0], channels, new[1], new[0]]
    found = np.frombuffer(base64.b64decode(page.evaluate(RESIZED, given)), np.uint8)
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1), (1999, 1201), (28, 28), (31, 33)])
@pytest.mark.parametrize("new", [(28, 28), (32, 32), (224, 160), (1, 1)])
def test_large_and_odd_images_are_resampled_as_pillow_does(page, size, new):
    pixels = make_image("noise", size, 255, 7).astype(np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize(new[::-1], Image.Resampling.BICUBIC))
    given = [encoded(pixels.tobytes()), size[1], size[0], 1, new[1], new[0]]
    found = np.frombuffer(base64.b64decode(page.evaluate(RESIZED, given)), np.uint8)
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


RULES = st.builds(
    ImageRule,
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
    background=st.tuples(*[st.integers(0, 255)] * 3),
    aspect=st.sampled_from(["stretch", "pad", "crop"]),
)


@settings(max_examples=150, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    mode=st.sampled_from(["1", "L", "P", "RGB"]),
    kind=LEVELS,
    seed=st.integers(0, 10**6),
    rule=RULES,
)
def test_an_opaque_png_gives_the_decoder_s_pixels(page, size, mode, kind, seed, rule):
    image = Image.fromarray(make_image(kind, (*size, 3), 255, seed).astype(np.uint8))
    buffer = io.BytesIO()
    image.convert(mode).save(buffer, "PNG")
    assert_same(page, buffer.getvalue(), rule)


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (17, 130, 201)])
@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_every_alpha_on_every_value_is_one_level_off_at_most(page, format, background):
    """A canvas rounds in its own way; what is opaque or clear is exact."""
    value, alpha = np.meshgrid(np.arange(256), np.arange(256))
    pixels = np.stack([value, 255 - value, value // 2, alpha], axis=2).astype(np.uint8)
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    content, rule = saved(pixels, format, **options), ImageRule(256, 256, 3, background)
    found, expected = in_browser(page, content, rule), decode(content, rule).image
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert np.array_equal(found[[0, 255]], expected[[0, 255]])


def test_16_bits_a_channel_are_one_level_off_at_most(page):
    content = saved(make_image("noise", (40, 30, 1), 65535, 2).astype(np.uint16), "PNG")
    found = in_browser(page, content, ImageRule(40, 30, 1))
    expected = decode(content, ImageRule(40, 30, 1)).image
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_a_rule_that_the_page_cannot_follow_is_refused_in_words(page):
    """A model of a later tinylens: no answer is better than one by other pixels."""
    rule = ImageRule(8, 8, 3).to_json() | {"aspect": "spiral"}
    content = saved(np.zeros((4, 9, 3), np.uint8), "PNG")
    found = page.evaluate(PIXELS, [encoded(content), rule, MOST])
    assert found["error"].startswith(
        "the model wants images brought to its size by “spiral”, and this page knows stretch, "
        "crop, pad; export it anew"
    )


@pytest.mark.parametrize("aspect", ["stretch", "pad", "crop"])
@pytest.mark.parametrize(
    "size",
    [
        (1, 3000),
        (3000, 1),
        pytest.param((1999, 1201), marks=pytest.mark.slow),  # 4 to 5 s each
        (31, 33),
        (28, 28),
    ],
)
def test_large_and_odd_images_are_framed_as_the_decoder_does(page, size, aspect):
    pixels = make_image("noise", (*size, 3), 255, 7).astype(np.uint8)
    for rule in (ImageRule(28, 28, 1, aspect=aspect), ImageRule(64, 20, 3, aspect=aspect)):
        assert_same(page, saved(pixels, "PNG"), rule)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_exif_sets_a_image_upright_once(page, format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(smooth((24, 40, 3), 3), format, exif=exif, quality=90)
    assert_same(page, content, ImageRule(31, 17, 3))


# measured in Chromium 156: it decodes by the same libraries as Pillow, with the same settings
FORMATS = {
    "grey JPEG": ("JPEG", {"quality": 90}, 1),
    "JPEG 4:4:4": ("JPEG", {"quality": 92, "subsampling": 0}, 3),
    "JPEG 4:2:2": ("JPEG", {"quality": 75, "subsampling": 1}, 3),
    "JPEG 4:2:0": ("JPEG", {"quality": 60, "subsampling": 2}, 3),
    "progressive JPEG": ("JPEG", {"quality": 80, "progressive": True}, 3),
    "WebP": ("WEBP", {"quality": 80}, 3),
    "lossless WebP": ("WEBP", {"lossless": True}, 3),
    "BMP": ("BMP", {}, 3),
    "GIF": ("GIF", {}, 3),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", [(32, 32), (97, 61)])
def test_other_formats_give_the_decoder_s_pixels_in_chromium(page, name, size):
    format, options, channels = FORMATS[name]
    for seed in range(3):
        content = saved(smooth((*size, channels), seed), format, **options)
        for rule in (ImageRule(32, 32, 3), ImageRule(28, 28, 1), ImageRule(*size, 3)):
            assert_same(page, content, rule)


# an image of the first 40 % of these bytes is refused by the decoder, too
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_what_is_cut_off_is_refused(page, format):
    content = saved(smooth((64, 64, 3), 1), format)
    content = content[: len(content) * 2 // 5]
    with pytest.raises(DataError):
        decode(content, ImageRule(28, 28, 3))
    found = in_browser(page, content, ImageRule(28, 28, 3))
    assert isinstance(found, str) and found.startswith("not an image: expected a whole"), found


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty file"),
        (b"<svg/>", "not an image: expected a whole PNG, JPEG, WebP, BMP or GIF"),
        (
            saved(np.zeros((1, 20_000), np.uint8), "PNG"),
            "too large: 20000×1 pixels, expected sides up to 16384 and 25 million pixels in all",
        ),
        (b"\x89PNG\r\n\x1a\n", "not an image: expected a whole PNG, JPEG, WebP, BMP or GIF"),
    ],
)
def test_what_is_no_image_is_refused_in_words(page, content, words):
    with pytest.raises(DataError):
        decode(content, ImageRule(28, 28, 3))
    assert in_browser(page, content, ImageRule(28, 28, 3)) == words
