"""Wrong use through the command line: a clear sentence that says the way out, and no traceback.

What is damaged, rather than wrong, is in tests/test_bad_data.py.
"""

from __future__ import annotations

import csv
import html
import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

import builders_data as build
from tinylens import cli
from tinylens.inference.model_file import unseal

CAFE = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
Case = Callable[[Path], Path]  # makes a set in a folder


def make_images(count: int, seed: int = 0) -> list[bytes]:
    return [build.encoded(build.noise(8, 8, 3, seed=seed + number)) for number in range(count)]


def folders(*names: str, each: int = 9, empty: Sequence[str] = ()) -> Case:
    def make(root: Path) -> Path:
        build.folder(root, {name: make_images(each, 100 * n) for n, name in enumerate(names)})
        for name in empty:
            (root / name).mkdir(parents=True)
        return root

    return make


def in_parts(*parts: str) -> Case:
    return folders(*(f"{part}/{name}" for part in parts for name in "ab"))


def alike(root: Path) -> Path:
    return build.folder(root, {"cat": [build.plain()] * 9, "dog": [build.plain()] * 9})


def loose(root: Path) -> Path:
    return build.folder(root, {".": make_images(4)})


def one_file(root: Path) -> Path:
    return loose(root) / "0.png"


def arrays(**given: object) -> Case:
    def make(root: Path) -> Path:
        root.mkdir()
        np.savez(root / "x.npz", images=build.noise(30, 8, 8), **given)
        return root / "x.npz"

    return make


def measured(root: Path) -> Path:
    labels = np.linspace(0, 1, 9).tolist()
    return build.parquet(root / "x.parquet", make_images(9), labels)


FRACTIONS = [f"{value:.3f}" for value in np.linspace(0.1, 2, 30)]

REFUSED: dict[str, tuple[Case, list[str]]] = {
    "one class": (folders("cat"), ["found 1 class folders: cat; expected at least 2, as in pets/"]),
    "one class in arrays": (arrays(labels=[0] * 30), ["found 1 class (0), expected at least 2"]),
    "one image a class": (
        folders(*"abcdefgh", each=1),
        [
            "one image alone of class a, b, c, d, e and 3 more",
            "expected at least 2, and 3 with a val split",
            "add images, leave the class out, or put what to judge on into a folder test",
        ],
    ),
    "two images a class": (
        folders(*"ab", each=2),
        ["to be set aside for val", "at least 3 with a test split", "--val 0"],
    ),
    "an empty class": (
        folders("cat", "dog", empty=["owl"]),
        ["pets/owl: no images of class owl", "add some or remove the folder"],
    ),
    "classes without images": (folders(empty=["cat", "dog"]), ["no images of class cat"]),
    "case": (
        folders("Shirt", "shirt"),
        ["'Shirt' and 'shirt' differ in upper and lower case alone", "by moving them into one"],
    ),
    "Unicode forms": (
        folders(*CAFE),
        [r"'cafe\u0301' and 'caf\xe9' differ in Unicode form alone", "to join the two"],
    ),
    "Unicode forms in parts": (
        folders(f"train/{CAFE[0]}", "train/x", f"test/{CAFE[1]}"),
        ["test has classes that train lacks", "of train differ in Unicode form alone", "rename"],
    ),
    "case in parts": (
        folders("train/Cat", "train/x", "test/cat"),
        ["('cat' and 'Cat' of train differ in upper and lower case alone)"],
    ),
    "a class in test that train lacks": (
        folders("train/cat", "train/dog", "test/cat", "test/owl"),
        ["test has classes that train lacks: owl; train has cat, dog", "add images of them"],
    ),
    "a misspelt class in test": (
        folders("train/boots", "train/dog", "test/boosts"),
        ["train lacks: boosts; train has boots, dog, did you mean boots?"],
    ),
    "trian": (in_parts("trian", "test"), ["found the folders test, trian; expected classes alone"]),
    "tset": (in_parts("train", "tset"), ["found the folders train, tset; expected classes alone"]),
    "train_images": (
        in_parts("train_images", "Test-Set"),
        ["found the folders Test-Set, train_images; expected classes alone, or train, val and"],
    ),
    "a part twice": (in_parts("train", "training"), ["found the folders train, training"]),
    "a folder that is no part": (
        in_parts("train", "test", "extra"),
        ["found the folders extra, test, train; expected classes alone", "each once: rename"],
    ),
    "an empty test": (
        folders("train/a", "train/b", empty=["test"]),
        ["test holds no image", "add them, or remove test, and a share of train is set aside"],
    ),
    "a val of empty classes": (
        folders("train/a", "train/b", empty=["val/a", "val/b"]),
        ["val holds no image"],
    ),
    "an empty train": (
        folders("test/a", "test/b", empty=["train"]),
        ["pets/train: no folders in it, and test beside it", "as in pets/train/CLASS"],
    ),
    "nothing": (folders(empty=["."]), ["the folder is empty"]),
    "images in no class": (loose, ["its 4 images lie in no folder of a class: put those of"]),
    "an image": (one_file, ["0.png: ", "it is one image: give the folder that holds"]),
    "floats in a table": (measured, ["column label is double", "cut them into a few ranges"]),
    "floats in arrays": (
        arrays(labels=np.linspace(0, 1, 30)),
        ["labels are float64 of shape (30,)", "numpy.digitize(labels, edges)"],
    ),
    "floats as folders": (
        folders(*FRACTIONS, each=2),
        ["the 30 classes are numbers: 0.100, 0.166", "and 25 more", "low, middle and high"],
    ),
}
ONLY_TRAIN: dict[str, tuple[Case, list[str]]] = {
    "identical": (
        alike,
        ["all 18 images of", "are the same, such as", "placeholders of a download that failed"],
    ),
    "identical in arrays": (
        lambda root: build_npz(root, np.zeros((30, 8, 8), np.uint8)),
        ["all 30 images of", "are the same; expected images that differ"],
    ),
}


def build_npz(root: Path, images: np.ndarray) -> Path:
    root.mkdir()
    np.savez(root / "x.npz", images=images, labels=[0, 1] * (len(images) // 2))
    return root / "x.npz"


@pytest.fixture
def tinylens(monkeypatch, capsys, tmp_path):
    """The command line as typed, in this process; returns exit code, stdout and stderr."""
    monkeypatch.setenv("TINYLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tinylens", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out = capsys.readouterr()
        return int(ended.value.code or 0), out.out, out.err

    return run


@pytest.mark.parametrize("verb", [("train",), ("data", "info")], ids=" ".join)
@pytest.mark.parametrize("name", REFUSED)
def test_wrong_use_ends_in_a_sentence_with_the_way_out(tinylens, tmp_path, name, verb):
    make, words = REFUSED[name]
    try:
        path = make(tmp_path / "pets")
        if len(list((tmp_path / "pets").iterdir())) < 2 and name in ("case", "Unicode forms"):
            pytest.skip("this file system tells no such names apart")
    except OSError as error:
        pytest.skip(f"this file system has no such names: {error}")
    code, out, described = tinylens(*verb, path)
    assert (code, out) == (4, "")
    assert described.startswith("error: ") and described.count("\n") == 1 and len(described) < 1000
    for each in words:
        assert each in described
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ONLY_TRAIN)
def test_what_can_be_looked_at_and_not_trained_on_is_told_by_both(tinylens, tmp_path, name):
    make, words = ONLY_TRAIN[name]
    path = make(tmp_path / "pets")
    code, _, described = tinylens("train", path)
    assert code == 4 and described.count("\n") == 1
    assert all(each in described for each in words)
    code, described, _ = tinylens("data", "info", path)
    assert code == 0 and all(each in described for each in words)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "names", [("training", "valid", "testing"), ("Train", "VAL", "Test"), ("TRAIN", "dev", "test")]
)
def test_parts_by_their_other_names_are_what_they_are_meant_for(tinylens, tmp_path, names):
    code, out, _ = tinylens("data", "info", in_parts(*names)(tmp_path / "pets"), "--json")
    counts = {name: part["images"] for name, part in json.loads(out)["parts"].items()}
    assert (code, counts) == (0, {"train": 18, "val": 18, "test": 18})


def test_classes_may_be_called_like_parts(tinylens, tmp_path):
    make = folders("test", "train", "trial", each=9)
    code, out, _ = tinylens("data", "info", make(tmp_path / "pets"), "--json")
    assert (code, json.loads(out)["class_names"]) == (0, ["test", "train", "trial"])


def test_a_class_that_test_lacks_is_told(tinylens, tmp_path):
    make = folders("train/cat", "train/dog", "test/cat", empty=["test/dog"])
    code, out, _ = tinylens("data", "info", make(tmp_path / "pets"), "--json")
    note = "test has no image of dog: nothing is said of how they are told; add some to test"
    assert code == 0 and note in json.loads(out)["notes"]


def test_too_many_classes_are_refused_with_what_they_would_take(tinylens, tmp_path):
    labels = np.repeat(np.arange(2_001), 3)
    np.savez(tmp_path / "x.npz", images=build.noise(len(labels), 4, 4), labels=labels)
    code, _, described = tinylens("train", "x.npz")
    assert code == 4 and described.startswith(
        "error: 2,001 classes: the tables of what is taken for "
    )
    assert "would come to 0.1 GB in" in described and "expected at most 2,000 classes" in described
    code, out, _ = tinylens("data", "info", "x.npz", "--json")
    assert code == 0 and json.loads(out)["notes"][-1] == described.removeprefix("error: ").strip()


def test_a_file_that_is_no_set_is_told_what_it_is(tinylens, tmp_path):
    (tmp_path / "notes.txt").write_text("?")
    code, _, described = tinylens("train", "notes.txt")
    assert code == 4 and "it is a file: give the folder that holds a folder" in described


def test_choices_are_explained(tinylens, tmp_path):
    content = [build.encoded(build.noise(20 + 9 * n, 60, 3, seed=n)) for n in range(8)]
    build.folder(tmp_path / "pets", {"cat": content[:4], "dog": content[4:]})
    _, out, _ = tinylens("data", "info", "pets")
    assert "note           size 56: half the images have a longer side of 60 pixels or" in out
    assert "note           aspect pad: widths are from 0.72 to 3.00 times the heights" in out
    _, out, _ = tinylens("data", "info", "pets", "--size", "24", "--aspect", "crop")
    assert "images       24×24 RGB" in out and "were cropped to 24×24" in out
    code, _, described = tinylens("train", "pets", "--aspect", "padd")
    assert code == 2 and "data.aspect" in described and "'pad'" in described


# --- in processes of their own, to the end


def typed(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TINYLENS_CACHE": str(cwd / "cache"), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "tinylens", *map(str, words)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


NAMES = ("Été à Paris", "shoes 👟", "<b>&\"'", "靴, 服; =1+1")


@pytest.mark.slow
def test_a_few_odd_images_of_classes_of_any_name_are_trained_on_to_the_end(tmp_path):
    """Fewer than a batch, of many sizes and kinds; the names come back as they were given."""
    random = np.random.default_rng(0)
    for label, name in enumerate(NAMES):
        content = []
        for number in range(6):
            pixels = random.integers(0, 60, (*random.integers(20, 50, 2), 3), np.uint8)
            pixels[..., label % 3] += 40 * label + 50
            content.append(build.encoded(pixels if number else pixels[..., 0]))
        build.folder(tmp_path / "pets", {name: content})
    tiny = ("--set", "model.options.widths=[4]", "--set", "model.options.dense=[8]")
    done = typed("train", "pets", "--epochs", "2", "--out", "run", *tiny, cwd=tmp_path)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    run = tmp_path / "run"
    info = json.loads((run / "run.json").read_text("utf-8"))
    ordered = sorted(NAMES)
    assert info["class_names"] == ordered
    assert info["image"]["aspect"] == "pad" and info["image"]["height"] % 8 == 0
    assert any(note.startswith("size ") for note in info["notes"])
    card = unseal((run / "model.onnx").read_bytes(), "model.onnx")
    assert list(card.class_names) == ordered and card.rule.to_json() == info["image"]
    page = (run / "report.html").read_text("utf-8")
    assert all(name in html.unescape(page) for name in NAMES) and NAMES[2] not in page
    readme = (run / "README.md").read_text("utf-8")
    assert all(name in readme for name in NAMES[:2])
    done = typed("predict", "run", "pets", "--csv", "out.csv", "--top", "4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24 and {row["label"].removeprefix("'") for row in rows} <= set(NAMES)
    done = typed("evaluate", "run", "pets", "--json", cwd=tmp_path)
    described, kept = json.loads(done.stdout), json.loads((run / "evaluation.json").read_text())
    again, before = described["evaluation"]["splits"]["test"], kept["splits"]["test"]
    assert again["confusion"] == before["confusion"] and again["accuracy"] == before["accuracy"]


@pytest.mark.slow
def test_ten_thousand_classes_are_counted_and_refused(tmp_path):
    for number in range(10_000):
        (tmp_path / "many" / f"class {number}").mkdir(parents=True)
        for place in range(3):
            content = build.raw_png(1, 1, 8, 0, bytes([0, (number + place) % 256]))
            (tmp_path / "many" / f"class {number}" / f"{place}.png").write_bytes(content)
    done = typed("data", "info", "many", "--json", cwd=tmp_path)
    assert done.returncode == 0 and len(json.loads(done.stdout)["class_names"]) == 10_000
    done = typed("train", "many", cwd=tmp_path)
    assert done.returncode == 4 and not (tmp_path / "runs").exists()
    assert (
        "10,000 classes: the tables of what is taken for what would come to 3.4 GB" in done.stderr
    )
