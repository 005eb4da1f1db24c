"""The public functions, each on what it takes: a path, a run, a folder, arrays in memory."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

import shipped
import tinylens as tl
from builders_run import make_run, simulated_parts
from tinylens.data.corrections import Fix, image_mark
from tinylens.errors import DataError, MissingExtra, RecipeError, RunError
from tinylens.inference.batch_predict import to_pandas

NAMES = shipped.CLASS_NAMES


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of images that the model answers right."""
    drawn = shipped.some_images(24_000, shipped.RULE)
    answers = shipped.linear_answers(drawn, shipped.RULE).argmax(axis=1)
    root = tmp_path_factory.mktemp("public") / "clothes"
    for split, first, last in (("train", 0, 4), ("test", 4, 10)):
        for label, name in enumerate(NAMES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for row in np.flatnonzero(answers == label)[first:last].tolist():
                Image.fromarray(drawn[row]).save(folder / f"{row}.png")
    return root


@pytest.fixture(scope="module")
def splits(images):
    return tl.load(images, val=0)


@pytest.fixture
def run(tmp_path, images):
    data = tl.load(images)
    sizes = {name: {"size": len(part), "sha256": part.fingerprint} for name, part in data.items()}
    made = make_run(
        tmp_path / "run",
        class_names=NAMES,
        parts=simulated_parts(NAMES),
        info={"dataset": str(images), "fingerprint": data.fingerprint, "splits": sizes},
    )
    made.model.write_bytes(shipped.model_bytes())
    return made


# --- predict


def test_predict_takes_folders_patterns_arrays_and_content(run, images, splits):
    folder = images / "test" / "bag"
    by_folder = tl.predict(run, folder)
    assert [each.label for each in by_folder] == ["bag"] * 6
    assert tl.predict(str(run.path), f"{folder}/*.png") == by_folder
    assert tl.predict(run.model, sorted(folder.iterdir())) == by_folder
    by_array = tl.predict(tl.Classifier.open(run), splits.test.images, top=2)
    assert [each.label for each in by_array] == [NAMES[label] for label in splits.test.labels]
    assert {len(each.top) for each in by_array} == {2}
    file = next(folder.iterdir())
    mixed = tl.predict(run, [file.read_bytes(), images / "nothing.png", folder])
    assert [each.label for each in mixed] == ["bag", None, *["bag"] * 6]
    assert mixed[1].error == "no such file"


def test_predict_says_that_a_folder_has_no_images(run, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images found"):
        tl.predict(run, tmp_path / "empty")


# --- evaluate


def test_evaluate_takes_a_run_a_model_file_and_a_classifier(run, images, splits):
    looks = len(run.info.test_opened)
    assert tl.evaluate(str(run.path)) == run.evaluation
    by_path = tl.evaluate(run, images)
    assert by_path.splits["test"].accuracy.value == 1
    assert by_path.splits["test"].n == len(splits.test)
    assert by_path == tl.evaluate(run.model, splits)
    assert by_path == tl.evaluate(tl.Classifier.open(run), splits.test)
    assert len(run.info.test_opened) == looks + 2  # a Classifier lies in no run
    assert list(tl.evaluate(run, splits, split="train").splits) == ["train"]
    with pytest.raises(DataError, match="has no split val"):
        tl.evaluate(run, splits, split="val")
    with pytest.raises(RecipeError, match="name a data set"):
        tl.evaluate(tl.Classifier.open(run))
    with pytest.raises(RecipeError, match="expected train, val, test"):
        tl.evaluate(run, splits, split="all")


# --- report


def test_report_takes_a_run_or_its_path_and_returns_the_page(run):
    assert tl.report(str(run.path)) == run.report == tl.report(run)
    assert "<html" in run.report.read_text("utf-8")
    with pytest.raises(RunError):
        tl.report(run.path / "nowhere")


# --- convert and apply_fixes


def test_convert_takes_a_folder_or_splits(images, splits, tmp_path):
    by_path = tl.convert(images, tmp_path / "a")
    in_memory = tl.convert(splits, tmp_path / "b")
    assert by_path.images == in_memory.images == {"train": 16, "test": 24}
    again = tl.load(tmp_path / "b", val=0)
    rows = [np.lexsort(each.test.images.reshape(24, -1).T) for each in (again, splits)]
    assert np.array_equal(again.test.images[rows[0]], splits.test.images[rows[1]])
    assert tl.convert(splits.train, tmp_path / "c", form="parquet").images == {"train": 16}
    with pytest.raises(RecipeError, match="is in memory"):
        tl.convert(splits, tmp_path / "d", groups="sku")


def test_apply_fixes_corrects_a_copy(images, splits, tmp_path):
    image, label = splits.test.images[3], splits.test.labels[3]
    given = NAMES[label]
    changed = Fix("test", 3, image_mark(image), given, "change", NAMES[label - 1])
    train = splits.train
    dropped = Fix("train", 0, image_mark(train.images[0]), NAMES[train.labels[0]], "drop", "")
    in_memory = tl.apply_fixes(splits, [changed, dropped])
    assert in_memory.before == {"train": 16, "test": 24}
    assert in_memory.after == {"train": 15, "test": 24}
    assert in_memory.data.test.labels[3] == (label - 1) % len(NAMES)
    assert splits.test.labels[3] == label
    by_path = tl.apply_fixes(images, [changed, dropped], tmp_path / "new.npz")
    assert by_path.fixes == 2
    assert len(tl.load(tmp_path / "new.npz", val=0).train) == 15
    with pytest.raises(RecipeError, match=r"expected a file \.npz"):
        tl.apply_fixes(splits, [], tmp_path / "new.csv")


# --- robustness, learning_curve, explain


def test_robustness_takes_a_run_and_data_in_memory(run, images, splits):
    looks = len(run.info.test_opened)
    own = tl.robustness(run.path, images=8)
    assert run.robustness == own
    assert own.clean.value == 1
    in_memory = tl.robustness(run.model, splits, images=8)
    assert in_memory == own == tl.robustness(run, splits.test, images=8)
    assert tl.robustness(run, images, images=8) == own
    looked = run.info.test_opened[looks:]
    assert {each["command"] for each in looked} == {"tinylens.robustness()"}
    assert len(looked) == 4


def test_learning_curve_refuses_what_it_cannot_measure(run, splits, tmp_path):
    with pytest.raises(RunError):
        tl.learning_curve(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is not what"):
        tl.learning_curve(str(run.path), splits)  # has no val split


def test_explain_takes_a_model_and_images(run, images, splits, tmp_path):
    alone = tmp_path / "model.onnx"
    alone.write_bytes(run.model.read_bytes())
    found = tl.explain(alone, images / "test" / "bag")
    assert found.method == "occlusion"
    assert [each.answer for each in found.sheets[0].images] == ["bag"] * 6
    in_memory = tl.explain(alone, splits.test.images[:2], class_name="coat")
    assert [each.heats[0].class_name for each in in_memory.sheets[0].images] == ["coat"] * 2
    with pytest.raises(RecipeError, match="name images"):
        tl.explain(alone)
    with pytest.raises(RecipeError, match="no such class, did you mean coat"):
        tl.explain(alone, images, class_name="coot")
    with pytest.raises(RecipeError, match="expected one of grad-cam, occlusion"):
        tl.explain(alone, images, method="guess")


# --- audit


def test_audit_takes_a_folder_splits_and_a_dataset(images, splits):
    twins = splits.train.subset([0, 0, 5])
    assert [(twin.a, twin.b) for twin in tl.audit(twins).duplicates] == [(0, 1)]
    by_path = tl.audit(images)
    assert by_path.counts == {"train": (4,) * 4, "test": (6,) * 4}
    assert by_path == tl.audit(splits) == tl.audit(dict(splits.items()))


# --- what a notebook shows


def compared(tmp_path, count=2):
    parts = [simulated_parts(seed=seed) for seed in range(count)]
    runs = [make_run(tmp_path / f"r{number}", parts=each) for number, each in enumerate(parts)]
    return tl.compare([str(runs[0].path), *runs[1:]])


def test_texts_are_short_and_hold_no_array(run, splits, tmp_path):
    [prediction] = tl.predict(run, splits.test.images[0])
    audit = tl.audit({"train": splits.train})
    shown = [splits, splits.train, run, run.evaluation, prediction, compared(tmp_path, 6), audit]
    for each in shown:
        assert repr(each).count("\n") < 10
        assert "array(" not in repr(each)
    assert repr(splits.train) == (
        f"Dataset({splits.source!r}: 16 images of 8×6×3; 4 classes: ankle boot, bag, coat, dress)"
    )
    assert "train 16, test 24" in repr(splits)
    assert repr(run).startswith(f"Run({str(run.path)!r}: done, trained on {splits.source}")
    assert repr(tl.Run(tmp_path / "none")).endswith("not started)")
    assert f"accuracy {run.evaluation.splits['test'].accuracy}" in repr(run.evaluation)
    assert repr(audit).splitlines()[1] == "  label issues: not checked"


def test_html_is_escaped():
    data = tl.Dataset(np.zeros((2, 8, 8, 1), np.uint8), [0, 1], ("<b>", "dog"), source="<i>")
    page = tl.Splits(data, None, data)._repr_html_()
    assert "<b>" not in page and "<i>" not in page
    assert "<td>train</td><td>2</td><td>1</td>" in page


def test_html_of_runs_evaluations_and_predictions_is_a_table(run, splits):
    assert run.evaluation._repr_html_() in run._repr_html_()
    assert "<td>test</td><td>90</td>" in run.evaluation._repr_html_()
    good, bad = tl.predict(run, [splits.test.images[0], b"no image"])
    assert f"<td>{good.label}</td>" in good._repr_html_()
    assert "<th>error</th>" in bad._repr_html_()


def test_tables_are_data_frames(run, splits, tmp_path):
    per_class = run.evaluation.to_pandas()
    assert list(per_class["class"]) == list(NAMES)
    assert per_class["support"].sum() == 90
    first = run.evaluation.splits["test"].per_class[0]
    assert per_class.loc[0, "recall"] == first.recall.value
    assert per_class.loc[0, "recall_high"] == first.recall.ci95[1]
    with pytest.raises(DataError, match="no split 'all'"):
        run.evaluation.to_pandas("all")
    comparison = compared(tmp_path)
    frame = comparison.to_pandas()
    assert frame.loc[0, "accuracy"] == comparison.pairs[0].accuracy.value
    answers = to_pandas(tl.predict(run, splits.test.images))
    assert list(answers["label"]) == [NAMES[label] for label in splits.test.labels]
    issues = tl.audit({"train": splits.train}).to_pandas()
    assert list(issues.columns) == ["split", "index", "path", "given", "proposed", "score"]


def test_a_table_without_pandas_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtra, match="pip install pandas"):
        run.evaluation.to_pandas()
