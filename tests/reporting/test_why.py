"""The report's block on the gap: what the parts are, and what to do."""

from __future__ import annotations

import html
import re

import numpy as np
import pytest
from PIL import Image

from builders_curve import curve_of, errors_of, simulated
from builders_run import make_run, simulated_parts
from tinylens.evaluation.diagnosis import diagnose
from tinylens.reporting import charts, write
from tinylens.reporting.contents import Contents
from tinylens.reporting.report import render
from tinylens.reporting.wording import groups
from tinylens.results import Audit, LearningCurve, Score, Twin
from tinylens.training.learning_curve import Size, assemble


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


@pytest.fixture(scope="module")
def curve():
    wrong = simulated(errors_of(0.3, 0.2, 0.08), np.random.default_rng(0))
    return assemble([Size(n, 0, 3) for n in (6_750, 13_500, 27_000, 54_000)], wrong)


def words_of(run):
    """The report without its tags."""
    text = html.unescape(re.sub(r"<[^>]*>", " ", render(Contents.read(run))))
    return " ".join(text.replace("\u00a0", " ").split())


def test_the_report_tells_the_parts_and_the_advice_below_the_gap(run):
    words, explained = words_of(run), diagnose(run)
    for each in explained.advice:
        assert each.words in words
    gap = words.index(run.evaluation.gap.words)
    assert gap < words.index("What to do", gap) < words.index("Figures Of the network")
    unlearnt, to_test = explained.parts.test_error.parts
    for part in (unlearnt, to_test):
        low, high = (f"{100 * end:.1f}" for end in part.size.ci95)
        assert f"{part.name} {100 * part.size.value:.1f} {low} to {high}" in words


def test_classes_come_from_the_largest_part_down_and_only_ten_of_many(tmp_path):
    names = tuple(f"class {number:02d}" for number in range(30))
    parts = simulated_parts(names, {"train": 600, "test": 900})
    run = make_run(tmp_path / "many", class_names=names, parts=parts)
    by_class = groups(Contents.read(run).parts)[1]
    assert by_class.title == "Gap, its 10 largest classes"
    sizes = [float(row.size.replace("−", "-")) for row in by_class.rows]
    assert len(sizes) == 10
    assert sizes == sorted(sizes, reverse=True)


def test_a_learning_curve_is_drawn_to_twice_the_images(run, curve):
    run.write_learning_curve(curve)
    axes = charts.learning_curve(curve).axes[0]
    [expected] = [line for line in axes.get_lines() if line.get_label() == "power law"]
    measured = axes.containers[0][0]
    assert (len(measured.get_xdata()), len(expected.get_xdata())) == (4, 17)
    assert measured.get_ydata()[0] == pytest.approx(100 * curve.points[0].error.value)
    assert expected.get_xdata()[-1] == pytest.approx(2 * curve.points[-1].images)
    assert curve.words in words_of(run)
    write.write(run)
    with Image.open(run.plots / "learning_curve.png") as plot:
        assert plot.size == (768, 480)


def test_a_curve_without_a_power_law_is_drawn_without_one(run, curve):
    measured = LearningCurve("fast", 60, curve.points, (), Score(None, None), "It cannot be told.")
    run.write_learning_curve(measured)
    series = charts.learning_curve(measured).axes[0].get_legend_handles_labels()[1]
    assert series == ["val"]
    write.write(run)
    assert (run.plots / "learning_curve.png").is_file()


def test_a_curve_without_a_mistake_can_be_drawn(run):
    nothing = np.zeros((4, 3, 500), bool)
    run.write_learning_curve(assemble([Size(n, 0, 3) for n in (10, 20, 40, 80)], nothing))
    write.write(run)
    low, high = run.learning_curve.doubled.ci95
    assert 0 <= low < high < 1e-3
    assert (run.plots / "learning_curve.png").is_file()


def test_leaks_are_told_where_an_audit_looked_for_them(run):
    twins = tuple(Twin(row, row, 0.0, ("train", "test"), ("cat", "cat")) for row in range(12))
    counts = {"train": (80, 80, 80), "val": (20, 20, 20), "test": (30, 30, 30)}
    run.write_audit(
        Audit("animals", ("cat", "dog", "owl"), counts, (), False, (), twins, (), (), ())
    )
    lift = diagnose(run).parts.leaks.lift
    described = "12 images of test occur in train or val, too; they lift the accuracy on test by "
    assert described + f"{100 * lift.value:.1f} points".replace("-", "−") in words_of(run)


def test_a_curve_survives_its_way_through_the_folder(run, curve):
    for each in (curve, curve_of(0.01, 0.02)):
        run.write_learning_curve(each)
        assert run.learning_curve == each
