"""The verbs `audit` and `data apply`: from a folder or a run to a page, and to a corrected set."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import shipped
from builders_run import make_run, simulated_probabilities
from tinylens.data import corrections
from tinylens.data.encoded import Options
from tinylens.data.load import load, load_parts
from tinylens.data.readers import arrays
from tinylens.models.build import build_network, ship
from tinylens.models.spec import NetworkShape
from tinylens.results import Audit
from tinylens.run import Run

NAMES = shipped.CLASS_NAMES


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of soft images in which test holds two of train, and a file is broken."""
    noise = np.random.default_rng(0).normal(size=(72, 16, 16, 3))
    soft = ndimage.gaussian_filter(noise, (0, 2, 2, 0), mode="wrap")
    images = np.clip(128 + 60 * soft / soft.std(), 0, 255).astype(np.uint8)
    images[50], images[61] = images[2], images[9]
    root = tmp_path_factory.mktemp("audit") / "clothes"
    for row, image in enumerate(images):
        folder = root / ("train" if row < 48 else "test") / NAMES[row % 4]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{row:02}.png")
    (root / "train" / NAMES[0] / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    return root


@pytest.fixture
def run(tmp_path, images):
    """A run on that folder whose network is right, but for test 3, of which it is sure."""
    splits = load(images)
    parts = {
        name: (simulated_probabilities(part.labels, 4, strength=12.0), part.labels)
        for name, part in splits.items()
    }
    wrong = parts["test"][0]
    wrong[3] = np.eye(4, dtype=np.float32)[(splits.test.labels[3] + 1) % 4]
    sizes = {name: {"size": len(part), "sha256": part.fingerprint} for name, part in splits.items()}
    made = make_run(
        tmp_path / "run",
        class_names=NAMES,
        parts=parts,
        info={"dataset": str(images), "fingerprint": splits.fingerprint, "splits": sizes},
    )
    shape = NetworkShape((16, 16, 3), 4, (128.0,) * 3, (60.0,) * 3)
    network = build_network("classic", shape, {"widths": [4], "dense": [8]})
    ship(network).save(made.keras_model)
    return made


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_is_audited_without_any_network(type_in, here, images):
    code, out, err = type_in("audit", images)
    assert (code, err) == (0, "")
    assert "leaks: test images trained on" in out and "labels were not looked at" in out
    folder = here / "runs" / "clothes-audit"
    found = Audit.from_json(json.loads((folder / "audit.json").read_text("utf-8")))
    splits = load(images, val=0)
    leaked = {splits.test.paths[row].rpartition("/")[2] for row in found.leaked}
    assert leaked == {"50.png", "61.png"}
    assert [each.path.rpartition("/")[2] for each in found.broken] == ["broken.png"]
    assert found.doubted == () and not found.compared
    page = (folder / "audit.html").read_text("utf-8")
    assert "Test images that are trained on: 2" in page and "broken.png" in page


def test_a_run_is_audited_with_its_own_answers(type_in, here, run, images):
    looks = len(run.info.test_opened)
    code, out, _ = type_in("audit", run.path, "--json")
    tree = json.loads(out)["audit"]
    assert code == 0 and tree["doubted"] == ["val", "test"] and tree["compared"]
    assert [(row["split"], row["index"]) for row in tree["label_issues"]] == [("test", 3)]
    assert len(run.info.test_opened) == looks + 1
    assert run.audit.leaked and run.audit.suspected == {3}
    report = run.report.read_text("utf-8")
    assert "Faults of the data set" in report and "without images that are trained on" in report
    assert "2 test images occur in train or val too" in report
    assert "<td>95.83</td>" in report and "<td>100.00</td>" in report  # 23 of 24, 23 of 23


@pytest.mark.slow
def test_wrong_labels_are_looked_for_with_folds(type_in, here, images):
    recipe = here / "tiny.toml"
    recipe.write_text(
        'name = "tiny"\n[model]\nname = "classic"\n[model.options]\nwidths = [4]\ndense = [8]\n'
        "[train]\nepochs = 1\nbatch_size = 8\n"
    )
    words = ("audit", images, "--folds", 2, "--recipe", recipe, "--out", here / "found", "--json")
    code, out, _ = type_in(*words)
    assert code == 0
    tree = json.loads(out)["audit"]
    assert tree["doubted"] == ["train", "test"] and tree["compared"]
    series = here / "found" / "folds"
    assert Run(series / "fold-2").info.state == "done"
    assert len(np.load(series / "out_of_fold.npz")["labels"]) == 48
    assert (here / "found" / "audit.html").is_file()


def test_without_cleanlab_folds_are_refused_before_they_train(
    type_in, here, images, run, monkeypatch
):
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    code, out, err = type_in("audit", images, "--folds", 2)
    assert (code, out) == (3, "") and "pip install 'tinylens[audit]'" in err
    assert not (here / "runs").exists()
    code, out, err = type_in("audit", run.path, "--json")
    assert code == 0 and "labels are not looked at: " in err
    assert json.loads(out)["audit"]["doubted"] == []


# --- data apply


@pytest.fixture
def fixes(here, images):
    """fixes.csv: drop the train images that leak, and call the first of test a bag."""
    splits = load(images, val=0)
    made = []
    for name, index, action, label in (
        ("train", 2, "drop", ""),
        ("test", 0, "change", NAMES[1]),
        ("test", 1, "keep", ""),
    ):
        part = dict(splits.items())[name]
        mark = corrections.image_mark(part.images[index])
        given = part.class_names[part.labels[index]]
        made.append(corrections.Fix(name, index, mark, given, action, label))
    corrections.write(here / "fixes.csv", tuple(made))
    return here / "fixes.csv"


def test_fixes_make_a_new_set(type_in, here, images, fixes):
    code, out, err = type_in("data", "apply", images, fixes)
    assert (code, err) == (0, "")
    assert "1 labels changed, 1 images dropped, 1 looked at and kept" in out
    assert "train 48 → 47, test 24 → 24" in out
    corrected = arrays.read_parts(here / "clothes-corrected.npz")
    given = load(images, val=0)
    assert np.array_equal(corrected.train.images, np.delete(given.train.images, 2, axis=0))
    assert corrected.test.labels.tolist() == [1, *given.test.labels[1:].tolist()]


def test_groups_go_with_their_images(type_in, here, images, fixes):
    parts = load_parts(images, Options())
    pattern = r"train/.*/(\d)|test/"  # one bracket; of test, none
    code, _, err = type_in("data", "apply", images, fixes, "--groups", pattern)
    assert code == 4 and "24 of 24 images have no group" in err
    code, _, err = type_in("data", "apply", images, fixes, "--groups", r"/(\w+)\.png$")
    assert (code, err) == (0, "")
    groups = arrays.read_groups(here / "clothes-corrected.npz", "groups")
    names = [Path(path).stem for path in parts.train.paths]
    assert groups["train"] == names[:2] + names[3:]
    assert groups["test"] == [Path(path).stem for path in parts.test.paths]


def test_fixes_of_another_set_change_nothing(type_in, here, images, fixes):
    text = fixes.read_text().replace("drop", "keep").replace(",0,", ",5,")
    fixes.write_text(text)
    code, out, err = type_in("data", "apply", images, fixes, "--out", "new.npz")
    assert (code, out) == (4, "")
    assert "test 5 is another image or of another class" in err
    assert not (here / "new.npz").exists()
    code, _, err = type_in("data", "apply", images, fixes, "--out", "new.parquet")
    assert code == 2 and "expected a file .npz, such as new.npz" in err


# --- the page


@pytest.fixture
def page(here, images, type_in):
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium to render with")
    playwright = pytest.importorskip("playwright.sync_api")
    type_in("audit", images)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1280, "height": 900})
        trouble = []
        opened.on("console", lambda message: trouble.append(message.text))
        opened.on("pageerror", lambda error: trouble.append(str(error)))
        opened.goto((here / "runs" / "clothes-audit" / "audit.html").as_uri())
        yield opened
        assert trouble == []
        browser.close()


@pytest.mark.slow
def test_decisions_by_key_and_click_are_saved_and_applied(page, here, images, type_in):
    cards = page.locator(".card")
    assert cards.count() == 2
    cards.nth(0).focus()
    page.keyboard.press("d")  # and the next one has the focus
    page.keyboard.press("c")
    assert page.locator("#count").inner_text() == "2 decided."
    cards.nth(1).locator("select").select_option(index=2)
    chosen = cards.nth(1).locator("select").input_value()
    page.reload()  # what was decided is remembered
    assert page.locator("#count").inner_text() == "2 decided."
    with page.expect_download() as waiting:
        page.locator("#save").click()
    saved = here / "fixes.csv"
    waiting.value.save_as(saved)
    rows = list(csv.DictReader(saved.read_text("utf-8").splitlines()))
    assert [(row["split"], row["action"], row["label"]) for row in rows] == [
        ("train", "drop", ""),
        ("train", "change", chosen),
    ]
    code, out, err = type_in("data", "apply", images, saved)
    assert (code, err) == (0, "") and "train 48 → 47" in out


@pytest.mark.slow
def test_a_decision_can_be_taken_back(page):
    card = page.locator(".card").first
    card.locator("[data-action=keep]").click()
    assert card.get_attribute("data-decided") == "keep"
    card.locator("[data-action=keep]").click()
    assert card.get_attribute("data-decided") == ""
    card.focus()
    page.keyboard.press("k")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("u")
    assert page.locator("#count").inner_text() == "Nothing is decided yet."
