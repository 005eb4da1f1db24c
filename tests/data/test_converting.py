from __future__ import annotations

import hashlib
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import builders_data as build
from tinylens.data import arrays, converting, groups, kinds, writing
from tinylens.data.dataset import Dataset, Splits
from tinylens.data.encoded import Options
from tinylens.data.parts import Parts
from tinylens.data.sources import load_parts
from tinylens.data.stock import stock_of_path
from tinylens.errors import DataError, RecipeError
from tinylens.testing import tiny_dataset

SUFFIX = {"zip": ".zip", "tar": ".tar", "tgz": ".tar.gz"}
ANY_CLASSES = ("parquet", "huggingface")  # forms that take class names of any letters
FORMS = tuple(writing.FORMS)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYLENS_CACHE", str(tmp_path / "cache"))


def to(folder: Path, form: str) -> Path:
    return folder / f"{form}-set{SUFFIX.get(form, '')}"


def content_of(path: Path) -> list[tuple]:
    """What a data set holds, whatever its form: every picture's bytes, part, class and group."""
    with tempfile.TemporaryDirectory() as workspace:
        stock = stock_of_path(path, Options(), "", Path(workspace))
        return [
            (part, stock.class_names[each.label], each.group, each.content(), each.label)
            for part, each in stock.items()
        ]


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
    if form == "parquet":
        form = "huggingface"
    done = converting.convert(source, to(tmp_path, form), form=form)
    assert done.pictures == {"train": 5, "val": 1, "test": 2} and done.groups == 4
    converting.convert(to(tmp_path, form), tmp_path / "back", form="parquet")
    assert content_of(tmp_path / "back") == content_of(source) == content_of(to(tmp_path, form))


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
@given(sets(), st.sampled_from([form for form in FORMS if form != "parquet"]))
@example((["train", "test"], [("train", 0, "", 1), ("train", 1, "", 1), ("test", 1, "", 1)]), "zip")
@example((["b", "a"], [("train", 0, "g", 1), ("train", 1, "", 1)]), "webdataset")
def test_any_set_survives_any_form(given_set, form):
    names, rows = given_set
    with tempfile.TemporaryDirectory() as folder:
        source = written_set(Path(folder) / "set", names, rows)
        converting.convert(source, to(Path(folder), form), form=form)
        assert content_of(to(Path(folder), form)) == content_of(source)


@pytest.mark.parametrize("form", FORMS)
def test_the_same_set_makes_the_same_bytes_wherever_it_came_from(tmp_path, form):
    build.packed(tmp_path / "pets.tar.gz", build.files_of_pets())
    build.two_classes(tmp_path / "pets")
    made = []
    for name in ("pets", "pets.tar.gz"):
        suffix = ".parquet" if form == "parquet" else SUFFIX.get(form, "")
        path = tmp_path / f"{name}-{form}{suffix}"
        converting.convert(tmp_path / name, path, form=form)
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        made.append(
            {
                file.name: hashlib.sha256(file.read_bytes()).hexdigest()
                for file in files
                if file.is_file()
            }
        )
    first, second = (list(each.values()) for each in made)
    assert first == second


@pytest.mark.parametrize("form", FORMS)
def test_what_is_written_loads_as_what_it_was_made_from(tmp_path, form):
    source = written_set(tmp_path / "set", ("dog", "cat", "owl"), ROWS)
    form = "huggingface" if form == "parquet" else form
    converting.convert(source, to(tmp_path, form), form=form)
    before, after = (load_parts(path, Options()) for path in (source, to(tmp_path, form)))
    for (_, one), (_, two) in zip(before.items(), after.items(), strict=True):
        assert one.fingerprint == two.fingerprint
    with_groups = groups.with_groups(Parts(after.train), to(tmp_path, form), "group")
    assert sorted(with_groups.train.groups) == ["a", "a", "a", "b", "b"]


@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_become_png_files_with_the_same_pixels(tmp_path, channels):
    part = tiny_dataset((8, 6, channels), count=12)
    grouped = Dataset(
        part.images, part.labels, part.class_names, "made", groups=tuple("abcdefghijkl")
    )
    arrays.write_parts(tmp_path / "a.npz", Parts(grouped, None, grouped))
    done = converting.convert(tmp_path / "a.npz", tmp_path / "a.zip")
    assert (done.pictures, done.groups) == ({"train": 12, "test": 12}, 12)
    found = load_parts(tmp_path / "a.zip", Options())
    for _, one in found.items():
        assert one.class_names == part.class_names
        assert sorted(map(bytes, one.images)) == sorted(map(bytes, part.images))
        labels = {bytes(image): n for image, n in zip(part.images, part.labels, strict=True)}
        assert [labels[bytes(image)] for image in one.images] == one.labels.tolist()


@pytest.mark.parametrize("make", [build.idx_folder, build.cifar10_binary])
def test_sets_of_arrays_are_converted_from_their_folders(tmp_path, make):
    converting.convert(make(tmp_path / "set"), tmp_path / "a.tgz")
    before, after = (load_parts(tmp_path / name, Options()) for name in ("set", "a.tgz"))
    for (_, one), (_, two) in zip(before.items(), after.items(), strict=True):
        assert one.class_names == two.class_names
        assert sorted(map(bytes, one.images)) == sorted(map(bytes, two.images))


@pytest.mark.slow
def test_a_known_set_is_converted_by_its_name(tmp_path):
    done = converting.convert("shapes", tmp_path / "shapes", form="webdataset")
    assert done.pictures == {"train": 5000, "test": 1000}
    kind = kinds.find_kind(tmp_path / "shapes")
    assert kind.looks_like == "a folder of WebDataset shards .tar"


def test_groups_by_a_pattern_become_a_column(tmp_path):
    build.two_classes(tmp_path / "pets", 4)
    done = converting.convert(tmp_path / "pets", tmp_path / "a.zip", groups="([0-3]).png")
    assert done.groups == 4
    parts = load_parts(tmp_path / "a.zip", Options())
    found = groups.with_groups(parts, tmp_path / "a.zip", "group")
    assert set(found.train.groups) == set("0123")
    with pytest.raises(DataError, match=r"8 pictures have no group by '\(sku\)'"):
        converting.convert(tmp_path / "pets", tmp_path / "b.zip", groups="(sku)")


def test_what_is_no_picture_is_left_behind_and_named(tmp_path):
    root = build.two_classes(tmp_path / "pets")
    (root / "cat" / "x.png").write_bytes(b"?")
    done = converting.convert(root, tmp_path / "a.tar")
    assert done.pictures == {"train": 6}
    assert [name for name, _ in done.skipped] == ["cat/x.png"]
    with pytest.raises(DataError, match=r"1 pictures cannot be used: cat/x\.png: not a picture"):
        converting.convert(root, tmp_path / "b.tar", options=Options(strict=True))


@pytest.mark.parametrize(
    ("name", "form", "error", "reason"),
    [
        ("a", "", RecipeError, "the name says no form; expected --format with one of folder, zip"),
        ("a", "rar", RecipeError, "--format rar; expected"),
        ("a", "zip", RecipeError, r"expected a name that ends in \.zip"),
        ("a.zip", "tar", RecipeError, r"expected a name that ends in \.tar"),
        ("a.zip", "folder", RecipeError, "folder is a folder; expected a name without .zip"),
        ("a.csv", "csv", RecipeError, "csv is a folder; expected a name without .csv"),
        ("a.parquet", "", RecipeError, "has the parts train, val, test, and one Parquet file"),
        ("there.zip", "", DataError, "is there already; expected a new name"),
        ("file/a.zip", "", DataError, "file.*: cannot be written: Not a directory|File exists"),
    ],
)
def test_destinations_that_cannot_be_are_refused(tmp_path, name, form, error, reason):
    (tmp_path / "there.zip").write_bytes(b"")
    (tmp_path / "file").write_bytes(b"")
    source = written_set(tmp_path / "set", ("dog", "cat", "owl"), ROWS)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error, match=reason):
        converting.convert(source, tmp_path / name, form=form)
    assert sorted(set(tmp_path.iterdir()) - {tmp_path / "cache"}) == before


@pytest.mark.parametrize("form", [form for form in FORMS if form not in ANY_CLASSES])
def test_class_names_that_a_form_cannot_keep_are_told(tmp_path, form):
    source = build.parquet(tmp_path / "x.parquet", [build.plain()] * 2, [0, 1], ("b\n", "a"))
    with pytest.raises(DataError, match=r"cannot stand in a line|begins or ends"):
        converting.convert(source, to(tmp_path, form), form=form)
    assert not to(tmp_path, form).exists() and not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize("form", ["folder", "zip", "huggingface"])
def test_nothing_is_left_when_writing_breaks_off(tmp_path, form, monkeypatch):
    root = build.two_classes(tmp_path / "pets")

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tinylens.data.stock.Picture.content", fails)
    with pytest.raises(DataError, match="cannot be written: No space left on device"):
        converting.convert(root, to(tmp_path, form), form=form)
    assert {path.name for path in tmp_path.iterdir()} <= {"pets", "cache"}


def test_a_picture_that_changes_meanwhile_is_an_error(tmp_path, monkeypatch):
    root = build.two_classes(tmp_path / "pets")
    original = writing.write

    def late(*rest):
        (root / "cat" / "1.png").write_bytes(build.plain((1, 2, 3)))
        return original(*rest)

    monkeypatch.setattr(writing, "write", late)
    with pytest.raises(DataError, match=r"cat/1\.png: changed while it was read"):
        converting.convert(root, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_deterministic_splits_read_from_every_form(tmp_path):
    """What is carved out does not depend on the form, since the order of rows does not."""
    import tinylens as tl

    part = tiny_dataset((8, 8, 3), count=60)
    arrays.write(tmp_path / "a.npz", part)
    prints = set()
    for form in FORMS:
        path = tmp_path / "x.parquet" if form == "parquet" else to(tmp_path, form)
        converting.convert(tmp_path / "a.npz", path, form=form)
        splits = tl.load(path, val=0.2, test=0.2)
        assert isinstance(splits, Splits) and np.all(splits.val.counts > 0)
        prints.add(splits.fingerprint)
    assert len(prints) == 1
