import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from builders_run import make_run, simulated_history, simulated_parts
from tinylens.errors import RunError
from tinylens.reporting import write
from tinylens.reporting.contents import Contents
from tinylens.reporting.document import data_uri
from tinylens.reporting.report import render

NASTY = ("<script>alert(1)</script>", 'a"onmouseover="x', "dog & {{ 7 * 7 }}")
VOID = {"meta", "img", "br", "input", "link"}


class Outline(HTMLParser):
    """Collects what a test asks about, and fails on tags that do not match."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.headings, self.text = [], [], [], []
        self.feed(html)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).replace("\u00a0", " ").split())


def report_of(path, **changes):
    run = make_run(path, **changes)
    return run, render(Contents.read(run))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return report_of(tmp_path_factory.mktemp("runs") / "animals-classic-1")


def test_verdict_and_gap_come_first(plain):
    run, html = plain
    test = run.evaluation.splits["test"].accuracy
    words = Outline(html).words
    value, low, high = (f"{100 * x:.1f}" for x in (test.value, *test.ci95))
    assert f"{value} % of the test images answered right" in words
    assert f"expect {low} to {high} %" in words
    assert run.evaluation.gap.words in words
    assert words.index(run.evaluation.gap.words) < words.index("Figures Of the network")


def test_every_figure_of_every_part_is_in_the_table(plain):
    run, html = plain
    table = html[html.index('<table class="figures">') :]
    cells = re.findall(r"<td>([\d.,]+)<small class=\"muted\">([\d.–]+)", table)
    shown = {(value, interval) for value, interval in cells}
    for scores in run.evaluation.splits.values():
        low, high = scores.f1_weighted.ci95
        assert (
            f"{100 * scores.f1_weighted.value:.1f}",
            f"{100 * low:.1f}–{100 * high:.1f}",
        ) in shown
        low, high = scores.log_loss.ci95
        assert (f"{scores.log_loss.value:.3f}", f"{low:.3f}–{high:.3f}") in shown
    assert "Top-5" not in html  # of 3 classes it says nothing


def test_how_it_was_trained_and_where_it_came_from_are_told(plain):
    _, html = plain
    words = Outline(html).words
    for described in (
        "The test split was opened once.",
        "Every choice, such as early stopping, best weights and temperature, was made on val.",
        "10 % of train was carved out as val, class by class, with split seed 0",
        "tinylens train animals --recipe classic",
        "5f" * 32,
        "AMD EPYC 9575F",
        "keras 3.15.1",
        "evaluate 6.5 s",
        "Seed 7, tensorflow, bfloat16.",
        "learning_rate 0.001",
        "logits divided by a temperature of 1.310, which changed its log loss from 0.3100 to 0.29",
    ):
        assert described in words


def test_the_number_of_looks_at_test_is_told(tmp_path):
    looks = [{"time": f"2026-11-2{day}T00:00:00Z", "command": f"look {day}"} for day in (1, 2, 3)]
    _, html = report_of(tmp_path / "run", info={"test_opened": looks})
    assert "The test split was opened 3 times." in Outline(html).words
    assert "look 3" in html


def test_a_report_is_whole_in_itself_and_small(plain):
    _, html = plain
    assert "://" not in html
    for tag, attributes in Outline(html).tags:
        assert tag not in ("link", "iframe", "object", "base")
        for name in ("src", "href", "poster", "data", "action"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,")), tag
    assert "url(" not in html
    assert "@import" not in html
    assert "default-src 'none'" in html
    assert len(html.encode()) < 200_000


def test_images_charts_and_headings_can_be_read_aloud(plain):
    _, html = plain
    outline = Outline(html)
    assert all(attributes["alt"] for tag, attributes in outline.tags if tag == "img")
    drawings = [attributes for tag, attributes in outline.tags if tag == "svg"]
    assert len(drawings) == 2
    assert all(drawing["role"] == "img" and drawing["aria-label"] for drawing in drawings)
    assert outline.headings[0] == 1
    assert outline.headings.count(1) == 1
    steps = zip(outline.headings, outline.headings[1:], strict=False)
    assert all(below - above <= 1 for above, below in steps)
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for tag, attributes in outline.tags if tag == "a"]
    assert all(link.removeprefix("#") in ids for link in links)


def test_whatever_comes_from_the_run_is_escaped(tmp_path):
    _, html = report_of(
        tmp_path / "run",
        class_names=NASTY,
        info={
            "dataset": "<img src=x onerror=alert(2)>",
            "command": "tinylens train '</code><script>alert(3)</script>'",
            "notes": ["<b>bold</b>"],
            "hardware": {"<i>": "<u>"},
        },
    )
    outline = Outline(html)
    assert sum(tag == "script" for tag, _ in outline.tags) == 1
    assert not any(name.startswith("on") for _, attributes in outline.tags for name in attributes)
    assert "u" not in {tag for tag, _ in outline.tags}
    assert "<b>bold</b>" in outline.words
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "dog & {{ 7 * 7 }}" in outline.words


def test_the_only_script_is_the_one_that_the_page_allows(plain):
    import base64
    import hashlib

    _, html = plain
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;" in html or f"'sha256-{digest}'" in html


def test_confusions_are_listed_from_the_most_frequent(tmp_path):
    labels = np.repeat([0, 1], 50)
    answers = labels.copy()
    answers[:3], answers[50:58] = 1, 0
    probabilities = np.where(answers[:, None] == [0, 1], 0.75, 0.25).astype(np.float32)
    parts = {"train": (probabilities, labels), "test": (probabilities, labels)}
    _, html = report_of(tmp_path / "run", class_names=("cat", "dog"), parts=parts)
    words = Outline(html).words
    first, second = "dog taken for cat 8 of 50 · 16.0 %", "cat taken for dog 3 of 50 · 6.0 %"
    assert words.index(first) < words.index(second)
    assert 'title="dog → cat: 8, 16.0 %"><button' in html
    assert 'aria-label="dog taken for cat: 8 images">8</button></td>' in html


def test_a_run_without_val_history_or_mistakes_has_a_report(tmp_path):
    labels = np.arange(40) % 2
    sure = np.where(labels[:, None] == [0, 1], 1.0, 0.0).astype(np.float32)
    parts = {"train": (sure, labels), "test": (sure, labels)}
    run, html = report_of(tmp_path / "run", class_names=("a", "b"), parts=parts, history=[])
    write.write(run)
    words = Outline(html).words
    assert "100.0 % of the test images answered right" in words
    assert "No image of test was mistaken." in words
    assert "There was no val split" in words
    assert "no temperature was fitted" in words
    assert 'id="mistakes"' not in html
    assert not (run.plots / "curves.png").exists()
    assert not (run.plots / "worst_mistakes.png").exists()


def test_a_figure_that_is_not_defined_says_so(tmp_path):
    parts = simulated_parts()
    probabilities, labels = parts["test"]
    parts["test"] = probabilities[labels < 2], labels[labels < 2]
    _, html = report_of(tmp_path / "run", parts=parts)
    assert '–<small class="muted">not defined</small>' in html


def test_a_hundred_classes_make_a_matrix_without_numbers(tmp_path):
    names = tuple(f"class {number:02d}" for number in range(100))
    parts = simulated_parts(names, {"train": 300, "val": 200, "test": 1000})
    _, html = report_of(tmp_path / "run", class_names=names, parts=parts)
    assert '<table class="matrix dense"' in html
    assert len(html.encode()) < 4_000_000
    assert html.count('<tr><th scope="row" title="class') == 100


def test_a_single_epoch_and_a_loss_that_is_not_a_number_are_drawn(tmp_path):
    history = simulated_history(1)
    history[0]["loss"] = float("nan")
    _, html = report_of(tmp_path / "run", history=history)
    drawings = [attributes for tag, attributes in Outline(html).tags if tag != "svg"]
    assert not [value for attributes in drawings for value in attributes.values() if value == "nan"]
    assert "Loss and accuracy by epoch" in html


def test_write_leaves_the_report_and_all_plots_and_removes_what_has_no_successor(tmp_path):
    run, html = report_of(tmp_path / "run")
    write.write(run)
    assert run.report.read_text(encoding="utf-8") == html
    plots = {"curves", "confusion_matrix", "per_class", "reliability", "worst_mistakes"}
    assert {path.stem for path in run.plots.iterdir()} == plots
    (run.path / "history.csv").unlink()
    write.write(run)
    assert {path.stem for path in run.plots.iterdir()} == plots - {"curves"}


def test_a_run_that_is_not_evaluated_yet_has_no_report(tmp_path):
    run = make_run(tmp_path / "run")
    (run.path / "evaluation.json").unlink()
    with pytest.raises(RunError, match=r"has no evaluation\.json: training has not come that far"):
        write.write(run)
    assert not run.report.exists()


def test_files_of_two_trainings_are_refused(tmp_path):
    run, other = make_run(tmp_path / "run"), simulated_parts(sizes={"test": 30})["test"]
    run.write_predictions({"test_probabilities": other[0], "test_labels": other[1]})
    with pytest.raises(RunError, match=r"speaks of 90 test images and 3 classes, .* \(30, 3\)"):
        write.write(run)


def test_images_survive_their_way_into_the_page():
    import base64
    import io

    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    content = base64.b64decode(data_uri(image).removeprefix("data:image/png;base64,"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), image)
