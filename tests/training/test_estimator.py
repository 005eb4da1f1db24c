"""SmallImageClassifier: images in every form, labels of every type, and scikit-learn's tools."""

from __future__ import annotations

import importlib.util
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from tinylens import SmallImageClassifier
from tinylens.data.readers.synthetic import shapes
from tinylens.errors import DataError, RecipeError, RunError
from tinylens.recipe import Recipe
from tinylens.run import Run

TINY = Recipe.load("fast").override(
    {
        "model.options": {"widths": [16, 32, 32]},
        "train.precision": "float32",
        "train.batch_size": 50,
        "train.progressive_resize_scale": 1.0,
        "train.hard_example_fraction": 1.0,
    }
)
LABELS = np.array(["a circle", "no circle"])


def circles(count, seed=0):
    """Circles and crosses of `shapes`, uint8 (n, 16, 16, 3), and labels that are words."""
    drawn = shapes(n_train=5 * count, n_test=10, seed=seed, size=16).train
    names = np.array(drawn.class_names)[drawn.labels]
    rows = np.isin(names, ["circle", "cross"])
    return drawn.images[rows], LABELS[(names[rows] == "cross").astype(int)]


@pytest.fixture(scope="module")
def fitted():
    images, labels = circles(200)
    return SmallImageClassifier(TINY, epochs=3, seed=3).fit(images, labels)


def test_it_learns_labels_that_are_words(fitted):
    images, labels = circles(100, seed=1)
    assert np.array_equal(fitted.classes_, LABELS)
    assert set(fitted.predict(images)) <= set(LABELS)
    probabilities = fitted.predict_proba(images)
    assert probabilities.shape == (100, 2)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert np.array_equal(LABELS[probabilities.argmax(axis=1)], fitted.predict(images))
    assert fitted.score(images, labels) == (fitted.predict(images) == labels).mean()
    assert fitted.score(images, labels) > 0.75


def test_fit_leaves_a_run_that_says_what_its_test_is(fitted):
    run = fitted.run_
    assert (run.info.state, run.recipe.train.epochs, run.recipe.train.seed) == ("done", 3, 3)
    assert run.info.class_names == LABELS.tolist()
    assert run.info.splits["test"] == run.info.splits["val"]
    assert any("what is called test here is val" in note for note in run.info.notes)
    assert not run.report.exists()
    assert fitted.model_ == run.model.read_bytes()


def test_flat_images_are_the_same_images(fitted):
    images, _ = circles(20, seed=1)
    assert fitted.image_shape_ == (16, 16, 3) and fitted.n_features_in_ == 768
    flat = fitted.predict_proba(images.reshape(len(images), -1))
    assert np.array_equal(flat, fitted.predict_proba(images))
    assert np.array_equal(flat, fitted.predict_proba(images.astype(np.float64)))


def test_a_pickled_classifier_answers_without_the_run(fitted):
    images, _ = circles(20, seed=1)
    content = pickle.dumps(fitted)
    assert len(content) < 2 * len(fitted.model_)
    assert np.array_equal(pickle.loads(content).predict_proba(images), fitted.predict_proba(images))


def test_a_pickled_classifier_answers_without_keras(fitted, tmp_path):
    images, _ = circles(5, seed=1)
    (tmp_path / "classifier.pickle").write_bytes(pickle.dumps(fitted))
    np.save(tmp_path / "images.npy", images)
    program = """
import pickle, sys
import numpy as np
sys.modules["keras"] = None
with open("classifier.pickle", "rb") as file:
    print(*pickle.load(file).predict(np.load("images.npy")), sep=",")
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert ended.stdout.strip().split(",") == fitted.predict(images).tolist()


def test_images_of_another_size_or_range_are_refused(fitted):
    images, _ = circles(20, seed=1)
    with pytest.raises(ValueError, match=r"X has 192 features, but .* expecting 768 features"):
        fitted.predict(images[:, ::2, ::2])
    with pytest.raises(DataError, match=r"fractions up to 1, .* multiply them by 255"):
        fitted.predict(np.minimum(images / 200, 1))


def test_the_temporary_run_goes_with_its_classifier(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    classifier = SmallImageClassifier()
    folder = classifier._folder()
    assert folder.parent == tmp_path and folder.is_dir()
    del classifier
    assert not folder.exists()


def test_parameters_go_into_the_recipe():
    classifier = SmallImageClassifier(
        "fast", epochs=7, seed=5, val=0.2, test=0.3, size=24, overrides={"augment.shift": 1}
    )
    recipe = classifier._recipe()
    assert (recipe.train.epochs, recipe.train.seed, recipe.augment.shift) == (7, 5, 1)
    assert (recipe.data.val, recipe.data.test, recipe.data.size) == (0.2, 0.3, 24)
    assert clone(classifier).get_params() == classifier.get_params()
    with pytest.raises(RecipeError, match=r"did you mean train\.epochs"):
        SmallImageClassifier(overrides={"train.epoch": 1}).fit(np.zeros((4, 8, 8)), [0, 1, 0, 1])


# --- what arrays are taken for


@pytest.mark.parametrize(
    ("shape", "given", "expected"),
    [
        ((5, 28, 20), None, (28, 20, 1)),
        ((5, 28, 20, 3), None, (28, 20, 3)),
        ((5, 8, 8, 4), None, (8, 8, 4)),
        ((5, 784), None, (28, 28, 1)),
        ((5, 3072), None, (32, 32, 3)),
        ((5, 560), (28, 20), (28, 20, 1)),
        ((5, 1680), (28, 20, 3), (28, 20, 3)),
        ((5, 10), None, (1, 10, 1)),
    ],
)
def test_shape_of_images(shape, given, expected):
    from tinylens.training.estimator import _image_shape

    assert _image_shape(shape, given) == expected


@pytest.mark.parametrize(
    ("shape", "given", "message"),
    [
        ((5, 560), None, "flat images of 560 numbers are neither square grey nor square RGB"),
        ((5, 784), (28, 20), r"784 numbers each, and image_shape=\(28, 20\) has 560"),
        ((5, 8, 8, 2), None, r"images of shape \(8, 8, 2\); expected"),
        ((5, 2, 8, 8, 3), None, "expected .n, height, width"),
    ],
)
def test_impossible_shapes_are_refused(shape, given, message):
    classifier = SmallImageClassifier(image_shape=given)
    with pytest.raises(DataError, match=message):
        classifier.fit(np.zeros(shape), [0, 1, 0, 1, 0])


@given(
    st.lists(st.integers(0, 255), min_size=4, max_size=4),
    st.sampled_from([1.0, 1 / 255]),
    st.sampled_from([np.float32, np.float64]),
)
def test_whole_numbers_and_fractions_become_the_same_pixels(values, factor, dtype):
    from tinylens.training.estimator import _pixel_range

    pixels = np.array(values, np.uint8).reshape(1, 2, 2)
    given_as = (pixels * factor).astype(dtype)
    classifier = SmallImageClassifier()
    classifier.image_shape_ = (2, 2, 1)
    classifier.pixel_range_ = _pixel_range(given_as)
    if set(values) <= {0, 255} and factor != 1:
        return  # all are 0 or 1: whole numbers, black and nearly black
    assert np.array_equal(classifier._pixels(given_as)[..., 0], pixels)


def test_other_numbers_are_stretched_and_later_ones_cut_off():
    from tinylens.training.estimator import _pixel_range

    classifier = SmallImageClassifier()
    classifier.image_shape_ = (1, 3, 1)
    classifier.pixel_range_ = _pixel_range(np.array([-2.0, 0.5, 3.1]))
    assert classifier.pixel_range_ == (-2.0, 3.1)
    assert classifier._pixels(np.array([[-9.0, 0.56, 9.0]])).ravel().tolist() == [0, 128, 255]


def test_classes_that_cannot_be_parted_are_refused():
    images = np.zeros((5, 8, 8))
    with pytest.raises(ValueError, match=r"found 1 class \(7\), expected at least 2"):
        SmallImageClassifier().fit(images, [7] * 5)
    with pytest.raises(ValueError, match=r"one image alone of class 1, and val=0\.1 of each"):
        SmallImageClassifier().fit(images, [0, 0, 0, 0, 1])
    with pytest.raises(ValueError, match="Unknown label type"):
        SmallImageClassifier().fit(images, [0.1, 0.2, 0.3, 0.4, 0.5])


def test_it_says_when_it_was_not_fitted():
    with pytest.raises(NotFittedError):
        SmallImageClassifier().predict(np.zeros((2, 8, 8)))


# --- scikit-learn's tools


@pytest.mark.slow
def test_a_folder_gets_the_report_and_takes_no_other_fit(tmp_path):
    images, labels = circles(100)
    classifier = SmallImageClassifier(TINY, epochs=1, out=tmp_path / "run", test=0.2)
    classifier.fit(images, labels == LABELS[0])
    assert classifier.classes_.tolist() == [False, True]
    assert classifier.run_.report.is_file()
    assert Run(tmp_path / "run").info.splits["test"]["size"] == 20
    with pytest.raises(RunError, match="was started with other settings"):
        classifier.set_params(epochs=2).fit(images, labels == LABELS[0])


@pytest.mark.slow
def test_it_is_searched_in_a_pipeline_and_cross_validated():
    images, labels = circles(150)
    flat = images.reshape(len(images), -1)
    steps = make_pipeline(FunctionTransformer(_fractions), SmallImageClassifier(TINY, epochs=3))
    changes = [{"optimizer.learning_rate": rate} for rate in (1e-9, 0.15)]
    name = "smallimageclassifier__overrides"
    search = GridSearchCV(steps, {name: changes}, cv=2, error_score="raise").fit(flat, labels)
    assert search.best_params_[name] == {"optimizer.learning_rate": 0.15}
    inner = search.best_estimator_[-1]
    assert (inner.pixel_range_, inner.image_shape_) == ((0.0, 1.0), (16, 16, 3))
    scores = cross_val_score(search.best_estimator_, flat, labels, cv=2, error_score="raise")
    assert scores.shape == (2,) and scores.mean() > 0.6


def _fractions(images):
    return images / 255


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="torch is not installed")
def test_scikit_learn_s_own_checks_pass():
    program = Path(__file__).parent / "estimator_checks.py"
    ended = subprocess.run(
        [sys.executable, str(program), "torch"], check=True, capture_output=True, text=True
    )
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found.pop("failed", []) == []
    # needs SCIPY_ARRAY_API in the environment, and is about arrays that are not NumPy's
    assert [name for name, _ in found.pop("skipped")] == ["check_array_api_input"]
    assert list(found) == ["passed"] and len(found["passed"]) >= 50
