from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tinylens.data import summary
from tinylens.data.dataset import Dataset, Skipped, Splits
from tinylens.data.readers.synthetic import shapes
from tinylens.data.summary import CELL, GAP, channel_statistics, contact_sheet, summarize

NAMES = ("cat", "dog", "hen")


def dataset(levels, labels, side=8, **more):
    images = np.array(levels, np.uint8)[:, None, None, None] * np.ones((1, side, side, 1), np.uint8)
    return Dataset(images, labels, NAMES, "made", **more)


def test_everything_is_counted():
    skipped = (Skipped("a.png", "empty file"),)
    train = dataset([0, 100, 200, 100], [0, 0, 1, 2], skipped=skipped)
    found = summarize(Splits(train, None, dataset([5], [2]), ("as given",)))
    assert found.parts["train"].counts == (2, 1, 1)
    assert found.parts["test"].counts == (0, 0, 1)
    assert found.channel_mean == (100.0,)
    assert found.channel_std == pytest.approx((np.sqrt(5000),))
    tree = json.loads(json.dumps(found.to_json()))
    assert tree["parts"]["train"]["skipped"] == [{"path": "a.png", "reason": "empty file"}]
    assert tree["notes"] == ["as given"] and len(tree["fingerprint"]) == 64
    assert tree["image_shape"] == [8, 8, 1]


def test_statistics_are_numpys_also_over_blocks(monkeypatch):
    monkeypatch.setattr(summary, "_BLOCK", 7)
    images = shapes(30, 10).train.images
    mean, std = channel_statistics(images)
    assert mean == pytest.approx(images.mean(axis=(0, 1, 2)))
    assert std == pytest.approx(images.std(axis=(0, 1, 2)))


def test_a_sheet_has_a_row_a_class_with_its_images():
    data = dataset([10, 20, 30, 40], [0, 0, 1, 2])
    sheet = contact_sheet(data, columns=2)
    times = CELL // 8
    height = len(NAMES) * (8 * times + GAP) + GAP
    assert sheet.height == height
    pixels = np.asarray(sheet)
    right = sheet.width - 2 * (CELL + GAP)  # where the images begin
    tops = [GAP + row * (CELL + GAP) for row in range(3)]
    first = [pixels[top + 5, right + 5].tolist() for top in tops]
    second = [pixels[top + 5, right + CELL + GAP + 5].tolist() for top in tops]
    assert first == [[10] * 3, [30] * 3, [40] * 3]
    assert second == [[20] * 3, [255] * 3, [255] * 3]
    names = pixels[:, : right - GAP]
    assert all((names[top : top + CELL] < 100).any() for top in tops)  # something is written


def test_images_are_taken_evenly_from_all():
    data = dataset(range(100), [0] * 98 + [1, 2])
    pixels = np.asarray(contact_sheet(data, columns=2))
    right = pixels.shape[1] - 2 * (CELL + GAP)
    assert pixels[GAP + 1, right + 1, 0] == 0 and pixels[GAP + 1, right + CELL + GAP + 1, 0] == 49


def test_large_images_are_made_smaller():
    assert contact_sheet(dataset([1, 2, 3], [0, 1, 2], side=500), 1).height == 3 * 132 + GAP


def test_of_very_many_classes_the_first_are_shown_and_the_rest_counted():
    names = tuple(f"class {number}" for number in range(205))
    data = Dataset(np.zeros((205, 8, 8, 3), np.uint8), range(205), names, "made")
    assert contact_sheet(data, 1).height == 201 * (CELL + GAP) + GAP


def test_the_sheet_is_written_as_a_png(tmp_path):
    summary.write_contact_sheet(shapes(20, 10).train, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.format == "PNG" and image.height == 10 * (64 + GAP) + GAP
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_names_in_other_scripts_and_long_ones_do_not_break_the_sheet():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    contact_sheet(Dataset(images, [0, 1], ("猫 🐈", "x" * 500), "made"))


def test_of_many_broken_images_the_first_are_printed_and_the_rest_counted():
    skipped = tuple(Skipped(f"{number}.png", "empty file") for number in range(25))
    found = summarize(
        Splits(dataset([1, 2, 3], [0, 1, 2], skipped=skipped), None, dataset([5], [2]), ("a note",))
    )
    lines = list(found.lines())
    assert lines[0] == "images       8×8 grey" and "note           a note" in lines
    assert lines[-2:] == [
        "set aside      19.png: empty file",
        "set aside      and 5 more; --json lists all",
    ]
