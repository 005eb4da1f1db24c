"""The cells of the confusion matrix, and the images that they open."""

from __future__ import annotations

import numpy as np

from builders_run import make_run, simulated_parts
from tinylens.reporting.contents import Contents
from tinylens.reporting.report import matrix, render


def without_images(run):
    arrays = run.predictions
    run.write_predictions({name: arrays[name] for name in arrays if "confused" not in name})
    return Contents.read(run)


def test_a_cell_opens_the_surest_images_of_its_confusion(tmp_path):
    contents = Contents.read(make_run(tmp_path / "run"))
    shown = contents.confusions
    cells = {cell["target"] for row in matrix(contents) for cell in row["cells"]}
    assert cells == {each.target for each in shown} | {""}
    wrong = contents.probabilities.argmax(axis=1) != contents.labels
    for each in shown:
        kind = (each.label, each.answer)
        assert {(one.label, one.answer) for one in each.mistakes} == {kind}
        confidence = [one.confidence for one in each.mistakes]
        assert confidence == sorted(confidence, reverse=True)
        assert all(wrong[one.row] for one in each.mistakes)


def test_an_older_run_has_a_matrix_whose_cells_do_not_open(tmp_path):
    contents = without_images(make_run(tmp_path / "run"))
    assert not any(each.target or each.mistakes for each in contents.confusions)
    html = render(contents)
    assert "popovertarget" not in html and "Press a mistaken one" not in html
    assert f"{contents.confusions[0].count}</td>" in html


def test_a_hundred_classes_of_images_that_cannot_be_compressed_stay_under_6_mb(tmp_path):
    names = tuple(f"class {number:02d}" for number in range(100))
    parts = simulated_parts(names, {"train": 300, "test": 3000})
    images = np.random.default_rng(0).integers(0, 256, (3000, 96, 96, 3), np.uint8)
    run = make_run(tmp_path / "run", class_names=names, parts=parts, test_images=images)
    html = render(Contents.read(run))
    assert html.count("popovertarget=") > 100
    assert len(html.encode()) < 6_000_000
