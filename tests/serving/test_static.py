"""The page in a real Chromium, against real servers: by hand, by key, and when things go wrong."""

from __future__ import annotations

import base64
import csv
import io
import re
import shutil
import threading
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from builders_input_checks import make_images, photo, reference
from served import TOKEN, encoded, form, png, running, until
from shipped import CLASS_NAMES, RULE, model_bytes
from tinylens.data.images import ImageRule
from tinylens.inference.classifier import Classifier

CHROMIUM = shutil.which("chromium")
playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium to render with")
slow = pytest.mark.slow

SCREENS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]
REFUSAL = re.compile(r"the server responded with a status of (\d+)")  # Chromium's own words
BROKEN = png()[:60]
LABEL, NAME, SAID, BANNER = "#shown .label", "#name", "#said", "#banner"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def classifier(model):
    return Classifier.open(model)


@contextmanager
def opened(browser, server, width=1280, scheme="light", refusals=(), **options):
    """The page, which asks nothing of anybody else and reports no error but these refusals.

    Args:
        refusals: statuses that it may be answered with, and "gone" for a server that is not there.
    """
    context = browser.new_context(
        viewport={"width": width, "height": 844}, color_scheme=scheme, **options
    )
    context.set_default_timeout(20_000)
    page = context.new_page()
    own = f"http://127.0.0.1:{server.port}/"
    trouble, requested = [], []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    page.goto(own)
    yield page
    context.close()
    elsewhere = [url for url in requested if not url.startswith((own, "data:", f"blob:{own}"))]
    assert elsewhere == []
    assert [words for words in trouble if not expected(words, refusals)] == []


def expected(words, refusals):
    if found := REFUSAL.search(words):
        return int(found[1]) in refusals
    return "gone" in refusals and "net::ERR_" in words


def make_image(name, content):
    return {"name": name, "mimeType": "image/png", "buffer": content}


def choose(page, *make_images):
    page.set_input_files("#file", [make_image(*each) for each in make_images])


def drop(page, *make_images):
    """Drop files on the page, as a hand would."""
    held = page.evaluate_handle(
        """(files) => {
          const held = new DataTransfer();
          for (const [name, content] of files) {
            const bytes = Uint8Array.from(atob(content), (sign) => sign.charCodeAt(0));
            held.items.add(new File([bytes], name, { type: "image/png" }));
          }
          return held;
        }""",
        [[name, base64.b64encode(content).decode()] for name, content in make_images],
    )
    page.dispatch_event("body", "dragover", {"dataTransfer": held})
    assert page.locator("#drop.over").count() == 1
    page.dispatch_event("body", "drop", {"dataTransfer": held})


def text(page, selector):
    return page.locator(selector).inner_text().replace("\u202f", " ")


def answered(page, name):
    """Wait until the answer to an image is shown."""
    page.locator(NAME, has_text=re.compile(f"^{re.escape(name)}$")).wait_for()
    page.locator("#answer[aria-busy=false] .label").wait_for()


def described(page):
    """The classes that are shown, with their percentages."""
    rows = page.locator(".bars li")
    return [
        (rows.nth(at).locator(".name").inner_text(), rows.nth(at).locator(".share").inner_text())
        for at in range(rows.count())
    ]


def percent(share):
    if share < 0.0005:
        return "< 0.1\u202f%"
    return "> 99.9\u202f%" if 0.9995 <= share < 1 else f"{100 * share:.1f}\u202f%"


# --- one image


def test_a_chosen_image_is_answered_as_the_classifier_answers_it(browser, server, classifier):
    [found] = classifier.predict(png())
    with opened(browser, server) as page:
        page.locator("#knows").wait_for()
        choose(page, ("boot.png", png()))
        answered(page, "boot.png")
        assert text(page, LABEL) == found.label
        assert described(page) == [(label, percent(share)) for label, share in found.top]
        assert text(page, SAID) == f"{found.label}, {percent(found.confidence)} sure.".replace(
            "\u202f", " "
        )
        assert page.locator(".figures figcaption").all_inner_texts() == [
            f"Your image\n{RULE.width} × {RULE.height}",
            f"What it saw\n{RULE.width} × {RULE.height}",
            "Where it looked",
        ]
        saw = page.locator(".figures img").nth(1)
        assert "crisp" in saw.get_attribute("class")
        pixels = np.asarray(Image.open(io.BytesIO(content(saw.get_attribute("src")))))
        assert np.array_equal(pixels, np.asarray(Image.open(io.BytesIO(png()))))


def content(address):
    return base64.b64decode(address.partition(",")[2])


@slow
def test_the_heatmap_is_what_the_server_computed(browser, server):
    look = server.ask("/predict?look=true", png()).json["results"][0]["look"]
    values = np.maximum(look["values"], 0)
    with opened(browser, server) as page:
        choose(page, ("boot.png", png()))
        answered(page, "boot.png")
        drawn = page.locator("canvas.look").evaluate(
            """(canvas) => {
              const { width, height } = canvas;
              const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
              return { width, height, data: [...data] };
            }"""
        )
        assert text(page, ".figures .note").startswith("The brighter a place, the more it speaks")
    shown = np.reshape(drawn["data"], (drawn["height"], drawn["width"], 4))[..., :3]
    side = drawn["height"] // RULE.height
    middles = shown[side // 2 :: side, side // 2 :: side]  # of the network's pixels
    assert middles.shape == (*values.shape, 3)
    grey = np.asarray(Image.open(io.BytesIO(png()))).mean(axis=2)
    warmth = middles[..., 0].astype(float) - middles[..., 2]  # grey has none, inferno rises in it
    hot, cold = values > 0.8 * values.max(), values == 0
    assert hot.any() and cold.any()
    assert warmth[hot].min() > 40 > np.abs(warmth[cold]).max()
    assert np.abs(middles[cold].mean(axis=1) - 0.9 * grey[cold]).max() < 6  # a tenth is dark


@slow
def test_a_image_can_be_dropped(browser, server, classifier):
    with opened(browser, server) as page:
        drop(page, ("dropped.png", png(5)))
        answered(page, "dropped.png")
        assert text(page, LABEL) == classifier.predict(png(5))[0].label
        assert page.locator("#drop.over").count() == 0


@slow
def test_a_folder_can_be_dropped(browser, server, tmp_path):
    shown = {"a.png": png(), "deep/b.png": png(4), "deep/b10.png": png(5), "deep/b9.png": png(6)}
    for name, body in {**shown, ".hidden.png": png(7), "deep/.hidden/c.png": png(8)}.items():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(body)
    with opened(browser, server) as page:
        page.locator("#knows").wait_for()
        drop_by_hand(page, tmp_path / "set")
        page.locator("#sheet[aria-busy=false]").wait_for()
        names = page.locator(".file").all_inner_texts()
    assert names == ["set/a.png", "set/deep/b.png", "set/deep/b9.png", "set/deep/b10.png"]


def drop_by_hand(page, *paths):
    """Drop what is on the disk, which a script of the page cannot do."""
    session = page.context.new_cdp_session(page)
    held = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        event = {"type": kind, "x": 400, "y": 300, "data": held}
        session.send("Input.dispatchDragEvent", event)


@slow
def test_a_image_can_be_pasted(browser, server, classifier):
    with opened(browser, server, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.evaluate(
            """async (content) => {
              const bytes = Uint8Array.from(atob(content), (sign) => sign.charCodeAt(0));
              const blob = new Blob([bytes], { type: "image/png" });
              await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
            }""",
            base64.b64encode(png(6)).decode(),
        )
        page.keyboard.press("Control+V")
        answered(page, "image.png")
        assert text(page, LABEL) == classifier.predict(png(6))[0].label


@slow
def test_a_phone_offers_its_camera(browser, server):
    with opened(browser, server, 390, has_touch=True, is_mobile=True) as page:
        assert page.locator("#photo").get_attribute("capture") == "environment"
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Take a photo").tap()
        chooser.value.set_files([make_image("IMG_1.jpg", png())])
        answered(page, "IMG_1.jpg")
    with opened(browser, server) as page:
        assert not page.get_by_role("button", name="Take a photo").is_visible()


@slow
def test_all_is_done_by_key_alone(browser, server):
    files = [make_image(f"{seed}.png", png(seed)) for seed in range(3)]
    with opened(browser, server) as page:
        page.on("filechooser", lambda chooser: chooser.set_files(files))
        page.locator("#knows").wait_for()
        page.keyboard.press("Tab")
        page.wait_for_selector("#choose:focus")
        page.keyboard.press("Enter")
        page.locator("#sheet[aria-busy=false]").wait_for()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.locator("#classes li").all_inner_texts() == list(CLASS_NAMES)
        assert focused(page) == "The 4 classes that it knows"
        page.keyboard.press("Tab")
        assert focused(page) == "Save as CSV"
        with page.expect_download():
            page.keyboard.press("Enter")
        for _ in range(3):
            page.keyboard.press("Tab")
        assert focused(page) == "1.png"
        page.keyboard.press("Enter")
        answered(page, "1.png")
        page.wait_for_selector(f"{LABEL}:focus")


def focused(page):
    return page.evaluate("() => document.activeElement.innerText")


@slow
@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_nobody_is_kept_out(browser, server, guarded, width, scheme):
    with opened(browser, server, width, scheme, refusals=(422,)) as page:
        page.locator("#knows").wait_for()
        whole(page, width)
        drop(page, ("a.png", png()), ("a name without a space_" * 9, png(4)), ("b.png", BROKEN))
        page.locator("#sheet[aria-busy=false]").wait_for()
        page.locator("#knows summary").click()
        for name, body in (("c.png", png()), ("d.png", BROKEN)):
            choose(page, (name, body))
            answered(page, name)
            whole(page, width)
        show(page, STRANGE)
        whole(page, width)
    with opened(browser, guarded, width, scheme, refusals=(401,)) as page:
        page.locator("#token-field").wait_for()
        whole(page, width)


def whole(page, width):
    """Nothing sticks out, and axe-core finds nothing at all."""
    assert page.evaluate("() => document.documentElement.scrollWidth") == width
    page.wait_for_timeout(400)  # for what fades and grows
    found = axe.Axe().run(page).response["violations"]
    assert {each["id"]: [node["html"] for node in each["nodes"]][:3] for each in found} == {}


STRANGE = {
    "name": "a.png",
    "label": "bag",
    "confidence": 0.61,
    "top": [{"label": "bag", "probability": 0.61}, {"label": "coat", "probability": 0.39}],
    "unknown": "61.0 % sure, expected 90.0 %",
    "ood_score": 0.97,
    "findings": [
        {"kind": "inverted", "message": "looks like a negative", "fixed": True},
        {"kind": "upscaled", "message": "was made larger", "fixed": False},
    ],
    "seen": None,
    "look": {"height": 2, "width": 2, "values": [[-1.0, -2.0], [0.0, 0.0]]},
    "error": None,
}


def show(page, result, fixing="{ on: false, change: (on) => (window.asked = on) }"):
    """Show an answer by the page's own module."""
    source = f"""async (result) => {{
      const {{ showAnswer }} = await import("./answer.js");
      document.querySelector("#answer").hidden = false;
      const place = document.querySelector("#shown");
      await showAnswer(place, result, {{ fixing: {fixing}, image: null }});
    }}"""
    page.evaluate(source, result)


@slow
def test_an_unknown_image_and_its_findings_are_told(browser, server):
    with opened(browser, server) as page:
        show(page, STRANGE)
        assert text(page, LABEL) == "It does not know"
        words = text(page, ".words")
        assert "61.0 % sure, expected 90.0 %." in words
        assert "It would say bag and be 61.0 % sure." in words
        assert page.locator(".findings li").all_inner_texts() == [
            "Looks like a negative. fixed",
            "Was made larger. as it is",
        ]
        page.get_by_role("switch", name="Fix what can be fixed").check()
        assert page.evaluate("() => window.asked") is True
        assert page.locator(".figures figure").count() == 0  # of what was fixed nothing is at hand
        show(page, {**STRANGE, "findings": []})
        assert page.locator(".input-checks").count() == 0
        show(page, {**STRANGE, "unknown": None, "findings": []}, fixing="null")
        assert "More unusual than 97.0 % of ordinary images." in text(page, ".words")


@slow
def test_what_is_found_is_fixed_where_that_is_switched_on(browser, server):
    with opened(browser, server) as page:
        choose(page, ("a.png", png()))
        answered(page, "a.png")
        with page.expect_request(lambda request: "fix=all" in request.url):
            page.evaluate("() => document.querySelector('#fix').click()")  # shown with findings
        fixing = page.get_by_role("switch", name="Fix what can be fixed")
        fixing.wait_for()
        with page.expect_request(lambda request: "fix=&" in request.url):
            fixing.focus()
            page.keyboard.press("Space")


@slow
def test_a_photo_is_made_as_its_model_was_trained_where_that_is_switched_on(browser, tmp_path):
    path = tmp_path / "photos.onnx"
    path.write_bytes(model_bytes(ImageRule(28, 28, 1), input_checks=reference()))
    body = encoded(photo(make_images(1, seed=3)[0]))
    found = {
        one.kind: one.message for one in Classifier.open(path).predict(body, fix="all")[0].findings
    }
    assert {"inverted", "margins"} <= set(found)
    with running(path, "--workers", 1) as server, opened(browser, server) as page:
        choose(page, ("shoe.png", body))
        answered(page, "shoe.png")
        assert page.locator(".findings li").count() == len(found)
        assert page.locator(".findings .mark").all_inner_texts() == ["as it is"] * len(found)
        before = page.locator(".figures").screenshot()
        page.get_by_role("switch", name="Fix what can be fixed").check()
        page.locator(".findings [data-fixed=true]").first.wait_for()
        marks = page.locator(".findings li").evaluate_all(
            "(all) => all.map((one) => [one.dataset.kind, one.dataset.fixed])"
        )
        assert ["inverted", "true"] in marks and ["margins", "true"] in marks
        page.locator("#answer[aria-busy=false]").wait_for()
        assert page.locator(".figures").screenshot() != before
        drop(page, ("a.png", body), ("b.png", body))
        page.locator("#sheet[aria-busy=false]").wait_for()
        assert "inverted (fixed)" in page.locator("#rows .row").first.inner_text()
        whole(page, 1280)


@slow
def test_words_of_a_image_are_no_markup(browser, server):
    bad = "<img src=x onerror=alert(1)>"
    with opened(browser, server) as page:
        top = [{"label": bad, "probability": 1.0}]
        show(page, {**STRANGE, "label": bad, "top": top, "unknown": None})
        assert text(page, LABEL) == bad
        assert described(page) == [(bad, "100.0\u202f%")]
        choose(page, (bad, png()), ("b.png", png()))
        page.locator("#sheet[aria-busy=false]").wait_for()
        assert page.locator(".file").first.inner_text() == bad
        assert page.locator("#sheet img").count() == 0


@slow
def test_nothing_moves_for_those_who_want_it_so(browser, server):
    moved = "(bar) => getComputedStyle(bar).transitionDuration"
    for preference, duration in (("reduce", "0s"), ("no-preference", "0.35s")):
        with opened(browser, server, reduced_motion=preference) as page:
            choose(page, ("a.png", png()))
            answered(page, "a.png")
            assert page.locator(".bars i").first.evaluate(moved) == duration


# --- what goes wrong


@slow
def test_bad_files_are_told_in_plain_words_and_the_next_is_answered(browser, server):
    cases = [
        ("a.png", BROKEN, "This image is broken", "Broken PNG"),
        ("b.png", b"hello, expected nothing", "This is not an image", "Expected PNG, JPEG, WebP"),
        ("c.png", b"", "This file is empty", "Empty file"),
        ("d.png", png() + bytes(300_000), "This image is too large", "It has 0.3 MB, and the"),
        ("e.png", encoded(np.zeros((60_000, 1, 3), np.uint8)), "too large", "60000 pixels"),
    ]
    with opened(browser, server, refusals=(413, 422, "gone")) as page:
        for name, body, title, words in cases:
            choose(page, (name, body))
            answered(page, name)
            assert title in text(page, LABEL), name
            assert words.lower() in text(page, ".words").lower(), name
            assert "b'" not in text(page, ".words")
        assert text(page, BANNER) == ""
        choose(page, ("good.png", png()))
        answered(page, "good.png")
        assert text(page, LABEL) in CLASS_NAMES


@slow
def test_a_server_that_is_gone_is_waited_for(browser, model):
    with (
        running(model, "--workers", 1) as first,
        opened(browser, first, refusals=(503, "gone")) as page,
    ):
        page.locator("#knows").wait_for()
        first.stop()
        choose(page, *((f"{seed}.png", png(seed)) for seed in range(3)))
        choose(page, ("late.png", png()))
        page.locator(BANNER, has_text="The server does not answer.").wait_for()
        assert page.locator(BANNER).get_attribute("role") == "alert"
        with running(model, "--workers", 1, port=first.port):
            page.locator(BANNER, has_text="The server is back.").wait_for()
            answered(page, "late.png")
            assert text(page, LABEL) in CLASS_NAMES
            page.locator("#sheet[aria-busy=false]").wait_for()
            assert text(page, "#count") == "3 of 3 images"
            until(lambda: text(page, BANNER) == "", pause=0.2)


@slow
def test_a_busy_server_is_asked_again(browser, model):
    large = encoded(np.full((1500, 1500, 3), 77, np.uint8), compress_level=1)
    body, kind = form(*[("a.png", large)] * 4)
    stop = threading.Event()
    with running(model, "--workers", 1, "--queue", 4, "--images", 4) as server:

        def flood():
            while not stop.is_set():
                server.ask("/predict", body, content_type=kind)

        with opened(browser, server, refusals=(503,)) as page:
            page.locator("#knows").wait_for()
            threads = [threading.Thread(target=flood) for _ in range(3)]
            for thread in threads:
                thread.start()
            try:
                until(lambda: server.ask("/predict", png()).status == 503, pause=0)
                for turn in range(20):
                    choose(page, (f"{turn}.png", png()))
                    page.wait_for_timeout(300)
                    if "busy" in text(page, BANNER):
                        break
                assert text(page, BANNER) == "The server is busy; it is asked again in 1 s."
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
            answered(page, f"{turn}.png")
            assert text(page, LABEL) in CLASS_NAMES
            assert text(page, BANNER) == ""


@slow
def test_a_token_is_asked_for_and_kept_nowhere(browser, guarded):
    with opened(browser, guarded, refusals=(401,)) as page:
        page.wait_for_selector("#token-field:focus")
        choose(page, ("a.png", png()))
        page.keyboard.type("not-the-token-at-all")
        page.keyboard.press("Enter")
        page.locator("#token-why", has_text="That is not this server's token.").wait_for()
        page.wait_for_selector("#token-field:focus")
        page.keyboard.type(TOKEN)
        page.keyboard.press("Enter")
        answered(page, "a.png")
        page.locator("#knows").wait_for()
        assert not page.locator("#token").is_visible()
        kept = "() => [localStorage.length, sessionStorage.length, document.cookie, location.href]"
        assert page.evaluate(kept) == [0, 0, "", f"http://127.0.0.1:{guarded.port}/"]
        assert page.locator("#token-field").input_value() == ""
        page.reload()
        page.wait_for_selector("#token-field:focus")


# --- several models, several images


@slow
def test_a_model_is_chosen(browser, model, tmp_path):
    other = tmp_path / "other.onnx"
    other.write_bytes(model_bytes(class_names=("north", "east", "south", "west")))
    with running(model, other, "--workers", 1) as server, opened(browser, server) as page:
        choose(page, ("a.png", png()))
        answered(page, "a.png")
        first = text(page, LABEL)
        page.get_by_label("Model").select_option("other")
        label = ("north", "east", "south", "west")[CLASS_NAMES.index(first)]
        page.locator(LABEL, has_text=label).wait_for()
        assert page.locator("#eyebrow").inner_text() == "tinylens · other · 6 × 8 pixels, in colour"
        assert text(page, ".words .note").startswith("other answered in ")


NAMES = ["=1+1.png", "+a.png", "-a.png", "@a.png", "\ta.png", 'a, "b".png', "Stiefel–größer.png"]


@slow
def test_a_sheet_is_answered_and_saved_as_the_classifier_answers(browser, server, classifier):
    files = [(name, png(seed)) for seed, name in enumerate([*NAMES, *map(str, range(40))])]
    files.insert(3, ("broken.png", BROKEN))
    with opened(browser, server, refusals=(422,)) as page:
        drop(page, *files)
        page.locator("#sheet[aria-busy=false]").wait_for()
        assert text(page, "#count") == f"{len(files)} of {len(files)} images"
        assert page.locator("#progress").evaluate("(bar) => bar.value") == len(files)
        assert text(page, SAID) == "48 images answered; 0 unknown, 1 could not be answered."
        cells = [page.locator("#rows .row").nth(at).inner_text() for at in (0, 3)]
        with page.expect_download() as download:
            page.get_by_role("button", name="Save as CSV").click()
        saved = download.value.path().read_bytes()
        assert download.value.suggested_filename == "answers.csv"
        page.get_by_role("button", name="Clear").click()
        assert not page.locator("#sheet").is_visible()
    first = classifier.predict(files[0][1])[0]
    assert cells[0].split() == [
        "=1+1.png",
        *first.label.split(),
        *percent(first.confidence).split(),
    ]
    assert "broken PNG" in cells[1]
    compare_csv(saved, files, classifier)


def compare_csv(saved, files, classifier):
    assert saved.startswith(b"\xef\xbb\xbf") and saved.count(b"\r\n") == len(files) + 1
    rows = list(csv.DictReader(io.StringIO(saved.decode("utf-8-sig"), newline=""), strict=True))
    assert [row["file"].removeprefix("'") for row in rows] == [name for name, _ in files]
    assert all(row["file"][0] == "'" for row, (name, _) in zip(rows, files, strict=True)
               if name[0] in "=+-@\t")  # fmt: skip
    for row, (_, body) in zip(rows, files, strict=True):
        [found] = classifier.predict(body)
        assert (row["label"], row["error"]) == (found.label or "", found.error or "")
        if found.error:
            assert (row["confidence"], row["unknown"], row["model"]) == ("", "", "boots")
            continue
        assert float(row["confidence"]) == found.confidence
        assert (row["unknown"], row["reason"], row["findings"]) == ("false", "", "")
        assert (row["model"], len(row["sha256"])) == ("boots", 64)


@slow
def test_cells_are_no_formulas_and_quoted_where_they_must_be(browser, server):
    cells = {
        "=1+1": "'=1+1", "+1": "'+1", "-1": "'-1", "@a": "'@a", "\ta": "'\ta", "\ra": "\"'\ra\"",
        "a,b": '"a,b"', 'a"b': '"a""b"', "a\nb": '"a\nb"', "a\rb": '"a\rb"', "a=b": "a=b",
        "\uff1d1": "'\uff1d1", "\uff0b1": "'\uff0b1", "\uff0d1": "'\uff0d1", "\uff20a": "'\uff20a",
        "\na": "\"'\na\"", "": "", '=HYPERLINK("x","y")': "\"'=HYPERLINK(\"\"x\"\",\"\"y\"\")\"",
    }  # fmt: skip
    with opened(browser, server) as page:
        source = """async (words) => {
          const { cell } = await import("./csv.js");
          return words.map(cell);
        }"""
        assert page.evaluate(source, list(cells)) == list(cells.values())
        numbers = [0.25, -1, 1e-7, None, True]
        assert page.evaluate(source, numbers) == ["0.25", "-1", "1e-7", "", "true"]


@slow
def test_a_sheet_is_stopped_and_goes_on(browser, server):
    files = [(f"{seed}.png", png(seed)) for seed in range(400)]
    with opened(browser, server, refusals=("gone",)) as page:
        choose(page, *files)
        page.get_by_role("button", name="Stop").click()
        page.locator("#sheet[aria-busy=false]").wait_for()
        stopped = text(page, "#count")
        page.wait_for_timeout(300)
        assert text(page, "#count") == stopped != "400 of 400 images"
        page.get_by_role("button", name="Go on").click()
        page.locator("#count", has_text="400 of 400 images").wait_for()


# a sheet whose questions are answered when the test says so; it gives what each row says, and
# how often it was asked after the restart
RESTARTED = """async (when) => {
  const { makeSheet } = await import("./sheet.js");
  const section = document.getElementById("sheet");
  const open = new Map();
  const asked = [];
  let words = "before";
  const give = (name) => {
    const label = open.get(name);
    open.delete(name);
    label[1]({ model: null, results: [{ label: label[0], confidence: 1, top: [] }] });
  };
  const settled = () => new Promise((resolve) => setTimeout(resolve, 50));
  const ask = (file, signal) => new Promise((resolve, reject) => {
    asked.push(file.name);
    open.set(file.name, [words, resolve]);
    signal.addEventListener("abort", () => reject(signal.reason));
  });
  const sheet = makeSheet(section, { ask, open() {}, say() {}, changed() {} });
  const names = Array.from({ length: 10 }, (_, row) => `${row}.txt`);
  sheet.add(names.map((name) => ({ name, file: new File(["no image"], name) })));
  await settled();
  if (when === "on the second four") {
    for (const name of [...open.keys()]) give(name);
    await settled();
    give(open.keys().next().value); // its answer is on its way to the row
  }
  words = "after";
  asked.length = 0;
  open.clear();
  sheet.restart();
  for (let round = 0; round < 20 && section.getAttribute("aria-busy") === "true"; round++) {
    await settled();
    if (open.size) give(open.keys().next().value);
  }
  await settled();
  const told = [...section.querySelectorAll("#rows strong")].map((each) => each.textContent);
  return [told, asked.sort(), section.querySelector("#count").textContent];
}"""


@slow
@pytest.mark.parametrize("when", ["on the first four", "on the second four"])
def test_a_sheet_that_is_asked_again_asks_once_for_each_and_keeps_no_old_answer(
    browser, server, when
):
    with opened(browser, server) as page:
        described, requested, count = page.evaluate(RESTARTED, when)
    assert described == ["after"] * 10
    assert requested == [f"{row}.txt" for row in range(10)]
    assert count == "10 of 10 images"
