"""explanations.html and its sheets: what they show, and that names cannot break them."""

from __future__ import annotations

import base64
import io
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tinylens.reporting import write
from tinylens.reporting.charts import SIDE, overlay
from tinylens.reporting.explain_page import render
from tinylens.results import Explained, Explanations, Heat, Neighbour, Sheet
from tinylens.run import Run


def explained(number=0, *, label="<b>cat", neighbours=2, channels=3):
    random = np.random.default_rng(number)
    image = random.integers(0, 256, (12, 12, channels), np.uint8)
    heat = random.random((12, 12), np.float32)
    requested = ("<b>cat", "$x^") if label else ("$x^",)
    heats = tuple(Heat(name, 0.25, 3.456, heat) for name in requested)
    near = tuple(Neighbour(row, "owl", 0.5 + row, image) for row in range(neighbours))
    index, path = (number, "") if label else (None, f"{number}.png")
    return Explained(image, index, path, label, "$x^", 0.99996, heats, near)


def mistakes(*titles):
    sheets = tuple(Sheet(title, 7, (explained(0), explained(1))) for title in titles)
    return Explanations("runs/one", "grad-cam", sheets, (3, 3), 31)


def test_a_page_and_a_plot_a_sheet_are_written_and_old_ones_go(tmp_path):
    run = Run(tmp_path)
    write.write_explanations(run, mistakes("<b>cat → $x^", "a/b → c", "d → e"))
    names = sorted(path.name for path in run.plots.iterdir())
    assert names == ["explained-01-b-cat-x.png", "explained-02-a-b-c.png", "explained-03-d-e.png"]
    with Image.open(run.plots / names[0]) as plot:
        assert plot.size[0] > 700
    (run.plots / "curves.png").write_bytes(b"another's")
    write.write_explanations(run, mistakes("d → e"))
    names = sorted(path.name for path in run.plots.iterdir())
    assert names == ["curves.png", "explained-01-d-e.png"]


def test_the_page_says_what_is_shown_and_names_are_only_text(tmp_path):
    run = Run(tmp_path)
    write.write_explanations(run, mistakes("<b>cat → $x^", "d → e"))
    page = run.explanations.read_text("utf-8")
    text = " ".join(page.split())
    assert "<b>cat" not in page and "&lt;b&gt;cat" in page
    assert "http://" not in page and "https://" not in page
    assert "make 14 of the 31 mistakes on test" in text
    assert "7 mistakes, the 2 most confident ones" in text
    assert "Grad-CAM (Selvaraju et al. 2017)" in text and "3×3 of them" in text
    assert page.count("data:image/png") == 1 + 4 * (1 + 2 + 2)
    assert 'href="#sheet-2"' in page


def test_named_images_by_occlusion_have_a_page_too(tmp_path):
    images = tuple(explained(n, label=None, neighbours=0, channels=1) for n in range(3))
    found = Explanations("model.onnx", "occlusion", (Sheet("Images", 3, images),))
    run = Run(tmp_path)
    write.write_explanations(run, found)
    page = run.explanations.read_text("utf-8")
    assert "3 images, and what in them speaks for a class" in page
    assert page.count("25.0 %, covered −3.46") == 3
    assert "Occlusion (Zeiler and Fergus 2014)" in page and "nearest ones in train" not in page
    assert "mistake" not in page.partition("<body>")[2]
    assert page.count("data:image/png") == 1 + 3 * 2


def test_a_run_without_mistakes_says_so(tmp_path):
    found = Explanations("runs/one", "grad-cam", (), (3, 3), 0)
    write.write_explanations(Run(tmp_path), found)
    page = Run(tmp_path).explanations.read_text("utf-8")
    assert "There is no mistake to explain" in page and "<section" not in page


def test_a_caution_stands_with_how_to_read_the_maps():
    found = mistakes("a → b")
    assert "Read the maps with care" not in render(found)
    assert "with care.</b> They lie." in render(replace(found, caution="They lie."))


@pytest.mark.parametrize("channels", [1, 3])
def test_colour_lies_where_the_map_is_high_and_the_image_shows_where_it_is_low(channels):
    image = np.full((8, 8, channels), 200, np.uint8)
    heat = np.zeros((8, 8), np.float32)
    heat[2, 6] = 1
    laid = overlay(image, heat)
    times = SIDE // 8
    assert laid.shape == (SIDE, SIDE, 3) and laid.dtype == np.uint8
    cold, hot = laid[-1, 0], laid[2 * times + times // 2, 6 * times + times // 2]
    assert cold.tolist() == [180, 180, 180]  # a tenth black
    assert min(hot[:2]) > 210 and hot[2] < 180  # bright yellow


def test_a_large_image_is_not_made_larger():
    assert overlay(np.zeros((100, 120, 3), np.uint8), np.zeros((100, 120))).shape == (100, 120, 3)


def test_the_page_holds_whole_images(tmp_path):
    run = Run(tmp_path)
    write.write_explanations(run, mistakes("d → e"))
    page = run.explanations.read_text("utf-8")
    first = re.search(r'class="pixels" src="data:image/png;base64,([^"]+)"', page)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(first[1]))))
    assert np.array_equal(shown, explained(0).image)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_the_page_whole_without_an_error(width, tmp_path):
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium to render with")
    playwright = pytest.importorskip("playwright.sync_api")
    run = Run(tmp_path)
    write.write_explanations(run, mistakes("a long name of a class → another long one", "d → e"))
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        trouble = []
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.goto(run.explanations.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == width
        drawn = page.evaluate("[...document.images].map(image => image.naturalWidth)")
        assert len(drawn) == 21 and min(drawn) > 0
        first, second = (page.locator(f".{name}").first for name in ("looked", "nearest"))
        beside = second.bounding_box()["x"] > first.bounding_box()["x"] + 100
        assert beside == (width == 1280)
        browser.close()
    assert trouble == []
