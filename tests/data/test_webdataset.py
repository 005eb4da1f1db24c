from __future__ import annotations

from dataclasses import replace

import pytest

from builders_data import packed, plain, two_classes
from tinylens.data.encoded import Options
from tinylens.data.load import load
from tinylens.data.readers import archive, webdataset
from tinylens.data.splits import Columns
from tinylens.errors import DataError


@pytest.fixture
def options(tmp_path):
    return Options(data_dir=tmp_path / "cache")


def samples(count, start=0, **beside):
    """Files of a shard: reds are of class 0 and blues of class 1."""
    found = {}
    for number in range(start, start + count):
        colour = (255, number, 0) if number % 2 == 0 else (0, number, 255)
        found[f"{number:04}.png"] = plain(colour)
        for suffix, text in (beside or {"cls": "{label}"}).items():
            label = number % 2
            word = text.replace("{label}", str(label)).replace("{word}", ("red", "blue")[label])
            found[f"{number:04}.{suffix}"] = word.replace("{n}", str(number // 4)).encode()
    return found


def names_by_colour(data):
    red = data.images[:, 0, 0, 0] == 255
    return {data.class_names[n] for n in data.labels[red]}, {
        data.class_names[n] for n in data.labels[~red]}  # fmt: skip


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz"])
@pytest.mark.parametrize(
    "names",
    [("train-0000", "train-0001", "val-0", "test-0"), ("train/0", "train/1", "val/0", "test/0")],
)
def test_the_names_of_shards_or_folders_say_the_parts(tmp_path, options, names, suffix):
    root = tmp_path / "set"
    for start, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        packed(root / f"{name}{suffix}", samples(4, 10 * start))
    parts = webdataset.read_parts(root, options)
    assert [(part, len(data)) for part, data in parts.items()] == [
        ("train", 8), ("val", 4), ("test", 4)]  # fmt: skip
    assert parts.train.class_names == ("0", "1")
    (root / "classnames.txt").write_text("red\nblue\n")
    named = webdataset.read(root, options)
    assert named.class_names == ("red", "blue")
    assert names_by_colour(named.train) == ({"red"}, {"blue"})


@pytest.mark.parametrize(
    "beside",
    [
        {"cls": "{word}\n"},
        {"json": '{"label": "{word}"}'},
        {"json": '{"class_name": "{word}", "other": [1]}'},
        {"cls": "{label}", "json": '{"sku": {n}}'},
        {"json": '{"label": {label}}'},
    ],
)
def test_classes_are_numbers_or_words_in_cls_or_json(tmp_path, options, beside):
    packed(tmp_path / "0.tar", samples(6, **beside))
    data = webdataset.read(tmp_path, options)
    words = "{word}" in "".join(beside.values())
    assert data.class_names == (("blue", "red") if words else ("0", "1"))
    assert names_by_colour(data) == (({"red"}, {"blue"}) if words else ({"0"}, {"1"}))


def test_a_shard_alone_is_read_too_and_a_column_may_be_named(tmp_path, options):
    path = packed(tmp_path / "one.tar", samples(6, cls="0", json='{"kind": "{word}"}'))
    named = replace(options, columns=Columns("", "kind"))
    assert archive.read(path, named).class_names == ("blue", "red")
    assert load(path, label_column="kind", val=0, data_dir=options.data_dir).test is not None


def test_groups_are_in_the_json(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYLENS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    for part in range(2):
        files = samples(60, 100 * part, cls="{label}", json='{"shoe": "s{n}"}')
        packed(tmp_path / "set" / f"{part}.tar", files)
    splits = load(tmp_path / "set", groups="shoe", val=0.2, test=0.2)
    parts = [set(part.groups) for _, part in splits.items()]
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
    assert sum(map(len, parts)) == 30


def test_images_without_a_class_are_set_aside(tmp_path, options):
    files = samples(4) | {"9.png": plain(), "8.png": plain(), "8.json": b'{"width": 3}'}
    packed(tmp_path / "0.tar", files)
    data = webdataset.read(tmp_path, options)
    assert [each.reason for each in data.skipped] == ["no label"] * 2 and len(data) == 4


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"train-0.tar": samples(2), "more.tar": samples(2, 5)}, r"more\.tar says no part"),
        ({"0.tar": samples(2) | {"7.png": plain(), "7.json": b"{"}}, r"0\.tar/7\.png: no JSON"),
        ({"0.tar": samples(2) | {"7.png": plain(), "7.cls": b"\xff"}}, "no UTF-8 text beside it"),
        ({"0.tar": samples(2) | {"7.png": plain(), "7.cls": b"99999"}}, "a label 99999; expected"),
        ({"0.tar": samples(2) | {"../7.png": plain()}}, "leads out of the folder"),
        ({"test-0.tar": samples(2)}, "found the parts test but no train split"),
    ],
)
def test_shards_that_cannot_be_used_are_named(tmp_path, options, files, reason):
    for name, content in files.items():
        packed(tmp_path / name, content)
    with pytest.raises(DataError, match=reason):
        webdataset.read(tmp_path, options)


def test_a_class_beyond_the_names_is_told(tmp_path, options):
    packed(tmp_path / "0.tar", samples(4) | {"7.png": plain(), "7.cls": b"2"})
    (tmp_path / "classnames.txt").write_text("red\nblue")
    with pytest.raises(DataError, match="the classes 2 are not in the file of class names"):
        webdataset.read(tmp_path, options)


def test_a_tar_beside_classes_is_no_shard(tmp_path, options):
    root = two_classes(tmp_path / "pets", 20)
    packed(root / "copy.tar", samples(4))
    assert not webdataset.has_shards(root)
    assert load(root, data_dir=options.data_dir).class_names == ("cat", "dog")
    two_classes(tmp_path / "parted" / "train")
    assert not webdataset.has_shards(tmp_path / "parted")
