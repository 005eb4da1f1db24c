"""The verb `explain`: on a run and its mistakes, on images, and on a bare model.onnx."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import shipped
from builders_run import make_run, simulated_probabilities
from tinylens.data.images import ImageRule
from tinylens.data.load import load
from tinylens.explaining.gradcam import GradCam
from tinylens.models.build import build_network, ship
from tinylens.models.embedding import open_network
from tinylens.models.spec import NetworkShape

NAMES = shipped.CLASS_NAMES
RULE = ImageRule(16, 16, 3)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of images, 12 of each class in train and 6 in test."""
    images = shipped.some_images(72, RULE)
    root = tmp_path_factory.mktemp("explain") / "clothes"
    for row, image in enumerate(images):
        folder = root / ("train" if row < 48 else "test") / NAMES[row % 4]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{row:02}.png")
    return root


OCCLUSION = "occlusion, as the network flattens its maps: Grad-CAM would mislead\n"


@pytest.fixture
def run(tmp_path, images):
    """A run on that folder that calls four coats bags, and one dress a coat."""
    splits = load(images)
    parts = {
        name: (simulated_probabilities(part.labels, 4, strength=12.0), part.labels)
        for name, part in splits.items()
    }
    answers, labels = parts["test"]
    coats, dresses = (np.flatnonzero(labels == NAMES.index(name)) for name in ("coat", "dress"))
    for row, answer, confidence in (
        *zip(coats[:4], [1] * 4, (0.7, 0.9, 0.6, 0.8), strict=True),
        (dresses[0], 2, 0.99),
    ):
        answers[row] = (1 - confidence) / 3
        answers[row, answer] = confidence
    sizes = {name: {"size": len(part), "sha256": part.fingerprint} for name, part in splits.items()}
    made = make_run(
        tmp_path / "run",
        class_names=NAMES,
        parts=parts,
        info={"dataset": str(images), "fingerprint": splits.fingerprint, "splits": sizes},
    )
    made.model.write_bytes(shipped.model_bytes(RULE))
    shape = NetworkShape((16, 16, 3), 4, (128.0,) * 3, (60.0,) * 3)
    network = build_network("classic", shape, {"widths": [4], "dense": [8]})
    ship(network).save(made.keras_model)
    return made


def test_a_run_has_its_worst_mistakes_explained(type_in, run, images):
    looks = len(run.info.test_opened)
    code, out, err = type_in("explain", run.path, "--method", "grad-cam")
    assert (code, err) == (0, "")
    assert "coat" in out and str(run.explanations) in out
    assert len(run.info.test_opened) == looks + 1
    assert run.info.test_opened[-1]["command"] == f"tinylens explain {run.path} --method grad-cam"
    tree = json.loads((run.path / "explanations.json").read_text("utf-8"))
    assert [(sheet["title"], sheet["count"]) for sheet in tree["sheets"]] == [
        ("coat → bag", 4),
        ("dress → coat", 1),
    ]
    assert (tree["method"], tree["places"], tree["mistakes"]) == ("grad-cam", [8, 8], 5)
    assert tree["caution"].startswith("This network flattens its maps")
    coats = tree["sheets"][0]["images"]
    assert [each["confidence"] for each in coats] == pytest.approx([0.9, 0.8, 0.7, 0.6])
    test = load(images).test
    rows = [each["index"] for each in coats]
    assert {test.class_names[test.labels[row]] for row in rows} == {"coat"}
    assert [each["path"] for each in coats] == [test.paths[row] for row in rows]
    assert all(len(each["nearest"]) == 4 for each in coats)
    expected = GradCam(open_network(run.keras_model))(test.images[rows], np.full(4, 1))
    with np.load(run.path / "explanations.npz") as maps:
        assert np.allclose(maps["0"][:, 1], expected, atol=1e-5)
    plots = sorted(path.name for path in run.plots.glob("explained-*.png"))
    assert plots == ["explained-01-coat-bag.png", "explained-02-dress-coat.png"]
    assert "Why it was wrong" in run.explanations.read_text("utf-8")


def test_a_network_that_flattens_its_maps_is_covered_bit_by_bit_unless_told(type_in, run):
    code, out, err = type_in("explain", run.path, "--top", 1, "--json")
    assert (code, err) == (0, OCCLUSION)
    found = json.loads(out)["explanations"]
    assert (found["method"], found["places"], found["caution"]) == ("occlusion", None, "")


def test_fewer_pairs_another_folder_and_occlusion_can_be_asked_for(type_in, run, tmp_path):
    words = ("--top", 1, "--method", "occlusion", "--out", tmp_path / "x", "--json")
    code, out, err = type_in("explain", run.path, *words)
    tree = json.loads(out)
    assert (code, err, tree["folder"]) == (0, "", str(tmp_path / "x"))
    found = tree["explanations"]
    assert len(found["sheets"]) == 1 and found["method"] == "occlusion"
    assert found["mistakes"] == 5 and found["places"] is None
    assert not run.explanations.exists() and (tmp_path / "x" / "explanations.html").is_file()


def test_images_are_explained_beside_the_run_without_a_look_at_test(type_in, run, images):
    looks = len(run.info.test_opened)
    image = next((images / "train" / "bag").iterdir())
    code, out, err = type_in("explain", run.path, image, "--class", "dress", "--json")
    tree = json.loads(out)
    assert (code, err) == (0, OCCLUSION)
    assert tree["folder"] == str(run.path.parent / "run-explained")
    [sheet] = tree["explanations"]["sheets"]
    [found] = sheet["images"]
    assert found["path"] == str(image) and found["label"] is None
    assert [each["class"] for each in found["asked"]] == ["dress"]
    train = load(images).train
    nearest = found["nearest"][0]
    assert train.paths[nearest["index"]] == str(image) and nearest["distance"] < 1e-2
    assert len(run.info.test_opened) == looks and not run.explanations.exists()


def test_training_images_that_are_gone_are_missed_in_words(type_in, run, images, tmp_path):
    image = tmp_path / "one.png"
    Image.fromarray(shipped.some_images(1, RULE)[0]).save(image)
    run.write_info(run.info.__class__(**{**vars(run.info), "dataset": str(tmp_path / "gone")}))
    code, out, err = type_in("explain", run.path, image, "--json")
    assert code == 0 and "no training images are shown: " in err and "with --data" in err
    assert json.loads(out)["explanations"]["sheets"][0]["images"][0]["nearest"] == []
    code, _, err = type_in("explain", run.path, image, "--data", images)
    assert (code, err) == (0, OCCLUSION)
    code, out, err = type_in("explain", run.path)
    assert (code, out) == (4, "") and "say where they are with --data" in err


def test_a_model_alone_is_explained_by_occlusion(type_in, run, images, tmp_path):
    alone = tmp_path / "alone" / "mine.onnx"
    alone.parent.mkdir()
    alone.write_bytes(run.model.read_bytes())
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n cut")
    image = next((images / "test" / "bag").iterdir())
    code, out, err = type_in("explain", alone, image, broken)
    assert (code, err) == (0, "")
    folder = tmp_path / "alone" / "mine-explained"
    assert "broken PNG" in " ".join(out.split()) and str(folder) in out.replace("\n", "")
    tree = json.loads((folder / "explanations.json").read_text("utf-8"))
    assert tree["method"] == "occlusion" and tree["mistakes"] is None
    assert [each["path"] for each in tree["broken"]] == [str(broken)]
    answers = shipped.linear_answers(np.asarray(Image.open(image))[None], RULE)[0]
    [found] = tree["sheets"][0]["images"]
    assert found["answer"] == NAMES[answers.argmax()] and found["nearest"] == []
    assert found["confidence"] == pytest.approx(answers.max(), abs=1e-4)
    code, out, err = type_in("explain", alone, broken)
    assert (code, out) == (4, "") and "none of the 1 images could be read" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "a model alone does not know of its mistakes; name images"),
        (("x.png", "--method", "grad-cam"), "model.onnx has no gradients; give the folder"),
        (("x.png", "--class", "bagg"), "--class bagg: no such class, did you mean bag?"),
        (("x.png", "--data", "shapes"), "--data is where a run's images are"),
        (("x.png", "--top", 3), "--top counts confused pairs, but images are named"),
    ],
)
def test_what_does_not_go_together_is_said(type_in, run, words, said):
    code, out, err = type_in("explain", run.model, *words)
    assert (code, out) == (2, "") and said in err


def test_a_class_for_mistakes_and_a_model_that_is_not_there_are_refused(type_in, run, tmp_path):
    code, out, err = type_in("explain", run.path, "--class", "bag")
    assert (code, out) == (2, "") and "--class asks about images that are named" in err
    code, out, err = type_in("explain", tmp_path / "nowhere")
    assert (code, out) == (5, "") and "no model file" in err
