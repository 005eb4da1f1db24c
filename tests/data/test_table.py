from __future__ import annotations

import builtins
import json
import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders_data import encoded, noise, parquet, plain
from tinylens.data.dataset import Dataset, Splits
from tinylens.data.encoded import Options
from tinylens.data.readers import parquet as card
from tinylens.data.readers import parquet as table
from tinylens.data.splits import Columns
from tinylens.errors import DataError, MissingExtra

RED, BLUE = (255, 0, 0), (0, 0, 255)

_SHARED = Path(os.environ.get("TINYLENS_TEST_DATA", Path(__file__).parents[2] / "../shared/data"))
CIFAR10_JPEG = _SHARED / "cifar10"


@pytest.fixture
def options(tmp_path):
    return Options(data_dir=tmp_path / "cache")


def test_a_file_is_a_dataset_with_the_class_names_of_its_metadata(tmp_path, options):
    path = parquet(tmp_path / "pets.parquet", [plain(RED), plain(BLUE)], [1, 0])
    data = table.read(path, options)
    assert isinstance(data, Dataset)
    assert data.class_names == ("cat", "dog")
    rows = dict(zip((Path(path).name for path in data.paths), range(2), strict=True))
    first, second = rows["pets.parquet:0"], rows["pets.parquet:1"]
    assert data.labels[[first, second]].tolist() == [1, 0]
    assert data.images[[first, second], 0, 0].tolist() == [list(RED), list(BLUE)]


def with_column(path, name, cells):
    table_ = pq.read_table(path)
    pq.write_table(table_.append_column(name, pa.array(cells)), path)
    return path


@pytest.mark.parametrize("column", ["split", "subset"])
def test_a_column_says_the_parts_where_no_name_of_a_file_does(tmp_path, options, column):
    images = [plain((shade, 0, 0)) for shade in (10, 20, 30, 40)]
    path = parquet(tmp_path / "pets.parquet", images, [0, 1, 0, 0])
    splits = table.read(
        with_column(path, column, ["test", "train", "Validation", "train"]), options
    )
    found = {name: sorted(part.images[:, 0, 0, 0].tolist()) for name, part in splits.items()}
    assert found == {"train": [20, 40], "val": [30], "test": [10]}


def test_a_split_that_is_none_is_an_error_and_another_column_is_left_alone(tmp_path, options):
    images = [plain(RED), plain(BLUE)]
    path = parquet(tmp_path / "pets.parquet", images, [0, 1])
    with_column(path, "set", ["Lego 7", "Lego 8"])
    assert len(table.read(path, options)) == 2
    with_column(path, "split", ["train", "tset"])
    with pytest.raises(DataError, match=r"column split of 1 rows names no part \(row 2: tset\)"):
        table.read(path, options)


@pytest.mark.parametrize(
    "names",
    [
        ("train.parquet", "validation.parquet", "test.parquet"),
        ("train-00000-of-00001.parquet", "valid-0.parquet", "test_1.parquet"),
        ("data/train-0.parquet", "data/val-0.parquet", "data/test-0.parquet"),
        ("plain_text/Train.parquet", "plain_text/dev.parquet", "plain_text/testing.parquet"),
    ],
)
def test_the_names_of_files_say_the_parts(tmp_path, options, names):
    root = tmp_path / "set"
    for name in names:
        parquet(root / name, [plain(RED), plain(BLUE)], [0, 1])
    splits = table.read(root, options)
    assert isinstance(splits, Splits)
    assert [(name, len(part)) for name, part in splits.items()] == [
        ("train", 2),
        ("val", 2),
        ("test", 2),
    ]


def test_files_of_one_part_are_joined(tmp_path, options):
    root = tmp_path / "set"
    for number in (2, 0, 1):
        name = f"train-{number:05}-of-00003.parquet"
        parquet(root / name, [plain((number, 0, 0)), plain()], [0, 1])
    data = table.read(root, options)
    assert sorted(data.images[data.labels == 0, 0, 0, 0].tolist()) == [0, 1, 2]


@pytest.mark.parametrize(("image", "label"), [("img", "label"), ("img", "fine_label")])
def test_other_usual_columns_are_known(tmp_path, options, image, label):
    path = tmp_path / "x.parquet"
    parquet(path, [plain(RED), plain(BLUE)], [0, 1], image_column=image, label_column=label)
    assert table.read(path, options).class_names == ("cat", "dog")


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_plain_bytes_will_do_and_without_names_classes_are_numbers(tmp_path, options, kind):
    content = pa.table({"image": pa.array([plain(RED), plain(BLUE)], kind), "label": [0, 2]})
    content = content.set_column(1, "label", pa.array([0, 1], pa.uint8()))
    pq.write_table(content, tmp_path / "x.parquet")
    assert table.read(tmp_path / "x.parquet", options).class_names == ("0", "1")


def test_older_metadata_that_numbers_the_names_is_understood(tmp_path, options):
    path = parquet(tmp_path / "x.parquet", [plain(RED), plain(BLUE)], [0, 1])
    content = pq.read_table(path)
    names = {"info": {"features": {"label": {"names": {"1": "hen", "0": "fox"}}}}}
    content = content.replace_schema_metadata({"huggingface": json.dumps(names)})
    pq.write_table(content, path)
    assert table.read(path, options).class_names == ("fox", "hen")


def test_null_rows_and_broken_images_are_set_aside_by_row(tmp_path, options):
    images = [plain(), None, b"?", plain(), plain()]
    path = parquet(tmp_path / "x.parquet", images, [0, 0, 1, None, 1])
    for _ in range(2):
        parts = table.read_parts(path, options)
        described = {Path(one.path).name: one.reason for one in parts.train.skipped}
        assert described["x.parquet:1"] == "no image"
        assert described["x.parquet:3"] == "no label"
        assert described["x.parquet:2"].startswith("not an image")
        assert parts.train.labels.tolist() == [0, 1]
        assert parts.notes == ("3 images could not be read and were set aside",)
    with pytest.raises(DataError, match="3 images cannot be read"):
        table.read(path, Options(data_dir=options.data_dir, strict=True))


def test_a_row_that_only_points_to_a_file_is_set_aside(tmp_path, options):
    path = parquet(tmp_path / "x.parquet", [plain(), plain(), plain()], [0, 1, 1])
    content = pq.read_table(path)
    cells = content["image"].to_pylist()
    cells[2] = {"bytes": None, "path": "/etc/passwd"}
    kind = content.schema.field("image").type
    pq.write_table(content.set_column(0, "image", pa.array(cells, kind)), path)
    (skipped,) = table.read(path, options).skipped
    assert skipped.reason == "a path without bytes"


def test_a_second_start_does_not_open_the_table(tmp_path, options, monkeypatch):
    path = parquet(tmp_path / "x.parquet", [plain(RED), plain(BLUE)], [0, 1])
    first = table.read(path, options)
    monkeypatch.setattr(table, "_open", None)
    assert table.read(path, options).fingerprint == first.fingerprint


# --- damage


def write(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def good(path: Path) -> bytes:
    return parquet(
        path, [encoded(noise(8, 8, 3, seed=n)) for n in range(9)], [0, 1] * 4 + [0]
    ).read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_a_file_cut_anywhere_is_named(tmp_path, options, share):
    path = tmp_path / "x.parquet"
    content = good(path)
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=r"x\.parquet: not a whole parquet file"):
        table.read(path, options)


@pytest.mark.parametrize("content", [b"PAR1", b"hello, world", b"PAR1" + bytes(99) + b"PAR1"])
def test_a_file_of_something_else_is_named(tmp_path, options, content):
    path = tmp_path / "x.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.parquet: not a whole parquet file"):
        table.read(path, options)


def test_damaged_pages_are_named_with_the_row(tmp_path, options):
    path = tmp_path / "x.parquet"
    content = bytearray(good(path))
    content[4:60] = b"\xff" * 56
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"x\.parquet: damaged after row 0"):
        table.read(path, options)


def test_missing_columns_are_told_with_those_found(tmp_path, options):
    path = write(tmp_path / "x.parquet", photo=[b"?"], kind=[1])
    with pytest.raises(DataError, match="columns photo, kind; expected image or img, and label"):
        table.read(path, options)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"image": [b"?"], "label": [0.5]}, "column label is double"),
        ({"image": ["text"], "label": [1]}, "column image is string, expected bytes"),
        ({"image": [[1, 2]], "label": [1]}, "column image is list"),
        ({"image": [{"path": "x"}], "label": [1]}, "column image is struct"),
        (
            {"image": pa.array([], pa.binary()), "label": pa.array([], pa.int8())},
            "0 rows, expected",
        ),
        ({"image": [b"?", b"?"], "label": [-1, 7]}, r"1 labels outside 0…9999 \(-1\)"),
    ],
)
def test_columns_of_other_kinds_are_named(tmp_path, options, columns, reason):
    with pytest.raises(DataError, match=reason):
        table.read(write(tmp_path / "x.parquet", **columns), options)


def test_labels_beyond_the_names_are_listed(tmp_path, options):
    path = parquet(tmp_path / "x.parquet", [plain()] * 3, [0, 2, 9])
    with pytest.raises(DataError, match=r"2 labels outside 0…1 \(2, 9\)"):
        table.read(path, options)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"info": 1}', '{"info": {"features": {"label": {"names": [1]}}}}']
)
def test_metadata_that_cannot_be_understood_is_named(tmp_path, options, text):
    path = parquet(tmp_path / "x.parquet", [plain(), plain()], [0, 1])
    content = pq.read_table(path).replace_schema_metadata({"huggingface": text})
    pq.write_table(content, path)
    with pytest.raises(
        DataError, match="class names in the schema's metadata cannot be understood"
    ):
        table.read(path, options)


def test_files_that_name_other_classes_are_refused(tmp_path, options):
    parquet(tmp_path / "train.parquet", [plain()] * 2, [0, 1])
    parquet(tmp_path / "test.parquet", [plain()] * 2, [0, 1], names=("dog", "cat"))
    with pytest.raises(
        DataError, match=r"the files name different classes: .*dog, cat; .*cat, dog; expected"
    ):
        table.read(tmp_path, options)


def test_file_names_that_say_no_part_beside_some_that_do_are_refused(tmp_path, options):
    for name in ("train.parquet", "extra.parquet"):
        parquet(tmp_path / name, [plain()] * 2, [0, 1])
    with pytest.raises(
        DataError, match=r"found extra\.parquet, train\.parquet; expected files named train"
    ):
        table.read(tmp_path, options)


def test_test_without_train_is_refused(tmp_path, options):
    parquet(tmp_path / "test.parquet", [plain()] * 2, [0, 1])
    with pytest.raises(DataError, match="found the parts test but no train split"):
        table.read(tmp_path, options)


def test_an_empty_folder_is_told_what_was_expected(tmp_path, options):
    with pytest.raises(DataError, match=r"found no \.parquet files; expected files named train"):
        table.read(tmp_path, options)


def test_nothing_half_written_is_left_after_an_error(tmp_path, options):
    path = parquet(tmp_path / "x.parquet", [b"?", b"?"], [0, 1])
    with pytest.raises(DataError, match="none of 2 files is an image"):
        table.read(path, options)
    assert list(options.data_dir.rglob("*")) == []


def test_without_pyarrow_the_command_to_type_is_told(tmp_path, options, monkeypatch):
    path = parquet(tmp_path / "x.parquet", [plain()] * 2, [0, 1])
    original = builtins.__import__

    def without_pyarrow(name, *rest, **more):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    with pytest.raises(MissingExtra, match=r"pip install 'tinylens\[train\]'"):
        table.read(path, options)


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR10_JPEG.is_dir(), reason="CIFAR-10 (JPEG) is not on this machine")
def test_cifar10_in_jpeg_is_read_whole(options):
    splits = table.read(CIFAR10_JPEG, options)
    assert splits.class_names[:3] == ("airplane", "automobile", "bird")
    assert splits.train.counts.tolist() == [5000] * 10
    assert splits.test.counts.tolist() == [1000] * 10
    assert splits.train.image_shape == (32, 32, 3)


# --- columns and names


def test_columns_of_any_names_are_read_when_they_are_named(tmp_path, options):
    parquet(
        tmp_path / "x.parquet",
        [plain(RED), plain(BLUE)],
        [0, 1],
        image_column="a",
        label_column="b",
    )
    with pytest.raises(DataError, match="columns a, b; expected image or img, and label: name the"):
        table.read(tmp_path / "x.parquet", options)
    named = replace(options, columns=Columns("a", "b"))
    assert table.read(tmp_path / "x.parquet", named).class_names == ("cat", "dog")
    with pytest.raises(DataError, match="expected a, and c: name the right ones with --image-col"):
        table.read(tmp_path / "x.parquet", replace(options, columns=Columns("a", "c")))


def test_labels_may_be_words(tmp_path, options):
    content = pa.table({"image": [plain(RED), plain(BLUE), None], "label": ["owl", "ant", "ant"]})
    pq.write_table(content, tmp_path / "x.parquet")
    parts = table.read_parts(tmp_path / "x.parquet", options)
    assert parts.train.class_names == ("ant", "owl")
    assert parts.train.labels[parts.train.images[:, 0, 0, 0] == 255].tolist() == [1]
    assert len(parts.train.skipped) == 1


CARD = """---
license: mit
dataset_info:
  features:
  - name: image
    dtype: image
  - name: label
    dtype:
      class_label:
        names:
          '0': it's
          '1': 'no: {cat}'
          '2': "\\u00e9"
  splits:
  - name: train
---
# Text
"""


def test_class_names_may_be_in_the_card_of_a_hugging_face_folder(tmp_path, options):
    images = [plain((10 * n, 0, 0)) for n in range(3)]
    parquet(tmp_path / "data" / "train-00000-of-00001.parquet", images, [0, 1, 2], names=())
    assert table.read(tmp_path, options).class_names == ("0", "1", "2")
    (tmp_path / "README.md").write_text(CARD)
    assert table.read(tmp_path, options).class_names == ("it's", "no: {cat}", "é")
    more = "  - name: b\n    dtype:\n      class_label:\n        names:\n          '0': x\n"
    other = CARD.replace("  splits:", f"{more}  splits:")
    (tmp_path / "README.md").write_text(other)
    with pytest.raises(DataError, match="names different classes in several places"):
        table.read(tmp_path, options)


def test_a_card_that_is_written_is_read_back(tmp_path):
    names = ["cat", "it's", 'say "é"', "a: b", "# c", "- d", "\\n", "07"]
    (tmp_path / "README.md").write_text(card.write(names, {"train": "9"}))
    assert card.names_in_card(tmp_path / "README.md") == tuple(names)
