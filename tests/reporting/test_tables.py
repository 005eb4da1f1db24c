import io

import numpy as np
import pytest
from rich.console import Console

from builders_curve import SIZES, errors_of, simulated
from builders_export_card import CARD
from builders_run import simulated_parts
from tinylens.errors import RunError
from tinylens.evaluation import evaluate
from tinylens.evaluation.diagnosis import take_apart
from tinylens.reporting import tables
from tinylens.reporting.wording import groups
from tinylens.results import Calibration, NetworkSize
from tinylens.training.learning_curve import Size, assemble


def evaluation_of(class_names=("cat", "dog", "owl"), **sizes):
    parts = simulated_parts(class_names, sizes or {"train": 240, "val": 60, "test": 90})
    return evaluate.assemble(parts, class_names, Calibration(1.0, "none"))


def lines_of(table, width=100):
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue().splitlines()


def test_overview_has_a_column_a_part_and_the_figures_with_intervals():
    evaluated = evaluation_of()
    lines = lines_of(tables.overview(evaluated))
    assert lines[0].split() == ["train", "val", "test"]
    assert lines[2].split() == ["Images", "240", "60", "90"]
    accuracy = evaluated.splits["test"].accuracy
    value, low, high = (f"{100 * x:.1f}" for x in (accuracy.value, *accuracy.ci95))
    assert lines[3].startswith("Accuracy %")
    assert lines[3].endswith(f"{value} ({low}–{high})")
    titles = [line.split("  ")[0].strip() for line in lines[2:-1]]
    assert titles == [
        "Images", "Accuracy %", "Log loss", "Brier", "ECE %", "Precision %", "Recall %", "F1 %",
        "MCC", "ROC AUC",
    ]  # fmt: skip


def test_sizes_has_a_row_a_network_and_a_dash_where_it_was_not_judged():
    accuracy = evaluation_of().splits["test"].accuracy
    shown = [
        NetworkSize("teacher", "t/model.onnx", 1_153_125, 4_656_794, None, 3.3716),
        NetworkSize("student", "s/model.onnx", 97_188, 415_157, accuracy, 0.0701),
    ]
    lines = lines_of(tables.sizes(shown))
    assert lines[2].split() == ["teacher", "1,153,125", "4,657", "–", "3.372"]
    value, low, high = (f"{100 * x:.1f}" for x in (accuracy.value, *accuracy.ci95))
    assert lines[3].split() == ["student", "97,188", "415", value, f"({low}–{high})", "0.070"]


def test_per_class_shows_each_class():
    evaluated = evaluation_of()
    lines = lines_of(tables.per_class(evaluated, "val"))
    assert lines[0].split() == [
        "Class", "(val)", "Precision", "%", "Recall", "%", "F1", "%", "Images",
    ]  # fmt: skip
    owl = evaluated.splits["val"].per_class[2]
    assert lines[4].split()[0] == "owl"
    assert f"{100 * owl.recall.value:.1f}" in lines[4]
    assert lines[4].split()[-1] == "20"


@pytest.mark.parametrize("width", [80, 100])
def test_tables_fit_the_terminal_and_cut_no_figure(width):
    names = ("a name that is very long indeed", *(f"class {number}" for number in range(9)))
    evaluated = evaluation_of(names, train=54_000, val=6000, test=10_000)
    for table in (tables.overview(evaluated), tables.per_class(evaluated)):
        lines = lines_of(table, width)
        assert max(map(len, lines)) <= width
        assert not [line for line in lines if "…" in line[19:]]
        assert sum("(" in line for line in lines) >= 10


def test_a_part_that_was_not_judged_is_named():
    with pytest.raises(RunError, match="no part 'val'; it has train, test"):
        tables.per_class(evaluation_of(train=30, test=30), "val")


def test_class_names_are_not_read_as_markup():
    lines = lines_of(tables.per_class(evaluation_of(("[red]cat[/red]", "dog", "owl"))))
    assert lines[2].startswith("[red]cat[/red]")


def test_a_learning_curve_has_a_row_a_size_with_every_seed():
    wrong = simulated(errors_of(0.3, 0.2, 0.08), np.random.default_rng(0))
    curve = assemble([Size(images, 0, 3) for images in SIZES], wrong)
    lines = lines_of(tables.learning_curve(curve))
    error = curve.points[3].error
    value, low, high = (f"{100 * x:.1f}" for x in (error.value, *error.ci95))
    by_seed = [f"{100 * x:.2f}" for x in wrong[3].mean(axis=1)]
    assert lines[5].split() == ["54,000", "3.0", value, f"({low}–{high})", *by_seed]
    assert lines[6].rstrip() == "recipe fast, on 6,000 images of val"


def test_the_gap_is_shown_with_its_parts():
    parts = take_apart(evaluation_of())
    lines = lines_of(tables.gap_parts(parts))
    unlearnt = parts.test_error.parts[0]
    value, low, high = (f"{100 * x:.1f}" for x in (unlearnt.size.value, *unlearnt.size.ci95))
    assert lines[3].split()[:8] == [
        "wrong",
        "on",
        "train,",
        "too",
        value,
        f"({low}",
        "to",
        f"{high})",
    ]
    assert [line.split()[0] for line in lines[2:]] == [
        "Error", "wrong", "from", "Gap,", *(row.name for row in groups(parts)[1].rows), "points",
    ]  # fmt: skip


def test_a_line_a_file_fits_into_80_columns():
    lines = lines_of(tables.formats(CARD))
    rows = [line.split() for line in lines if "onnx" in line or "litert" in line]
    assert rows[0] == ["litert", "100.00", "2e-06", "–", "1.18", "–", "–"]
    assert " ".join(rows[1]) == ("onnx-int8 ✗ 99.58 0.1 -0.13 (-0.25 -0.01) 0.34 0.12 0.25 11,449")
    caption = " ".join(" ".join(lines[4:]).split())
    assert "on 10,000 images of test and 6,000 images of val" in caption
    assert "256 at once, 2 threads" in caption
