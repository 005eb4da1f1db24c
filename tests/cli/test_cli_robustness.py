"""The verb `robustness`: on a model and a folder, and on a run with its own images."""

import json

import numpy as np
import pytest
from PIL import Image

import shipped
from builders_run import make_run, simulated_parts
from tinylens.data.load import load

NAMES = shipped.CLASS_NAMES


@pytest.fixture
def images(tmp_path):
    """A folder of images that the model answers right, as they are."""
    images = shipped.some_images(6000, shipped.RULE)
    answers = shipped.linear_answers(images, shipped.RULE).argmax(axis=1)
    root = tmp_path / "clothes"
    for part, per_class in (("train", 4), ("test", 6)):
        for label, name in enumerate(NAMES):
            folder = root / part / name
            folder.mkdir(parents=True)
            for row in np.flatnonzero(answers == label)[:per_class].tolist():
                Image.fromarray(images[row]).save(folder / f"{row}.png")
    return root


@pytest.fixture
def run(tmp_path, images):
    splits = load(images)
    sizes = {name: {"size": len(part), "sha256": part.fingerprint} for name, part in splits.items()}
    made = make_run(
        tmp_path / "run",
        class_names=NAMES,
        parts=simulated_parts(NAMES),
        info={"dataset": str(images), "fingerprint": splits.fingerprint, "splits": sizes},
    )
    made.model.write_bytes(shipped.model_bytes())
    return made


def test_a_run_is_judged_on_its_own_images_and_its_report_says_so(type_in, run):
    looks = len(run.info.test_opened)
    code, out, err = type_in("robustness", run.path)
    assert (code, err) == (0, "")
    assert "gaussian noise" in out and "mean corruption error" in " ".join(out.split())
    assert "turned by 5°" in out and str(run.report) in out
    assert run.robustness.clean.value == 1 and run.robustness.images == 6 * len(NAMES)
    assert len(run.info.test_opened) == looks + 1
    page = run.report.read_text("utf-8")
    assert "When images get worse" in page and "jpeg compression" in page
    with Image.open(run.plots / "robustness.png") as plot:
        assert plot.size[0] > 800


def test_a_model_alone_needs_a_data_set(type_in, run, images, tmp_path):
    alone = tmp_path / "alone" / "model.onnx"
    alone.parent.mkdir()
    alone.write_bytes(run.model.read_bytes())
    code, out, err = type_in("robustness", alone)
    assert (code, out) == (2, "")
    assert "is no run, so its test images are not known; name a data set" in err
    code, out, _ = type_in("robustness", alone, images, "--images", 8, "--json")
    tree = json.loads(out)
    assert code == 0 and tree["report"] is None and tree["robustness"]["images"] == 8
    assert len(tree["robustness"]["corruptions"]) == 15
    assert not (alone.parent / "robustness.json").exists()


def test_no_robustness_no_section(run):
    from tinylens.reporting import write

    write.write(run)
    assert "When images get worse" not in run.report.read_text("utf-8")
    assert not (run.plots / "robustness.png").exists()
