"""The browser's pixels against those of the one decoder, bit for bit, in a real Chromium."""

from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from builders_png import CHANNELS, KINDS, Png, chunk, write_png
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import tinylens.webpage
from tinylens.data.images import MAX_PIXELS, MAX_SIDE, ImageRule, decode
from tinylens.errors import DataError

CHROMIUM = shutil.which("chromium")
playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium to decode with")

STATIC = Path(tinylens.webpage.__file__).parent / "static"
SITE = "http://tinylens.test/"
PIXELS = """async ([content, rule, most]) => {
  const { pixelsOf } = await import("/pixels.js");
  const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
  try {
    const { height, width, channels, data } = await pixelsOf(bytes, rule, most);
    return { shape: [height, width, channels], data: btoa(String.fromCharCode(...data)) };
  } catch (error) {
    return { error: error.message };
  }
}"""
RESIZED = """async ([content, width, height, channels, newWidth, newHeight]) => {
  const { resized } = await import("/resample.js");
  const data = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
  const result = resized({ width, height, channels, data }, newWidth, newHeight);
  return btoa(String.fromCharCode(...result.data));
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


def picture(kind, shape, most, seed):
    """Values from 0 to `most`: what rounds, overshoots, rises or stays."""
    rng = np.random.default_rng(seed)
    if kind == "noise":
        return rng.integers(0, most + 1, shape)
    if kind == "extremes":
        return rng.integers(0, 2, shape) * most
    if kind == "flat":
        return np.full(shape, rng.integers(0, most + 1))
    return np.indices(shape).sum(axis=0) * max(most // 255, 1) % (most + 1)


@settings(max_examples=300, deadline=None)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    new=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    channels=st.sampled_from([1, 3]),
    kind=LEVELS,
    seed=st.integers(0, 10**6),
)
def test_a_picture_is_resampled_as_pillow_does(page, size, new, channels, kind, seed):
    pixels = picture(kind, (*size, channels), 255, seed).astype(np.uint8)
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    expected = np.asarray(image.resize((new[1], new[0]), Image.Resampling.BICUBIC))
    given = [encoded(pixels.tobytes()), size[1], size[0], channels, new[1], new[0]]
    found = np.frombuffer(base64.b64decode(page.evaluate(RESIZED, given)), np.uint8)
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1), (1999, 1201), (28, 28), (31, 33)])
@pytest.mark.parametrize("new", [(28, 28), (32, 32), (224, 160), (1, 1)])
def test_large_and_odd_pictures_are_resampled_as_pillow_does(page, size, new):
    pixels = picture("noise", size, 255, 7).astype(np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize(new[::-1], Image.Resampling.BICUBIC))
    given = [encoded(pixels.tobytes()), size[1], size[0], 1, new[1], new[0]]
    found = np.frombuffer(base64.b64decode(page.evaluate(RESIZED, given)), np.uint8)
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


@st.composite
def pngs(draw):
    """A PNG of any kind, with or without what is transparent."""
    kind, depth = draw(st.sampled_from(KINDS))
    shape = (draw(st.integers(1, 40)), draw(st.integers(1, 40)), CHANNELS[kind])
    most = 2**depth - 1
    seed = draw(st.integers(0, 10**6))
    samples = picture(draw(LEVELS), shape, most, seed)
    rng = np.random.default_rng(seed)
    palette = rng.integers(0, 256, 3 * (most + 1), np.uint8).tobytes() if kind == 3 else b""
    transparency = None
    if kind == 3 and draw(st.booleans()):
        transparency = rng.integers(0, 256, draw(st.integers(1, most + 1)), np.uint8).tobytes()
    elif kind in (0, 2) and draw(st.booleans()):
        transparency = samples[0, 0].astype(">u2").tobytes()  # a colour that occurs
    return Png(kind, depth, samples, draw(st.booleans()), palette, transparency, seed)


RULES = st.builds(
    ImageRule,
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
    background=st.tuples(*[st.integers(0, 255)] * 3),
)


@settings(max_examples=500, deadline=None)
@given(png=pngs(), rule=RULES)
def test_every_kind_of_png_gives_the_decoder_s_pixels(page, png, rule):
    assert_same(page, write_png(png), rule)
