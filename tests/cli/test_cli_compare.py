"""The verb `compare`: the verdict, the page with its images, and the looks it records."""

import json

import numpy as np
import pytest
from PIL import Image

from builders_run import make_run, simulated_probabilities
from tinylens.data.load import load, reopen
from tinylens.errors import DataError
from tinylens.recipe import Recipe

NAMES = ("coat", "shoe", "<b>hat")


@pytest.fixture
def clothes(tmp_path):
    """A folder of 12-pixel images: 6 of each class in train, 40 in test."""
    random = np.random.default_rng(0)
    root = tmp_path / "clothes"
    for part, count in (("train", 6), ("test", 40)):
        for name in NAMES:
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (12, 12, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


@pytest.fixture
def runs(tmp_path, clothes):
    """Two runs on the clothes, the second one much better."""
    splits = load(clothes)
    made = []
    for name, strength in (("weak", 1.0), ("strong", 5.0)):
        parts = {
            part: (
                simulated_probabilities(data.labels, 3, strength=strength, seed=3),
                data.labels,
            )
            for part, data in splits.items()
        }
        info = {
            "dataset": str(clothes),
            "fingerprint": splits.fingerprint,
            "splits": {
                part: {"size": len(data), "sha256": data.fingerprint}
                for part, data in splits.items()
            },
        }
        made.append(
            make_run(
                tmp_path / name,
                class_names=splits.class_names,
                parts=parts,
                test_images=splits.test.images,
                info=info,
                recipe=Recipe(name=name),
            )
        )
    return made


def test_the_better_run_is_named_and_the_page_shows_what_the_other_got_wrong(type_in, runs):
    weak, strong = runs
    code, out, err = type_in("compare", weak.path, strong.path)
    assert (code, err) == (0, "")
    assert "strong is better than weak by" in " ".join(out.split())
    page = (weak.path.parent / "compare-weak-vs-strong" / "comparison.html").read_text("utf-8")
    assert "<h1>strong is better</h1>" in page
    assert "strong alone is right" in page and page.count("data:image/png") >= 24
    assert "<b>hat" not in page and "&lt;b&gt;hat" in page
    assert "http://" not in page and "https://" not in page
    plot = weak.path.parent / "compare-weak-vs-strong" / "comparison.png"
    with Image.open(plot) as image:
        assert image.size[0] > 500


def test_comparing_is_a_look_at_the_test_part_of_each_run(type_in, runs):
    before = [len(run.info.test_opened) for run in runs]
    type_in("compare", *(run.path for run in runs))
    assert [len(run.info.test_opened) for run in runs] == [count + 1 for count in before]
    assert runs[0].info.test_opened[-1]["command"].startswith("tinylens compare")


def test_json_holds_the_verdict_and_the_files(type_in, runs, tmp_path):
    code, out, _ = type_in(
        "compare", *(run.path for run in runs), "--json", "--out", tmp_path / "x"
    )
    tree = json.loads(out)
    assert code == 0 and tree["runs"] == ["weak", "strong"] and tree["notes"] == []
    (pair,) = tree["pairs"]
    assert pair["better"] == "strong" and pair["p_value"] < 1e-6
    assert tree["accuracies"][1] - tree["accuracies"][0] == pytest.approx(pair["accuracy"]["value"])
    assert (tmp_path / "x" / "comparison.html").samefile(tree["files"]["report"])


def test_images_that_are_gone_are_missed_in_words_and_can_be_given(type_in, runs, clothes):
    moved = clothes.rename(clothes.parent / "moved")
    code, _, err = type_in("compare", *(run.path for run in runs))
    assert code == 0
    assert "the page shows no images" in err and "say where they are with --data" in err
    code, _, err = type_in("compare", *(run.path for run in runs), "--data", moved)
    assert (code, err) == (0, "")


def test_images_that_have_changed_are_refused(runs, clothes):
    next((clothes / "test" / "coat").iterdir()).unlink()
    with pytest.raises(DataError, match=r"is not what .*weak was trained on: fingerprint"):
        reopen(runs[0])


def test_two_runs_of_other_tests_end_in_one_sentence(type_in, runs, tmp_path):
    other = make_run(tmp_path / "other", class_names=NAMES)
    code, out, err = type_in("compare", runs[0].path, other.path)
    assert (code, out) == (2, "")
    assert err.startswith("error: weak was judged on") and "Traceback" not in err
