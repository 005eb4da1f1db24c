from __future__ import annotations

import os
import random
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders_data import encoded, folder, noise, plain, two_classes
from tinylens.data import canonical
from tinylens.data import encoded as encoded_sets
from tinylens.data.cache import settle
from tinylens.data.dataset import Dataset, Splits
from tinylens.data.encoded import Options
from tinylens.data.images import ImageRule, decode
from tinylens.data.readers.folder import read, read_parts
from tinylens.errors import DataError


@pytest.fixture
def options(tmp_path):
    return Options(data_dir=tmp_path / "cache")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "pets"


def test_a_folder_of_classes_is_read_in_order_of_code_points(root, options):
    folder(root, {"b": [plain()], "a": [plain()], "Z": [plain(), plain()], "é": [plain()]})
    data = read(root, options)
    assert isinstance(data, Dataset)
    assert data.class_names == ("Z", "a", "b", "é")
    assert data.counts.tolist() == [2, 1, 1, 1]
    assert data.image_shape == (8, 8, 3)
    assert sorted(path.removeprefix(f"{root}{os.sep}") for path in data.paths) == [
        *("Z/0.png", "Z/1.png"),
        *("a/0.png", "b/0.png", "é/0.png"),
    ]
    assert data.images[0, 0, 0].tolist() == [200, 30, 60]


@pytest.mark.parametrize("name", ["val", "valid", "validation", "VAL"])
def test_parts_are_known_by_their_usual_names(root, options, name):
    for part in ("train", name, "test"):
        two_classes(root / part)
    splits = read(root, options)
    assert isinstance(splits, Splits)
    assert [(part, len(data)) for part, data in splits.items()] == [
        ("train", 6),
        ("val", 6),
        ("test", 6),
    ]


def test_a_class_called_train_is_a_class(root, options):
    folder(root, {"car": [plain()], "train": [plain()], "boat": [plain()]})
    assert read(root, options).class_names == ("boat", "car", "train")


def test_parts_beside_classes_are_refused(root, options):
    two_classes(root / "train")
    two_classes(root / "extra")
    with pytest.raises(DataError, match="found the folders extra, train; expected classes alone"):
        read(root, options)


def test_a_part_twice_is_refused(root, options):
    for part in ("train", "val", "valid"):
        two_classes(root / part)
    with pytest.raises(DataError, match="each once"):
        read(root, options)


def test_a_class_missing_in_test_keeps_its_number(root, options):
    folder(root / "train", {name: [plain()] for name in ("ant", "bee", "cow")})
    folder(root / "test", {name: [plain()] for name in ("cow", "ant")})
    splits = read(root, options)
    assert splits.test.class_names == ("ant", "bee", "cow")
    assert splits.test.labels.tolist() == [0, 2]


def test_a_class_that_train_lacks_is_refused_with_the_difference(root, options):
    two_classes(root / "train")
    folder(root / "test", {"cat": [plain()], "fox": [plain()], "owl": [plain()]})
    with pytest.raises(DataError, match=r"test has classes that train lacks: fox, owl; train has"):
        read(root, options)


def test_the_class_of_a_image_is_its_folder_in_every_part(root, options):
    """Parts are put together by name: the same folder has the same number in all."""
    folder(root / "train", {"b": [plain(RED)], "a": [plain(BLUE)]})
    folder(root / "test", {"b": [plain(RED)]})
    splits = read(root, options)
    number = splits.class_names.index("b")
    assert splits.test.labels.tolist() == [number]
    assert splits.train.images[splits.train.labels == number][0, 0, 0].tolist() == list(RED)


RED, BLUE = (255, 0, 0), (0, 0, 255)


def test_an_empty_class_is_named(root, options):
    two_classes(root)
    (root / "owl").mkdir()
    with pytest.raises(DataError, match=r"pets/owl: no images of class owl; expected at least"):
        read(root, options)


def test_whatever_lies_deeper_is_of_the_class_at_the_top(root, options):
    two_classes(root)
    two_classes(root / "owl")
    folder(root, {"owl/cat/young": [plain(RED)]})
    data = read(root, options)
    assert data.class_names == ("cat", "dog", "owl")
    assert data.counts.tolist() == [3, 3, 7]


def test_one_folder_around_all_of_it_is_looked_through(root, options):
    two_classes(root / "pets-master" / "train")
    two_classes(root / "pets-master" / "test")
    splits = read(root, options)
    assert splits.class_names == ("cat", "dog") and len(splits.test) == 6


def test_parts_inside_the_classes_are_refused(root, options):
    for name in ("cat", "dog"):
        folder(root / name, {"train": [plain()], "test": [plain()]})
    with pytest.raises(DataError, match="class cat holds the parts test, train; expected the par"):
        read(root, options)


def test_classes_that_are_numbers_are_ordered_by_value(root, options):
    folder(root, {name: [plain()] for name in ("10", "9", "2")})
    assert read(root, options).class_names == ("2", "9", "10")


def test_a_file_of_class_names_gives_their_order(root, options):
    folder(root, {name: [plain()] for name in ("large", "small")})
    (root / "classnames.txt").write_text("small\nlarge\n")
    assert read(root, options).class_names == ("small", "large")
    (root / "classnames.txt").write_text("small\nmedium\nlarge\n")
    with pytest.raises(DataError, match="the file of class names differ by medium"):
        read(root, options)


def test_links_in_circles_end(root, options):
    two_classes(root)
    (root / "cat" / "deeper").mkdir()
    (root / "cat" / "deeper" / "up").symlink_to(root / "cat")
    (root / "cat" / "across").symlink_to(root / "dog")
    (root / "dog" / "across").symlink_to(root / "cat")
    data = read(root, options)
    assert data.counts.tolist() == [6, 6]


def test_a_metadata_csv_as_hugging_face_has_it_goes_before_folders(root, options):
    for part in ("train", "test"):
        folder(root, {part: [plain(RED), plain(BLUE)]})
        (root / part / "metadata.csv").write_text("file_name,label\n0.png,cat\n1.png,dog\n")
    parts = read_parts(root, options)
    assert parts.train.class_names == ("cat", "dog") and len(parts.test) == 2
    red = parts.train.labels[parts.train.images[:, 0, 0, 0] == 255]
    assert red.tolist() == [0]
    assert parts.notes == ("the classes are those of train/metadata.csv",)


def test_a_metadata_csv_without_classes_leaves_them_to_the_folders(root, options):
    two_classes(root)
    (root / "metadata.csv").write_text("file_name,photographer\ncat/0.png,Ann\n")
    assert read(root, options).counts.tolist() == [3, 3]


@pytest.mark.parametrize("names", [[], ["cat"]])
def test_fewer_than_two_classes_are_refused(root, options, names):
    root.mkdir()
    folder(root, {name: [plain()] for name in names})
    with pytest.raises(DataError, match=f"found {len(names)} class folders"):
        read(root, options)


def test_a_folder_that_is_not_there_is_named(root, options):
    with pytest.raises(DataError, match="pets: cannot be read: No such file"):
        read(root, options)


# --- what is left out


def test_files_that_are_no_images_by_name_are_left_out_and_counted(root, options):
    two_classes(root)
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._0.png", ".hidden.png", "notes.txt"):
        (root / "cat" / name).write_bytes(b"?")
    (root / "README.md").write_text("?")
    (root / ".git").mkdir()
    parts = read_parts(root, options)
    assert len(parts.train) == 6
    assert parts.notes == ("6 files or folders, no images by name, were left out",)


def test_what_is_left_out_is_counted_anew_at_each_start(root, options):
    two_classes(root)
    assert read_parts(root, options).notes == ()
    (root / "cat" / "notes.txt").write_text("?")
    notes = read_parts(root, options).notes
    assert notes == ("1 files or folders, no images by name, were left out",)


def test_a_broken_image_is_set_aside_with_its_reason(root, options):
    folder(
        root,
        {"cat": [plain(), b"no image", plain()], "dog": [plain(), encoded(noise(8, 8, 3))[:80]]},
    )
    parts = read_parts(root, options)
    assert parts.train.labels.tolist() == [0, 0, 1]
    skipped = {one.path.removeprefix(f"{root}{os.sep}"): one.reason for one in parts.train.skipped}
    assert skipped["cat/1.png"].startswith("not an image: starts with b'no image'")
    assert skipped["dog/1.png"].startswith("broken PNG")
    assert parts.notes == ("2 images could not be read and were set aside",)
    again = read_parts(root, options)  # from the cache
    assert again.train.skipped == parts.train.skipped
    assert again.train.fingerprint == parts.train.fingerprint
    assert again.train.paths == parts.train.paths
    assert sorted(path[-9:] for path in again.train.paths) == [
        *("cat/0.png", "cat/2.png"),
        "dog/0.png",
    ]


def test_strict_names_the_first_five_broken_images(root, options):
    folder(root, {"cat": [plain(), *[b"?"] * 7], "dog": [plain()]})
    strict = Options(data_dir=options.data_dir, strict=True)
    for _ in range(2):  # decoded, and from the cache
        with pytest.raises(DataError, match="7 images cannot be read") as raised:
            read_parts(root, strict)
        assert str(raised.value).count(".png: not an image") == 5
        assert "and 2 more" in str(raised.value)


def test_a_class_without_any_image_to_read_is_named(root, options):
    folder(root, {"cat": [b"?"], "dog": [plain()]})
    with pytest.raises(DataError, match=r"no image to train on of class cat; .*cat/0.png: not a"):
        read_parts(root, options)


def test_nothing_to_read_at_all_is_an_error_and_leaves_nothing(root, options):
    folder(root, {"cat": [b"?"], "dog": [b"?"]})
    with pytest.raises(DataError, match="none of 2 files is an image"):
        read_parts(root, options)
    assert list(options.data_dir.rglob("*")) == []


def test_links_out_of_the_folder_are_not_followed(root, options, tmp_path):
    two_classes(root)
    outside = tmp_path / "outside.png"
    outside.write_bytes(plain())
    (root / "cat" / "out.png").symlink_to(outside)
    (root / "cat" / "dangling.png").symlink_to(tmp_path / "nothing")
    (root / "cat" / "within.png").symlink_to(root / "dog" / "0.png")
    (root / "elsewhere").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    parts = read_parts(root, options)
    assert parts.train.class_names == ("cat", "dog")
    assert parts.train.counts.tolist() == [4, 3]
    assert parts.notes == ("2 links that lead out of the folder were not followed",)


# --- names


def test_names_that_differ_in_unicode_form_alone_are_refused(root, options):
    for form in ("NFC", "NFD"):
        folder(root, {unicodedata.normalize(form, "café"): [plain()]})
    with pytest.raises(DataError, match=r"differ in Unicode form alone; .*to join the two"):
        read(root, options)


def test_names_that_differ_in_case_alone_are_refused(root, options):
    folder(root, {"Cat": [plain()], "cat": [plain()]})
    with pytest.raises(DataError, match="'Cat' and 'cat' differ in upper and lower case alone"):
        read(root, options)


def test_names_that_cannot_be_printed_are_escaped(root, options):
    two_classes(root)
    try:
        (root / "cat" / "new\nline.png").write_bytes(plain())
        odd = os.fsencode(root / "cat") + b"/\xff.png"
        with open(odd, "wb") as file:  # noqa: PTH123 - a name that is no text
            file.write(plain())
    except OSError:
        pytest.skip("this file system has no such names")
    paths = [path.rpartition("/")[2] for path in read(root, options).paths]
    assert r"new\nline.png" in paths and r"\udcff.png" in paths


# --- sizes


def test_images_of_many_sizes_are_brought_to_one_that_is_explained(root, options):
    folder(root, {"cat": [plain(side=20)], "dog": [plain(side=30), plain(side=41)]})
    parts = read_parts(root, options)
    assert parts.train.image_shape == (24, 24, 3)
    assert parts.notes == (
        "images of 3 sizes were stretched to 24×24",
        "size 24: half the images have a shorter side of 30 pixels or more; --size N sets another",
    )
    assert read_parts(root, options).notes == parts.notes  # from the cache


def test_large_images_of_one_size_are_stretched_and_small_ones_kept(root, options):
    folder(root, {"cat": [plain(side=200)], "dog": [plain(side=200)]})
    parts = read_parts(root, options)
    assert parts.train.image_shape == (64, 64, 3)
    assert parts.notes == (
        "images of 200×200 pixels were stretched to 64×64",
        "size 64: the images are larger than 128 pixels, and train in a fraction of the time so; "
        "--size N sets another",
    )


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("aspect", ["auto", "stretch", "pad", "crop"])
def test_images_are_brought_to_their_size_by_the_aspect_asked_for(root, options, aspect, workers):
    content = [encoded(noise(20 + 9 * n, 60 - 5 * n, 3, seed=n)) for n in range(6)]
    folder(root, {"cat": content[:3], "dog": content[3:]})
    requested = replace(options, aspect=aspect, workers=workers)
    data = read(root, requested)
    resolved = "pad" if aspect == "auto" else aspect
    side = 56 if resolved == "pad" else 32
    rule = ImageRule(side, side, 3, aspect=resolved)
    assert data.aspect == resolved
    assert np.array_equal(data.images, as_decoded(data, rule))
    again = read(root, requested)
    assert (again.aspect, again.fingerprint) == (resolved, data.fingerprint)


def as_decoded(data, rule):
    return [decode(Path(path).read_bytes(), rule).image for path in data.paths]


def test_a_rule_that_is_given_decides_all(root, options):
    """As for the images that a model is judged on: nothing is chosen, grey is made at once."""
    content = [encoded(noise(20 + 9 * n, 60, 3, seed=n)) for n in range(4)]
    folder(root, {"cat": content[:2], "dog": content[2:]})
    rule = ImageRule(24, 16, 1, aspect="crop")
    data = read(root, replace(options, rule=rule))
    assert np.array_equal(data.images, as_decoded(data, rule))


def test_grey_images_among_coloured_ones_are_told(root, options):
    deep = noise(8, 8).astype(np.uint16) * 257  # 16 bits a pixel
    folder(root, {"cat": [encoded(deep)], "dog": [plain(), plain((1, 2, 3))]})
    parts = read_parts(root, options)
    assert np.array_equal(parts.train.images[0], np.repeat(noise(8, 8)[..., None], 3, axis=2))
    assert parts.notes == (
        "channels 3: 1 of 3 images have no colour and were made RGB as the others are",
    )


def test_a_size_asked_for_is_given(root, options):
    two_classes(root)
    sized = Options(data_dir=options.data_dir, size=16)
    assert read_parts(root, sized).train.image_shape == (16, 16, 3)
    assert read_parts(root, options).train.image_shape == (8, 8, 3)


def test_grey_alone_stays_grey_and_one_colour_image_makes_all_colour(root, options):
    folder(root, {"cat": [encoded(noise(8, 8))], "dog": [encoded(noise(8, 8))]})
    assert read(root, options).image_shape == (8, 8, 1)
    folder(root, {"dog": [plain()]})
    assert read(root, options).image_shape == (8, 8, 3)


def test_animated_and_tiny_images_are_noted(root, options):
    two_classes(root)
    frames = [noise(8, 8, 3, seed=n) for n in range(3)]
    rest = [Image.fromarray(frame) for frame in frames[1:]]
    (root / "cat" / "a.gif").write_bytes(
        encoded(frames[0], "GIF", save_all=True, append_images=rest)
    )
    (root / "cat" / "b.png").write_bytes(plain(side=1))
    notes = read_parts(root, options).notes
    assert "1 animated images: the first frame is used" in notes
    assert "1 images with a side under 4 pixels: look whether they are meant" in notes


# --- the cache


class Decodings:
    """Counts passes over the images: a second one decodes what the first did not."""

    def __init__(self, monkeypatch):
        self.steps: list[str] = []
        original = encoded_sets._Run.examine

        def watched(run, items, rule, rows=None, **more):
            self.steps.append("survey" if rows is None else "decode")
            return original(run, items, rule, rows, **more)

        monkeypatch.setattr(encoded_sets._Run, "examine", watched)

    def taken(self) -> list[str]:
        steps, self.steps = self.steps, []
        return steps


@pytest.fixture
def decodings(monkeypatch):
    return Decodings(monkeypatch)


def test_a_second_start_reads_no_image(root, options, decodings):
    two_classes(root)
    first = read(root, options)
    assert decodings.taken() == ["survey"]
    second = read(root, options)
    assert decodings.taken() == []
    assert isinstance(second.images.base, np.memmap) or isinstance(second.images, np.memmap)
    assert second.fingerprint == first.fingerprint and second.paths == first.paths


def kept_sets(options) -> list[tuple[str, int]]:
    """The sets in the cache, and which file each one's images are in."""
    sets = (options.data_dir / "decoded").iterdir()
    return [(each.name, (each / "images.npy").stat().st_ino) for each in sets]


def test_a_touched_file_is_read_again_and_the_set_is_kept_once(root, options, decodings):
    two_classes(root)
    read(root, options)
    before = kept_sets(options)
    os.utime(root / "cat" / "0.png", ns=(1, 1))
    decodings.taken()
    read(root, options)
    assert decodings.taken() == ["survey"]
    assert kept_sets(options) == before and len(before) == 1
    read(root, options)
    assert decodings.taken() == []


def test_a_copied_folder_is_read_again_kept_once_and_has_its_own_paths(
    root, options, decodings, tmp_path
):
    two_classes(root)
    read(root, options)
    root.rename(tmp_path / "moved")
    before = kept_sets(options)
    decodings.taken()
    data = read(tmp_path / "moved", options)
    assert decodings.taken() == ["survey"]
    assert str(tmp_path / "moved" / "cat" / "0.png") in data.paths
    assert kept_sets(options) == before and len(before) == 1


def test_a_changed_image_is_decoded_anew(root, options, decodings):
    two_classes(root)
    before = read(root, options)
    (root / "cat" / "0.png").write_bytes(plain((1, 2, 3)))
    after = read(root, options)
    assert decodings.taken() == ["survey"] * 2
    row = after.paths.index(str(root / "cat" / "0.png"))
    assert after.images[row, 0, 0].tolist() == [1, 2, 3]
    assert after.fingerprint != before.fingerprint


def test_a_damaged_cache_is_made_anew(root, options, decodings):
    two_classes(root)
    before = read(root, options).fingerprint
    (images,) = options.data_dir.rglob("images.npy")
    images.write_bytes(images.read_bytes()[:-1])
    decodings.taken()
    assert read(root, options).fingerprint == before
    assert decodings.taken() == ["survey"]


def test_a_file_that_changes_while_it_is_read_is_an_error(root, options, monkeypatch):
    two_classes(root)
    original = encoded_sets._decode_all

    def changing(*everything):
        decoded = original(*everything)
        (root / "cat" / "9.png").write_bytes(plain())
        return decoded

    monkeypatch.setattr(encoded_sets, "_decode_all", changing)
    with pytest.raises(DataError, match="files changed while they were read"):
        read(root, options)


def test_a_file_that_is_being_written_is_an_error(root, options, monkeypatch):
    two_classes(root)
    growing = root / "cat" / "0.png"
    original = os.fstat

    def before_the_last_byte_came(descriptor):
        status = original(descriptor)
        if status.st_ino == growing.stat().st_ino:
            growing.write_bytes(growing.read_bytes() + b"x")
        return status

    monkeypatch.setattr(os, "fstat", before_the_last_byte_came)
    with pytest.raises(DataError, match="files changed while they were read"):
        read(root, options)
    assert not list(options.data_dir.iterdir())


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("shown", "late", "rule"),
    [
        (slice(None), noise(9, 8, 3), ImageRule(16, 16, 3)),
        (0, noise(8, 8, 3), ImageRule(8, 8, 3)),
    ],
    ids=["size", "colour"],
)
def test_images_unlike_the_first_ones_are_decoded_like_all_others(
    root, options, workers, shown, late, rule, decodings
):
    """The sample that the guess rests on is every eighth of 64 images; the last is none of it."""
    first = [encoded(noise(8, 8, 3, seed=n)[..., shown]) for n in range(32)]
    folder(root, {"a": first, "b": [*first[:-1], encoded(late)]})
    data = read(root, replace(options, workers=workers))
    expected = [decode(Path(path).read_bytes(), rule).image for path in data.paths]
    assert np.array_equal(data.images, expected)
    assert decodings.taken() == ["survey", "decode"]


def test_jpegs_come_out_as_pillow_shows_them(root, options):
    def jpegs(start):
        return [encoded(noise(16, 12, 3, seed=start + n), "JPEG") for n in range(6)]

    folder(root, {"a": jpegs(0), "b": jpegs(6)})  # their names say PNG
    data = read(root, options)
    expected = [np.asarray(Image.open(path)) for path in data.paths]
    assert np.array_equal(data.images, expected)


def test_a_large_set_is_whole_on_the_disk_after_a_while(root, options, monkeypatch, decodings):
    monkeypatch.setattr(encoded_sets, "SMALL_SET", 2)
    two_classes(root)
    first = read(root, options)
    settle()
    assert len(kept_sets(options)) == 1
    assert first.fingerprint == read(root, options).fingerprint
    assert decodings.taken() == ["survey"]


@pytest.mark.parametrize("workers", [1, 2])
def test_one_process_and_many_read_the_same(root, tmp_path, workers):
    folder(root, {name: [plain((n, 0, 0)) for n in range(20)] + [b"?"] for name in ("a", "b")})
    steps = []
    options = Options(
        data_dir=tmp_path / str(workers),
        workers=workers,
        progress=lambda done, total: steps.append((done, total)),
    )
    data = read(root, options)
    named = [int(Path(path).stem) for path in data.paths]
    assert data.images[:, 0, 0, 0].tolist() == named and sorted(named) == sorted([*range(20)] * 2)
    assert [Path(path).parent.name for path in data.paths] == ["ab"[n] for n in data.labels]
    assert len(data.skipped) == 2
    assert steps[-1] == (84, 84) and steps == sorted(steps)


def test_images_of_more_than_a_block_are_put_into_order(tmp_path, options, monkeypatch):
    path = tmp_path / "images.npy"
    np.save(path, np.arange(10_000, dtype=np.uint32).astype(np.uint8).reshape(-1, 1, 1, 1))
    rows = [row for row in range(10_000) if row % 777]
    random.Random(0).shuffle(rows)
    monkeypatch.setattr(canonical, "BLOCK_BYTES", 1000)
    canonical.keep_rows(path, rows)
    assert np.array_equal(np.load(path).ravel(), np.array(rows, np.uint32).astype(np.uint8))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_large_set_is_put_into_order_before_it_is_decoded(
    root, options, workers, monkeypatch, decodings
):
    images = [plain((n, 0, 0)) for n in range(20)]
    folder(root, {"a": [b"?", *images], "b": [*images, encoded(noise(8, 8, 3))[:90]]})
    small = read(root, options)
    decodings.taken()
    monkeypatch.setattr(encoded_sets, "LARGE_BYTES", 100)
    for name in ("keep", "again"):  # decoded, and from the cache
        there = replace(options, workers=workers, data_dir=options.data_dir / "large")
        large = read(root, there)
        assert large.fingerprint == small.fingerprint, name
        assert large.paths == small.paths
        assert sorted(large.skipped, key=str) == sorted(small.skipped, key=str)
    assert decodings.taken() == ["survey", "decode"]
