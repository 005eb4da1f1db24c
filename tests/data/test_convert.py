from __future__ import annotations

import contextlib
import hashlib
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import builders_data as build
from conformance import tiny_dataset
from tinylens.data import groups
from tinylens.data.convert import FORMS, convert
from tinylens.data.dataset import Dataset, Splits
from tinylens.data.encoded import Options
from tinylens.data.load import load_parts
from tinylens.data.readers import arrays
from tinylens.data.splits import Parts
from tinylens.errors import DataError, RecipeError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYLENS_CACHE", str(tmp_path / "cache"))


def content_of(path: Path) -> list[tuple]:
    """What a data set holds, whatever its form: each image's pixels, split, class and group."""
    parts = load_parts(path, Options())
    with contextlib.suppress(DataError, RecipeError):
        parts = groups.with_groups(parts, path, "group")
    return sorted(
        (name, part.class_names[label], label, group, image.tobytes())
        for name, part in parts.items()
        for image, label, group in zip(
            part.images, part.labels, part.groups or [""] * len(part), strict=True
        )
    )


def written_set(root: Path, names, rows) -> Path:
    """A Parquet folder of (part, label, group, colour)."""
    for part in dict.fromkeys(row[0] for row in rows):
        mine = [row for row in rows if row[0] == part]
        build.parquet(
            root / f"{part}.parquet",
            [build.plain((colour, label, 7), side=4) for _, label, _, colour in mine],
            [row[1] for row in mine],
            names,
            group=[row[2] for row in mine],
        )
    return root


ROWS = [
    ("train", 0, "a", 1), ("train", 1, "b", 2), ("train", 2, "b", 2), ("train", 1, "a", 2),
    ("train", 1, "a", 2), ("val", 0, "c", 9), ("test", 2, "d", 1), ("test", 2, "d", 5),
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_there_and_back_every_byte_is_the_same(tmp_path, form):
    """Duplicates are in it, across classes too; the classes are in no order and no folder names."""
    source = written_set(tmp_path / "set", ("zebra", "T-shirt/top", "10"), ROWS)
    done = convert(source, tmp_path / "a", form=form)
    assert done.images == {"train": 5, "val": 1, "test": 2} and done.groups == 4
    convert(tmp_path / "a", tmp_path / "back", form="parquet")
    again = convert(source, tmp_path / "direct", form="parquet")
    assert encoded_of(tmp_path / "back") == encoded_of(tmp_path / "direct")
    assert again.class_names == done.class_names == ("zebra", "T-shirt/top", "10")
    assert content_of(tmp_path / "a") == content_of(source)


def encoded_of(root: Path) -> list[tuple]:
    """The split, label, group and bytes of every image in a folder of Parquet files."""
    import pyarrow.parquet

    return [
        (path.name, row["label"], row["group"], row["image"]["bytes"])
        for path in sorted(root.glob("data/*.parquet"))
        for row in pyarrow.parquet.read_table(path).to_pylist()
    ]


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=5)
ODD = ["train", "test", "..", ".a", "a/b", "10", "9", "C:", "é", "a b"]
CLASSES = st.one_of(
    st.lists(WORDS, min_size=2, max_size=4),
    st.lists(st.sampled_from(ODD), min_size=2, max_size=4),
)


@st.composite
def sets(draw):
    names = draw(CLASSES)
    folded = {unicodedata.normalize("NFC", name).casefold() for name in names}
    if len(folded) < len(names):
        names = [f"{name}{number}" for number, name in enumerate(names)]
    parts = draw(st.sampled_from([("train",), ("train", "test"), ("train", "val", "test")]))
    grouped, labels = draw(st.booleans()), st.integers(0, len(names) - 1)
    rows = [("train", label, "g" if grouped else "", label) for label in range(len(names))]
    rows += [
        (part, draw(labels), draw(WORDS) if grouped else "", draw(st.integers(0, 3)))
        for part in (*parts, *draw(st.lists(st.sampled_from(parts), max_size=5)))
    ]
    return names, rows


@settings(max_examples=12, deadline=None)
@given(sets(), st.sampled_from(FORMS))
@example(
    (["train", "test"], [("train", 0, "", 1), ("train", 1, "", 1), ("test", 1, "", 1)]), "folder"
)
def test_any_set_survives_any_form(given_set, form):
    names, rows = given_set
    with tempfile.TemporaryDirectory() as folder:
        source = written_set(Path(folder) / "set", names, rows)
        convert(source, Path(folder) / "a", form=form)
        assert content_of(Path(folder) / "a") == content_of(source)


@pytest.mark.parametrize("form", FORMS)
def test_the_same_set_makes_the_same_bytes_wherever_it_came_from(tmp_path, form):
    build.packed(tmp_path / "pets.tar.gz", build.files_of_pets())
    build.two_classes(tmp_path / "pets")
    made = []
    for name in ("pets", "pets.tar.gz"):
        path = tmp_path / f"{name}-{form}".replace(".", "-")
        convert(tmp_path / name, path, form=form)
        files = [file for file in sorted(path.rglob("*")) if file.is_file()]
        made.append([(file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files])
    assert made[0] == made[1]


@pytest.mark.parametrize("form", FORMS)
def test_what_is_written_loads_as_what_it_was_made_from(tmp_path, form):
    source = written_set(tmp_path / "set", ("dog", "cat", "owl"), ROWS)
    convert(source, tmp_path / "a", form=form)
    before, after = (load_parts(path, Options()) for path in (source, tmp_path / "a"))
    for (_, one), (_, two) in zip(before.items(), after.items(), strict=True):
        assert one.fingerprint == two.fingerprint
    with_groups = groups.with_groups(Parts(after.train), tmp_path / "a", "group")
    assert sorted(with_groups.train.groups) == ["a", "a", "a", "b", "b"]


@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_become_png_files_with_the_same_pixels(tmp_path, channels):
    part = tiny_dataset((8, 6, channels), count=12)
    grouped = Dataset(
        part.images, part.labels, part.class_names, "made", groups=tuple("abcdefghijkl")
    )
    arrays.write_parts(tmp_path / "a.npz", Parts(grouped, None, grouped))
    done = convert(tmp_path / "a.npz", tmp_path / "a")
    assert (done.images, done.groups) == ({"train": 12, "test": 12}, 12)
    found = load_parts(tmp_path / "a", Options())
    for _, one in found.items():
        assert one.class_names == part.class_names
        assert sorted(map(bytes, one.images)) == sorted(map(bytes, part.images))
        labels = {bytes(image): n for image, n in zip(part.images, part.labels, strict=True)}
        assert [labels[bytes(image)] for image in one.images] == one.labels.tolist()


@pytest.mark.parametrize("make", [build.idx_folder, build.cifar10_binary])
def test_sets_of_arrays_are_converted_from_their_folders(tmp_path, make):
    convert(make(tmp_path / "set"), tmp_path / "a")
    before, after = (load_parts(tmp_path / name, Options()) for name in ("set", "a"))
    for (_, one), (_, two) in zip(before.items(), after.items(), strict=True):
        assert one.class_names == two.class_names
        assert sorted(map(bytes, one.images)) == sorted(map(bytes, two.images))


@pytest.mark.slow
def test_a_known_set_is_converted_by_its_name(tmp_path):
    done = convert("shapes", tmp_path / "shapes", form="parquet")
    assert done.images == {"train": 5000, "test": 1000}
    assert (tmp_path / "shapes" / "data" / "test-00000-of-00001.parquet").is_file()


def test_large_splits_are_written_as_several_shards(tmp_path, monkeypatch):
    monkeypatch.setattr("tinylens.data.convert.SHARD_BYTES", 200)
    source = written_set(tmp_path / "set", ("dog", "cat", "owl"), ROWS)
    convert(source, tmp_path / "a", form="parquet")
    assert len(list((tmp_path / "a" / "data").glob("train-*-of-0000*.parquet"))) > 1
    assert content_of(tmp_path / "a") == content_of(source)


def test_groups_by_a_pattern_become_a_column(tmp_path):
    build.two_classes(tmp_path / "pets", 4)
    done = convert(tmp_path / "pets", tmp_path / "a", groups="([0-3]).png")
    assert done.groups == 4
    parts = load_parts(tmp_path / "a", Options())
    found = groups.with_groups(parts, tmp_path / "a", "group")
    assert set(found.train.groups) == set("0123")
    with pytest.raises(DataError, match=r"8 images have no group by '\(sku\)'"):
        convert(tmp_path / "pets", tmp_path / "b", groups="(sku)")


def test_what_is_no_image_is_left_behind_and_named(tmp_path):
    root = build.two_classes(tmp_path / "pets")
    (root / "cat" / "x.png").write_bytes(b"?")
    done = convert(root, tmp_path / "a")
    assert done.images == {"train": 6}
    assert [name for name, _ in done.skipped] == ["cat/x.png"]
    with pytest.raises(DataError, match=r"1 images cannot be used: cat/x\.png: not an image"):
        convert(root, tmp_path / "b", strict=True)


@pytest.mark.parametrize(
    ("name", "form", "error", "reason"),
    [
        ("a", "rar", RecipeError, "--format rar; expected folder or parquet"),
        ("a.zip", "folder", RecipeError, "a folder is written; expected a name without .zip"),
        ("a.parquet", "parquet", RecipeError, "expected a name without .parquet"),
        ("there", "folder", DataError, "is there already; expected a new name"),
        ("file/a", "folder", DataError, "file.*: cannot be written: Not a directory|File exists"),
    ],
)
def test_destinations_that_cannot_be_are_refused(tmp_path, name, form, error, reason):
    (tmp_path / "there").write_bytes(b"")
    (tmp_path / "file").write_bytes(b"")
    source = written_set(tmp_path / "set", ("dog", "cat", "owl"), ROWS)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error, match=reason):
        convert(source, tmp_path / name, form=form)
    assert sorted(set(tmp_path.iterdir()) - {tmp_path / "cache"}) == before


def test_class_names_that_a_folder_cannot_keep_are_told(tmp_path):
    source = build.parquet(tmp_path / "x.parquet", [build.plain()] * 2, [0, 1], ("b\n", "a"))
    with pytest.raises(DataError, match="cannot be kept in a folder; expected names that can be"):
        convert(source, tmp_path / "a")
    assert not (tmp_path / "a").exists() and not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_left_when_writing_breaks_off(tmp_path, form, monkeypatch):
    root = build.two_classes(tmp_path / "pets")

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tinylens.files.fsync_folder", fails)
    with pytest.raises(DataError, match="cannot be written: No space left on device"):
        convert(root, tmp_path / "a", form=form)
    assert {path.name for path in tmp_path.iterdir()} <= {"pets", "cache"}


def test_a_image_that_changes_meanwhile_is_an_error(tmp_path):
    root = build.two_classes(tmp_path / "pets")

    def change(done: int, _total: int) -> None:
        if done == 6:  # all are read, none is written
            (root / "cat" / "1.png").write_bytes(build.plain((1, 2, 3)))

    reason = r"files changed while they were read|cat/1\.png: changed while it was read"
    with pytest.raises(DataError, match=reason):
        convert(root, tmp_path / "a", progress=change)
    assert not (tmp_path / "a").exists()


def test_deterministic_splits_read_from_every_form(tmp_path):
    """What is carved out does not depend on the form, since the order of rows does not."""
    import tinylens as tl

    part = tiny_dataset((8, 8, 3), count=60)
    arrays.write(tmp_path / "a.npz", part)
    prints = set()
    for form in FORMS:
        convert(tmp_path / "a.npz", tmp_path / form, form=form)
        splits = tl.load(tmp_path / form, val=0.2, test=0.2)
        assert isinstance(splits, Splits) and np.all(splits.val.counts > 0)
        prints.add(splits.fingerprint)
    assert len(prints) == 1
