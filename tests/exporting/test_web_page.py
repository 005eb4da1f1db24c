"""The page in a real Chromium: the Classifier's answers, from a file as from a host, no network."""

from __future__ import annotations

import base64
import csv
import functools
import gzip
import http.server
import io
import os
import re
import shutil
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders_export import RECIPE, trained_run
from tinylens.data.cache import cache_root
from tinylens.data.dataset import Splits
from tinylens.data.load import load
from tinylens.errors import MissingExtra
from tinylens.exporting.webpage.page import write_page
from tinylens.exporting.webpage.runtime import runtime_files
from tinylens.inference.classifier import Classifier
from tinylens.inference.model_file import GoldenSamples, unseal
from tinylens.inference.model_file import seal as sealed
from tinylens.training.train import train

CHROMIUM = shutil.which("chromium")
playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium to render with"),
]

_SHARED = Path(os.environ.get("TINYLENS_TEST_DATA", Path(__file__).parents[2] / "../shared/data"))
FASHION_MNIST = (
    _SHARED / "fashion-mnist",
    Path("/usr/share/datasets/fashion-mnist"),
    cache_root() / "fashion-mnist",
)
CIFAR10 = _SHARED / "cifar10"
SCREENS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]
ANSWERS = """async (contents) => {
  const { predict } = await tinylens;
  const rows = [];
  for (const content of contents) {
    const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
    rows.push((await predict(new File([bytes], "image"))).results[0]);
  }
  return rows;
}"""


@pytest.fixture(scope="module")
def runtime():
    try:
        return runtime_files(None, lambda _: None)
    except MissingExtra as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that answers "unknown" at times: it keeps a rate of errors and has an OOD limit."""
    recipe = RECIPE.override({"answer.max_error": 0.1, "answer.refused": 0.05})
    return trained_run(tmp_path_factory.mktemp("web"), recipe)


@pytest.fixture(scope="module")
def written(run, runtime, tmp_path_factory):
    return write_page(run.model, tmp_path_factory.mktemp("pages") / "web", runtime).path


@contextmanager
def opened(browser, address, width=1280, scheme="light"):
    """A page that must ask for nothing but itself and report no error."""
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    trouble = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: trouble.append(request.url))
    page.goto(address)
    page.wait_for_selector("body[data-state]")
    yield page
    page.close()
    assert [each for each in trouble if not each.startswith(("data:", "blob:"))] == [address]


@contextmanager
def hosted(folder):
    """The address of a plain file host."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def encoded(pixels, format="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, format)
    return buffer.getvalue()


def answers(page, contents):
    found = []
    for start in range(0, len(contents), 100):
        part = contents[start : start + 100]
        found += page.evaluate(ANSWERS, [base64.b64encode(each).decode() for each in part])
    return found


def assert_answers_agree(page, model, contents):
    """Labels, reasons and classes are equal, and figures as near as float32 allows."""
    classifier = Classifier.open(model)
    expected = classifier.predict(contents, top=len(classifier.class_names))
    found = answers(page, contents)
    assert [row["label"] for row in found] == [each.label for each in expected]
    assert [row["unknown"] for row in found] == [each.reason for each in expected]
    for row, each in zip(found, expected, strict=True):
        assert row["confidence"] == pytest.approx(each.confidence, abs=1e-5)
        assert row["ood_score"] == pytest.approx(each.ood_score, abs=1e-4)
        described = [top["probability"] for top in row["top"]]
        every = dict(each.top)
        assert described == pytest.approx([every[top["label"]] for top in row["top"]], abs=1e-5)
        assert described == sorted(described, reverse=True) and len(described) == min(5, len(every))
    return expected


def serious(page):
    found = axe.Axe().run(page).response["violations"]
    return {each["id"]: [node["target"] for node in each["nodes"]][:3] for each in found}


def named(contents):
    return [
        {"name": f"image {row}.png", "mimeType": "image/png", "buffer": content}
        for row, content in enumerate(contents)
    ]


def give(page, *contents):
    page.set_input_files("#file", named(contents))


# from 1 to 4 colours: the run's own kind of images, and out-of-distribution images
def make_images(run, count):
    data = np.load(run.path.parent / "images.npz")
    own = [encoded(each) for each in data["x_test"][:count]]
    rng = np.random.default_rng(0)
    noise = [encoded(rng.integers(0, 256, (30, 40, 3), np.uint8)) for _ in range(count // 4)]
    return own + noise


def test_a_page_answers_as_the_classifier_from_a_file_and_from_a_host(browser, run, written):
    contents = make_images(run, 80)
    with opened(browser, written.as_uri()) as page:
        expected = assert_answers_agree(page, run.model, contents)
    reasons = {(each.reason or "answered").partition(" ")[0] for each in expected}
    assert reasons >= {"answered", "it"}, "the images do not try the reasons"
    with hosted(written.parent) as address, opened(browser, address) as page:
        assert_answers_agree(page, run.model, contents[:8])


def test_a_image_is_shown_with_its_five_likeliest_classes_and_what_was_seen(browser, run, written):
    [content] = make_images(run, 1)
    [expected] = Classifier.open(run.model).predict([content])
    with opened(browser, written.as_uri()) as page:
        assert page.locator("#banner").inner_text() == ""
        give(page, content)
        page.wait_for_selector("#answer[aria-busy=false] .bars")
        names = page.locator(".bars .name").all_inner_texts()
        assert names == [label for label, _ in expected.top]
        figures = page.locator("#shown figure")
        assert figures.count() == 2 and "What it saw" in figures.nth(1).inner_text()
        seen = page.evaluate("document.querySelectorAll('#shown img')[1].naturalWidth")
        assert seen == 16
        give(page, b"not an image at all")
        page.wait_for_selector("[data-state=failed]")
        words = page.locator("#shown").inner_text().split("\n\n")
        assert words == ["This is not an image", "Expected a whole PNG, JPEG, WebP, BMP or GIF."]


def test_a_pasted_image_is_answered(browser, run, written):
    [content] = make_images(run, 1)
    with opened(browser, written.as_uri()) as page:
        page.evaluate(
            """(content) => {
              const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
              const clipboardData = new DataTransfer();
              clipboardData.items.add(new File([bytes], "pasted.png", { type: "image/png" }));
              document.body.dispatchEvent(
                new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }),
              );
            }""",
            base64.b64encode(content).decode(),
        )
        page.wait_for_selector("#answer[aria-busy=false] .bars")
        assert page.locator("#name").inner_text() == "pasted.png"


def test_several_images_make_a_sheet(browser, run, written):
    contents = make_images(run, 12)[:12]
    expected = Classifier.open(run.model).predict(contents)
    with opened(browser, written.as_uri()) as page:
        give(page, *contents)
        page.wait_for_selector("#sheet[aria-busy=false]")
        described = page.locator("#rows .told strong").all_inner_texts()
        assert described == ["Unknown" if each.unknown else each.label for each in expected]
        page.locator("#rows .file").first.click()
        page.wait_for_selector("#answer[aria-busy=false] .bars")
        assert page.locator("#name").inner_text() == "image 0.png"


def test_a_sheet_is_made_and_saved_by_key_alone(browser, run, written):
    contents = [*make_images(run, 3)[:3], b"letters"]
    expected = Classifier.open(run.model).predict(contents)
    with opened(browser, written.as_uri()) as page:
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Tab")
            page.wait_for_selector("#choose:focus")  # or Enter may come too early
            page.keyboard.press("Enter")
        chooser.value.set_files(named(contents))
        page.wait_for_selector("#sheet[aria-busy=false]")
        while page.evaluate("document.activeElement.id") != "save":
            page.keyboard.press("Tab")
        with page.expect_download() as download:
            page.keyboard.press("Enter")
        saved = download.value.path().read_text("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(saved), strict=True))
    assert [row["label"] for row in rows] == [each.label or "" for each in expected]
    assert [bool(row["error"]) for row in rows] == [False, False, False, True]
    for row, each in zip(rows[:3], expected, strict=False):
        assert float(row["confidence"]) == pytest.approx(each.confidence, abs=1e-5)


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_the_page_keeps_nobody_out(browser, run, written, width, scheme):
    with opened(browser, written.as_uri(), width, scheme) as page:
        assert serious(page) == {}
        give(page, *make_images(run, 1))
        page.wait_for_selector("#answer[aria-busy=false] .bars")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert serious(page) == {}


def test_the_page_may_connect_to_nothing(browser, written):
    policy = re.search(r'Security-Policy" content="([^"]+)"', written.read_text("utf-8"))[1]
    parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert parts["default-src"] == "'none'" and "connect-src" not in parts
    assert re.fullmatch(r"'sha256-[\w+/=]+' 'wasm-unsafe-eval'", parts["script-src"])
    page = browser.new_page()
    requested = []
    page.on("request", lambda request: requested.append(request.url))
    with hosted(written.parent) as address:
        page.goto(address)
        page.wait_for_selector("body[data-state=ready]")
        refused = page.evaluate("fetch('/elsewhere').then(() => false, () => true)")
    assert refused and not any("elsewhere" in each for each in requested)
    page.close()


def test_wrong_answers_to_the_golden_samples_are_shown_instead_of_answers(
    browser, run, runtime, written, tmp_path
):
    model = run.model.read_bytes()
    card = unseal(model, "model")
    turned = GoldenSamples(card.golden.images, np.roll(card.golden.probabilities, 1, axis=1))
    # the card comes first in the file, and the last one that is read would count
    other = sealed(replace(card, golden=turned), model)
    damaged = tmp_path / "index.html"
    text = written.read_text("utf-8")
    damaged.write_text(with_model(text, other), "utf-8")
    with opened(browser, damaged.as_uri()) as page:
        words = page.locator("#banner").inner_text()
        assert words.startswith(
            "This page gives no answers: the network does not give its recorded answers here"
        )
        assert page.locator("#drop").is_hidden()
        with pytest.raises(playwright.Error, match="recorded answers"):
            answers(page, make_images(run, 1)[:1])


def test_a_damaged_page_says_so(browser, written, tmp_path):
    text = written.read_text("utf-8")
    place = text.index('id="packed-model">') + 50_000
    damaged = tmp_path / "index.html"
    letter = "A" if text[place] != "A" else "B"
    damaged.write_text(text[:place] + letter + text[place + 1 :], "utf-8")
    with opened(browser, damaged.as_uri()) as page:
        assert page.locator("#banner").inner_text() == (
            "This page gives no answers: the model in this page is damaged; copy the page again "
            "from where it was made."
        )
        assert page.locator("#drop").is_hidden()


def with_model(text, model):
    """The page's text with another model in it."""
    packed = base64.b64encode(gzip.compress(model)).decode()
    return re.sub(r'(id="packed-model">)[^<]*', lambda match: match[1] + packed, text)


def short_run(data, folder, recipe):
    few = Splits(
        data.train.subset(np.arange(4000)),
        data.val.subset(np.arange(500)),
        data.test.subset(np.arange(1000)),
    )
    return few, train(few, recipe, out=folder, overrides={"train.epochs": 1})


def test_a_thousand_pngs_of_fashion_mnist_get_the_classifier_s_labels(browser, runtime, tmp_path):
    place = next((each for each in FASHION_MNIST if each.is_dir()), None)
    if place is None:
        pytest.skip("Fashion-MNIST is not installed on this machine")
    data, run = short_run(load("fashion-mnist", data_dir=place), tmp_path / "run-1", "classic")
    page_path = write_page(run.model, tmp_path / "web", runtime).path
    contents = [encoded(each) for each in data.test.images]
    assert len(contents) == 1000
    with opened(browser, page_path.as_uri()) as page:
        assert_answers_agree(page, run.model, contents)


def test_a_thousand_jpegs_of_cifar_10_get_the_classifier_s_labels(browser, runtime, tmp_path):
    if not (CIFAR10 / "test.parquet").is_file():
        pytest.skip("CIFAR-10 as JPEG is not on this machine")
    import pyarrow.parquet

    column = pyarrow.parquet.read_table(CIFAR10 / "test.parquet").column("img")
    contents = [row["bytes"] for row in column[:1000].to_pylist()]
    assert len(contents) == 1000 and all(each.startswith(b"\xff\xd8") for each in contents)
    _, run = short_run(load(str(CIFAR10)), tmp_path / "run-1", "fast")
    page_path = write_page(run.model, tmp_path / "web", runtime).path
    with opened(browser, page_path.as_uri()) as page:
        assert_answers_agree(page, run.model, contents)
