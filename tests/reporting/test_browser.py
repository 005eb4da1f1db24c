"""The pages in a real Chromium: no network, no error, every image shown, usable by key."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tinylens.data.cache import cache_root
from tinylens.data.dataset import Splits
from tinylens.data.load import load
from tinylens.evaluation.compare import compare
from tinylens.reporting import compare_page, write
from tinylens.results import Audit, Oddity
from tinylens.training.train import train

CHROMIUM = shutil.which("chromium")
playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium to render with"),
]

_SHARED = Path(os.environ.get("TINYLENS_TEST_DATA", Path(__file__).parents[2] / "../shared/data"))
_PLACES = (
    _SHARED / "fashion-mnist",
    Path("/usr/share/datasets/fashion-mnist"),
    cache_root() / "fashion-mnist",
)
FASHION_MNIST = next((place for place in _PLACES if place.is_dir()), None)
CIFAR10_JPEG = _SHARED / "cifar10"
SCREENS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


def trained(data, folder, seed=0):
    """A run on the first images of a set, too short to be any good: there are many mistakes."""
    few = Splits(
        data.train.subset(np.arange(1000)),
        data.val.subset(np.arange(200)),
        data.test.subset(np.arange(300)),
    )
    changes = {"train.epochs": 1, "train.seed": seed}
    return few, train(few, "classic", out=folder, overrides=changes)


@pytest.fixture(scope="module", params=["fashion-mnist", "cifar10", "shapes"])
def run(request, tmp_path_factory):
    if request.param == "fashion-mnist":
        if FASHION_MNIST is None:
            pytest.skip("Fashion-MNIST is not installed on this machine")
        data = load("fashion-mnist", data_dir=FASHION_MNIST)
    elif request.param == "cifar10":
        if not CIFAR10_JPEG.is_dir():
            pytest.skip("CIFAR-10 (JPEG) is not on this machine")
        data = load(CIFAR10_JPEG)
    else:
        data = load("shapes")
    return trained(data, tmp_path_factory.mktemp("runs") / f"{request.param}-1")


@contextmanager
def opened(browser, path, width=1280, scheme="light"):
    """A page that must ask nothing of the network and report no error."""
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    trouble = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: trouble.append(request.url[:80]))
    page.goto(path.as_uri())
    yield page
    page.close()
    assert [each for each in trouble if not each.startswith(("data:", path.as_uri()))] == []


def serious(page):
    """What axe-core finds that keeps somebody out."""
    found = axe.Axe().run(page).response["violations"]
    return {
        each["id"]: [node["target"] for node in each["nodes"]][:3]
        for each in found
        if each["impact"] in ("serious", "critical")
    }


def unseen(page):
    """How many images of what is displayed hold no pixel."""
    return page.evaluate(
        """async () => {
          const shown = [...document.images].filter((image) => image.checkVisibility());
          for (const image of shown) image.loading = "eager";
          await Promise.all(shown.map((image) => image.decode()));
          return shown.filter((image) => image.naturalWidth === 0).length;
        }"""
    )


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_a_report_is_shown_whole_and_to_everyone(browser, run, width, scheme):
    with opened(browser, run[1].report, width, scheme) as page:
        assert page.locator("#mistakes img").count() > 0 and unseen(page) == 0
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert serious(page) == {}
        page.locator(".kinds button").first.click()
        assert page.locator(".opened:popover-open img").count() > 0 and unseen(page) == 0
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert serious(page) == {}


def test_a_cell_opens_its_images_by_click_and_by_key(browser, run):
    with opened(browser, run[1].report) as page:
        cells, shown = page.locator(".matrix button"), page.locator(".opened:popover-open")
        cells.first.click()
        assert shown.count() == 1 and unseen(page) == 0
        words = cells.first.get_attribute("aria-label").partition(":")[0]
        assert shown.locator("h3").inner_text() == words
        page.keyboard.press("Escape")
        assert shown.count() == 0
        cells.first.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        label = page.locator(".matrix tbody tr").first.locator("button").nth(1)
        assert label.get_attribute("aria-label").startswith(shown.locator("h3").inner_text())
        assert shown.locator(".close").evaluate("button => button === document.activeElement")
        page.keyboard.press("Escape")
        assert shown.count() == 0
        assert label.evaluate("button => button === document.activeElement")
        assert page.locator('.matrix button[tabindex="0"]').count() == 1


def test_every_column_of_the_classes_sorts_by_click_and_by_key(browser, run):
    with opened(browser, run[1].report) as page:
        table = page.locator("table.classes")
        headings = table.locator("thead th")
        for column in range(headings.count()):
            button = headings.nth(column).locator("button")
            button.click()
            assert headings.nth(column).get_attribute("aria-sort") == "descending"
            button.focus()
            page.keyboard.press("Enter")
            assert headings.nth(column).get_attribute("aria-sort") == "ascending"
            assert table.locator("th[aria-sort]").count() == 1
            keys = [
                row.locator(":scope > *").nth(column).get_attribute("data-key")
                for row in table.locator("tbody tr").all()
            ]
            assert keys == sorted(keys, key=str.lower if column == 0 else float)


def test_on_paper_no_table_runs_over_the_edge(browser, run):
    with opened(browser, run[1].report, 718) as page:  # A4 less Chromium's own margins
        page.emulate_media(media="print")
        assert page.evaluate("document.documentElement.scrollWidth") == 718


def test_without_scripts_the_matrix_is_a_table_whose_cells_open(browser, run):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(run[1].report.as_uri())
    cell = page.locator(".matrix button").first
    assert cell.inner_text().isdigit()
    cell.click()
    assert page.locator(".opened:popover-open").count() == 1
    context.close()


@pytest.fixture(scope="module")
def other_pages(run, tmp_path_factory):
    """The audit's page and the comparison's, of that run and its data."""
    data, first = run
    folder = tmp_path_factory.mktemp("pages")
    parts = dict(data.items())
    names = data.class_names
    odd = tuple(
        Oddity("test", row, "", names[data.test.labels[row]], 1.0, "blank") for row in range(4)
    )
    counts = {name: tuple(part.counts.tolist()) for name, part in parts.items()}
    audit = Audit("clothes", names, counts, ("test",), False, (), (), (), odd, ())
    write.write_audit(folder / "audit.html", audit, parts)
    second = trained(data, folder / "second-1", seed=1)[1]
    found = compare([first, second])
    sides = compare_page.evaluated([first, second], found)
    return [
        folder / "audit.html",
        compare_page.write(folder, found, sides, data.test)["report"],
    ]


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_the_audit_and_the_comparison_keep_nobody_out(browser, other_pages, width, scheme):
    for path in other_pages:
        with opened(browser, path, width, scheme) as page:
            assert page.locator("img").count() > 0 and unseen(page) == 0
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert serious(page) == {}
