"""What `predict` answers: one row an image, in the order they came in."""

from __future__ import annotations

import csv

import names
import numpy as np
import pytest
from outside import NAMES


@pytest.fixture(scope="module")
def requested(kinds, broken):
    """Ten images of the test split in another order, and one in their midst that is none."""
    order = np.random.RandomState(3).permutation(80)[:10]
    files = kinds.files("test")
    return [*[files[row] for row in order[:4]], broken, *[files[row] for row in order[4:]]], order


def test_a_row_an_image_in_the_order_they_came_in(shell, classic, requested):
    files, order = requested
    ended = shell("predict", classic, *files, "--top", 3, "--json")
    assert ended.code == 0, ended.err
    rows = ended.json
    assert [row["path"] for row in rows] == [str(path) for path in files]
    assert all(set(row) == names.PREDICT_KEYS for row in rows)
    bad = rows.pop(4)
    assert bad["error"] and (bad["label"], bad["confidence"], bad["top"]) == (None, None, [])
    with np.load(classic / "predictions.npz") as arrays:
        expected = arrays["test_probabilities"][order]
    for row, probabilities in zip(rows, expected, strict=True):
        assert row["error"] is None and row["unknown"] is False
        likeliest = [NAMES[label] for label in np.argsort(-probabilities)[:3]]
        assert row["label"] == row["top"][0]["label"] == likeliest[0]
        assert [one["label"] for one in row["top"]] == likeliest
        found = [one["probability"] for one in row["top"]]
        np.testing.assert_allclose(found, np.sort(probabilities)[::-1][:3], atol=1e-4)
        assert row["confidence"] == found[0] and 0 <= row[names.OOD_SCORE] <= 1


def test_rows_as_csv_are_those_of_json(shell, classic, requested, tmp_path):
    files, _ = requested
    ended = shell("predict", classic, *files, "--top", 2, "--csv", tmp_path / "rows.csv")
    assert ended.code == 0, ended.err
    with (tmp_path / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == names.CSV_COLUMNS
    expected = shell("predict", classic, *files, "--top", 2, "--json").json
    for row, one in zip(rows, expected, strict=True):
        assert (row["path"], row["label"]) == (one["path"], one["label"] or "")
        assert row["error"] == (one["error"] or "")
        if one["label"]:
            assert float(row["confidence"]) == pytest.approx(one["confidence"], abs=1e-5)
            assert row["label_2"] == one["top"][1]["label"]


@pytest.mark.slow
def test_rows_as_parquet_are_as_many(shell, classic, requested, tmp_path):
    import pyarrow.parquet

    files, _ = requested
    ended = shell("predict", classic, *files, "--parquet", tmp_path / "rows.parquet")
    assert ended.code == 0, ended.err
    table = pyarrow.parquet.read_table(tmp_path / "rows.parquet")
    assert table.column("path").to_pylist() == [str(path) for path in files]
    assert table.column("error").null_count == len(files) - 1


def test_a_folder_is_all_its_images_and_the_model_file_is_the_run(shell, classic, kinds):
    folder = kinds.folder / "folder" / "test" / "wedge"
    of_folder = shell.ok("predict", classic, folder)
    pattern = shell.ok("predict", classic / "model.onnx", str(folder / "*.png"))
    assert len(of_folder) == 20 and of_folder == pattern


def test_images_of_another_size_mode_or_format_are_answered_alike(shell, classic, kinds, tmp_path):
    from PIL import Image

    source = kinds.files("test")[0]
    image = Image.open(source)
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.bmp")
    image.save(tmp_path / "c.webp", lossless=True)
    image.convert("RGBA").save(tmp_path / "d.png")
    image.resize((64, 64), Image.Resampling.NEAREST).save(tmp_path / "e.png")
    image.convert("L").save(tmp_path / "f.png")
    paths = sorted(tmp_path.iterdir())
    rows = shell.ok("predict", classic, source, *paths)
    assert [row["error"] for row in rows] == [None] * 7
    assert len({(row["label"], row["confidence"]) for row in rows[:5]}) == 1
    assert rows[5]["label"] == rows[0]["label"]


def test_all_broken_is_bad_data_and_still_a_row_each(shell, classic, broken):
    ended = shell("predict", classic, broken, broken, "--json")
    assert ended.code == 4
    assert [bool(row["error"]) for row in ended.json] == [True, True]


@pytest.mark.slow
def test_sets_of_classes_and_refusals(shell, classic, kinds, tmp_path):
    from PIL import Image

    noise = np.random.RandomState(1).randint(0, 256, (16, 16, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    files = [*kinds.files("test")[:10], tmp_path / "noise.png"]
    plain = shell.ok("predict", classic, *files)
    strict = shell.ok("predict", classic, *files, names.REJECT_OOD, "20%")
    assert sum(bool(row["unknown"]) for row in strict) >= sum(bool(r["unknown"]) for r in plain)
    assert [row["label"] for row in strict] == [row["label"] for row in plain]
    scores = [[r[names.OOD_SCORE] for r in strict if bool(r["unknown"]) == no] for no in (0, 1)]
    assert scores[0] and (not scores[1] or max(scores[0]) <= min(scores[1]))
