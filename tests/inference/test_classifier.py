from __future__ import annotations

import io
import itertools
import os
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper
from PIL import Image

from builders_input_checks import make_images, photo, reference
from shipped import (
    CLASS_NAMES,
    GREY_RULE,
    RULE,
    card,
    linear_answers,
    linear_graph,
    model_bytes,
    some_images,
)
from tinylens.data.images import ImageRule, convert, decode
from tinylens.errors import DataError, ModelError, RecipeError
from tinylens.inference.classifier import BATCH, Classifier, Prediction
from tinylens.inference.model_file import LARGEST_FILE, GoldenSamples, seal
from tinylens.inference.selective_prediction import SHARES, Level, SelectivePrediction, SetLevel
from tinylens.run import Run
from tinylens.system import core_count

COLOUR = Classifier.from_bytes(model_bytes(RULE), "colour", threads=1)
GREY = Classifier.from_bytes(model_bytes(GREY_RULE), "grey", threads=1)
RNG = np.random.default_rng(7)


def encoded(array: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


PIXELS = some_images(1, RULE, seed=3)[0]
PNG = encoded(PIXELS)


# --- the input checks

THING = make_images(1, seed=9)[0]
DOCTORED = Classifier.from_bytes(
    model_bytes(ImageRule(28, 28, 1), input_checks=reference()), "doctored", threads=1
)


def test_nobody_looks_for_findings_unless_asked():
    (prediction,) = DOCTORED.predict(255 - THING)
    assert prediction.findings is None and "findings" not in prediction.to_json()


def test_what_is_found_is_said_and_nothing_changed():
    (requested,), (plain,) = DOCTORED.predict(255 - THING, fix=""), DOCTORED.predict(255 - THING)
    assert requested.to_json()["findings"] == [
        {
            "kind": "inverted",
            "message": "looks like a negative of the training images: what is bright there is "
            "dark here",
            "fixed": False,
        }
    ]
    assert requested.top == plain.top


def test_what_is_fixed_gets_the_answer_of_the_image_itself():
    (fixed,), (itself,) = DOCTORED.predict(255 - THING, fix="all"), DOCTORED.predict(THING)
    assert [(each.kind, each.fixed) for each in fixed.findings] == [("inverted", True)]
    assert fixed.top == itself.top
    (other,) = DOCTORED.predict(255 - THING, fix="margins,colour")
    assert not other.findings[0].fixed and other.top != itself.top


def test_files_arrays_and_broken_images_have_their_findings():
    turned = Image.Exif()
    turned[0x0112] = 3
    negative = 255 - THING[..., 0]
    items = [encoded(negative), negative, encoded(THING[..., 0], exif=turned), b"", THING]
    found = DOCTORED.predict(items, fix="all")
    kinds = [[each.kind for each in prediction.findings] for prediction in found]
    assert kinds == [["inverted"], ["inverted"], ["rotation"], [], []]


def test_a_photo_is_read_as_a_training_image():
    content = encoded(photo(THING), "JPEG", quality=85)
    as_it_is, fixed = (DOCTORED.read(content, fix) for fix in ("", "all"))
    assert np.abs(as_it_is.image.astype(int) - THING).mean() > 75
    assert np.abs(fixed.image.astype(int) - THING).mean() < 25
    assert all(each.fixed for each in fixed.findings)


def test_a_model_without_a_reference_says_so_and_does_nothing():
    (requested,), (plain,) = COLOUR.predict(PIXELS, fix="all"), COLOUR.predict(PIXELS)
    assert [(each.kind, each.fixed) for each in requested.findings] == [("unjudged", False)]
    assert requested.top == plain.top


def test_a_kind_that_is_none_is_refused():
    with pytest.raises(RecipeError, match="there is no 'margin', did you mean margins"):
        COLOUR.predict(PIXELS, fix="margin")


# --- answers


def test_probabilities_are_those_that_numpy_computes():
    images = some_images(600, RULE, seed=1)
    answers = COLOUR.probabilities(images)
    assert answers.dtype == np.float32
    np.testing.assert_allclose(answers, linear_answers(images, RULE), atol=3e-6)


def test_a_image_gets_the_same_answer_in_a_batch_of_any_size():
    images = some_images(2 * BATCH + 5, RULE, seed=2)
    together = COLOUR.probabilities(images)
    alone = np.concatenate([COLOUR.probabilities(image[None]) for image in images[:40]])
    np.testing.assert_allclose(together[:40], alone, atol=3e-6)
    np.testing.assert_allclose(together[100:177], COLOUR.probabilities(images[100:177]), atol=3e-6)


def test_no_images_have_no_answers():
    assert COLOUR.probabilities(np.zeros((0, 8, 6, 3), np.uint8)).shape == (0, 4)
    assert COLOUR.predict([]) == []
    assert COLOUR.predict(np.zeros((0, 8, 6, 3), np.uint8)) == []


@given(
    hnp.arrays(
        np.uint8,
        st.tuples(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3, 4])),
    )
)
@settings(max_examples=30)
def test_images_of_any_size_and_colour_go_through_the_recorded_rule(image):
    for classifier, rule in ((COLOUR, RULE), (GREY, GREY_RULE)):
        expected = linear_answers(convert(image[None], rule), rule)
        np.testing.assert_allclose(classifier.probabilities(image[None]), expected, atol=3e-6)


def test_a_grey_model_sees_a_colour_file_as_training_does():
    photo = some_images(1, RULE, seed=9)[0].repeat(5, axis=0).repeat(5, axis=1)
    expected = linear_answers(convert(photo[None], GREY_RULE), GREY_RULE)[0]
    (prediction,) = GREY.predict(encoded(photo), top=4)
    by_label = dict(prediction.top)
    np.testing.assert_allclose([by_label[name] for name in CLASS_NAMES], expected, atol=3e-6)


def test_a_prediction_names_the_best_classes_in_order():
    (prediction,) = COLOUR.predict(PIXELS, top=3)
    expected = linear_answers(PIXELS[None], RULE)[0]
    order = np.argsort(-expected)
    assert [label for label, _ in prediction.top] == [CLASS_NAMES[i] for i in order[:3]]
    values = [value for _, value in prediction.top]
    np.testing.assert_allclose(values, expected[order[:3]], atol=3e-6)
    assert (prediction.label, prediction.confidence) == prediction.top[0]
    assert prediction.path is prediction.error is None
    assert not prediction.unknown


def test_the_json_row_has_the_promised_keys(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    (prediction,) = COLOUR.predict(str(path), top=1)
    assert prediction.to_json() == {
        "path": str(path),
        "label": prediction.label,
        "confidence": prediction.confidence,
        "top": [{"label": prediction.label, "probability": prediction.confidence}],
        "unknown": False,
        "ood_score": None,
        "error": None,
    }


def test_paths_content_and_arrays_may_be_mixed(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    predictions = COLOUR.predict([path, str(path), PNG, PIXELS])
    assert [prediction.path for prediction in predictions] == [str(path), str(path), None, None]
    assert len({prediction.top for prediction in predictions}) == 1


@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ((9, 7), 1),
        ((9, 7, 1), 1),
        ((9, 7, 3), 1),
        ((9, 7, 4), 1),
        ((5, 9, 7), 5),
        ((5, 9, 7, 3), 5),
    ],
)
def test_an_array_is_one_image_or_many_by_its_shape(shape, count):
    array = RNG.integers(0, 256, shape, dtype=np.uint8)
    labels = [prediction.label for prediction in COLOUR.predict(array)]
    many = array if count > 1 else array[None]
    expected = COLOUR.probabilities(many).argmax(axis=1)
    assert labels == [CLASS_NAMES[column] for column in expected]


def test_an_array_of_floats_is_refused():
    expected = r"the array is float64 of shape \(8, 6, 3\), expected uint8"
    with pytest.raises(DataError, match=expected):
        COLOUR.predict(PIXELS / 255)


def test_several_threads_may_ask_at_once():
    images = some_images(200, RULE, seed=4)
    expected = COLOUR.probabilities(images)
    answers: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: answers.append(COLOUR.probabilities(images)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    for answer in answers:
        np.testing.assert_array_equal(answer, expected)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_stream_answers_in_order_and_reads_only_a_little_ahead(workers):
    make_images = [PNG, b"", encoded(PIXELS[::-1])]
    taken = itertools.count()

    def endless():
        for image in itertools.cycle(make_images):
            next(taken)
            yield image

    stream = COLOUR.stream(endless(), workers=workers)
    first = list(itertools.islice(stream, 300))
    stream.close()
    assert next(taken) <= 5 * BATCH
    one, broken, other = COLOUR.predict(make_images)
    assert first == [one, broken, other] * 100


# --- opening


def test_a_file_a_run_and_its_folder_open_alike(tmp_path):
    run = Run(tmp_path / "run")
    run.path.mkdir()
    run.model.write_bytes(model_bytes())
    for given_as in (run, run.path, str(run.path), run.model, str(run.model)):
        classifier = Classifier.open(given_as, threads=1)
        assert classifier.class_names == CLASS_NAMES
        assert classifier.rule == RULE
        assert classifier.card.network == "linear"


def refused(content: bytes) -> str:
    with pytest.raises(ModelError) as caught:
        Classifier.from_bytes(content, "m.onnx", threads=1)
    return str(caught.value)


def test_a_missing_file_says_what_writes_one(tmp_path):
    with pytest.raises(ModelError, match=r"no model file .*none\.onnx; `tinylens train DATASET`"):
        Classifier.open(tmp_path / "none.onnx")


def test_a_run_without_a_model_yet_is_a_missing_file(tmp_path):
    with pytest.raises(ModelError, match=r"no model file .*model\.onnx"):
        Classifier.open(tmp_path)


def test_a_file_larger_than_onnx_allows_is_refused_unread(tmp_path):
    path = tmp_path / "m.onnx"
    with path.open("wb") as file:
        file.truncate(LARGEST_FILE + 1)  # a hole: it takes no space
    with pytest.raises(ModelError, match="has 2147483648 bytes, expected at most 2147483647"):
        Classifier.open(path)


def test_fewer_class_names_than_probabilities_are_refused():
    content = model_bytes(class_names=("a", "b", "c"))
    assert "its card, with 3 class names, expects" in refused(content)


def test_a_rule_for_another_size_is_refused():
    content = seal(card(RULE), linear_graph(GREY_RULE).SerializeToString())
    assert "('image', 'tensor(uint8)', [8, 6, 1])" in refused(content)


def test_golden_samples_that_do_not_reproduce_are_refused():
    golden = card().golden
    assert golden is not None
    wrong = GoldenSamples(golden.images, golden.probabilities + np.float32(2e-4))
    message = refused(model_bytes(golden=wrong))
    assert "m.onnx does not give its recorded answers: its golden samples differ by" in message
    nearly = GoldenSamples(golden.images, golden.probabilities + np.float32(5e-5))
    Classifier.from_bytes(model_bytes(golden=nearly), "m.onnx", threads=1)


def test_golden_answers_that_are_no_numbers_are_refused():
    golden = card().golden
    assert golden is not None
    wrong = GoldenSamples(golden.images, golden.probabilities * np.float32("nan"))
    assert "differ by nan" in refused(model_bytes(golden=wrong))


def test_a_file_without_golden_samples_is_refused():
    assert "has no golden samples" in refused(model_bytes(golden=None))
    other = GoldenSamples(some_images(2, GREY_RULE), np.zeros((2, 4), np.float32))
    assert "golden samples of another shape" in refused(model_bytes(golden=other))


def test_a_graph_that_cannot_be_run_is_refused_without_noise(capfd):
    unknown = linear_graph(RULE)
    unknown.graph.node[3].op_type = "Softmaximum"
    assert refused(seal(card(), unknown.SerializeToString())).startswith("m.onnx cannot be run: ")
    failing = linear_graph(RULE)
    for name, width, place in (("there", 7, 2), ("back", 144, 3)):  # 5 · 144 is no multiple of 7
        failing.graph.initializer.append(helper.make_tensor(f"{name}_shape", 7, [2], [-1, width]))
        source = failing.graph.node[place - 1].output[0]
        node = helper.make_node("Reshape", [source, f"{name}_shape"], [name])
        failing.graph.node.insert(place, node)
    failing.graph.node[4].input[0] = "back"
    assert refused(seal(card(), failing.SerializeToString())).startswith("m.onnx cannot be run: ")
    assert capfd.readouterr() == ("", "")


def test_opening_and_predicting_say_nothing(capfd):
    Classifier.from_bytes(model_bytes(), "m.onnx").predict([PNG, b"broken"])
    assert capfd.readouterr() == ("", "")


def test_at_least_one_core_is_used():
    assert 1 <= core_count() <= 4096


# --- images of every kind (rows I1 to I8)


def prediction_of(content: bytes, classifier: Classifier = COLOUR) -> Prediction:
    before, prediction, after = classifier.predict([PNG, content, PNG])
    assert before == after  # a neighbour's trouble changes nothing
    assert before.label is not None
    return prediction


def huge_png(width: int, height: int) -> bytes:
    """Return a PNG whose header promises `width` × `height` pixels and whose data has none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"")
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


PHOTO = encoded(RNG.integers(0, 256, (64, 48, 3), dtype=np.uint8), "JPEG")
FLOATS = io.BytesIO()
Image.fromarray(np.ones((9, 9), np.float32)).save(FLOATS, "TIFF")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty file"),
        (b"<html>404</html>", "not an image"),
        (PHOTO[: len(PHOTO) // 2], "broken JPEG"),
        (PNG[: len(PNG) // 2], "broken PNG"),
        (FLOATS.getvalue(), "not an image"),
        (huge_png(50_000, 50_000), "too large"),
        (huge_png(1, 65_000), "too large"),
    ],
)
def test_a_broken_image_is_a_row_with_its_error(content, words):
    prediction = prediction_of(content)
    assert prediction.error is not None and words in prediction.error
    assert prediction.label is prediction.confidence is None
    assert prediction.top == ()
    assert prediction.to_json()["top"] == []


def gif(frames: int) -> bytes:
    images = [Image.fromarray(some_images(1, RULE, seed=i)[0]) for i in range(frames)]
    file = io.BytesIO()
    images[0].save(file, "GIF", save_all=True, append_images=images[1:])
    return file.getvalue()


def in_mode(mode: str, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)).convert(mode).save(
        file, kind
    )
    return file.getvalue()


def turned() -> bytes:
    image = Image.fromarray(RNG.integers(0, 256, (20, 40, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif)
    return file.getvalue()


KINDS = {
    "16 bit": encoded(RNG.integers(0, 65536, (20, 30), dtype=np.uint16)),
    "palette": in_mode("P", "PNG"),
    "grey and alpha": in_mode("LA", "PNG"),
    "alpha": in_mode("RGBA", "PNG"),
    "black and white": in_mode("1", "PNG"),
    "CMYK": in_mode("CMYK", "JPEG"),
    "WebP": in_mode("RGB", "WEBP"),
    "BMP": in_mode("RGB", "BMP"),
    "turned": turned(),
    "animated": gif(3),
    "one pixel": encoded(np.full((1, 1, 3), 200, np.uint8)),
    "blank": encoded(np.zeros((32, 32, 3), np.uint8)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_image_of_any_kind_is_answered_as_the_one_decoder_sees_it(kind):
    for classifier, rule in ((COLOUR, RULE), (GREY, GREY_RULE)):
        seen = decode(KINDS[kind], rule)
        expected = linear_answers(seen.image[None], rule)[0]
        prediction = prediction_of(KINDS[kind], classifier)
        assert prediction.label == CLASS_NAMES[expected.argmax()]
        assert prediction.confidence == pytest.approx(expected.max(), abs=3e-6)
        assert prediction.notes == seen.notes


def test_what_its_owner_should_know_is_noted():
    assert any("animated" in note for note in prediction_of(KINDS["animated"]).notes)


def test_the_content_counts_and_not_the_suffix(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(PNG)
    assert COLOUR.predict(path)[0].top == COLOUR.predict(PNG)[0].top


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none.png", "no such file"),
        ("folder.png", "a folder, expected an image"),
        ("x" * 300, "cannot be read: File name too long"),
        ("null\0.png", "cannot be read: embedded null"),
        ("locked.png/inner.png", "cannot be read: Not a directory"),
    ],
)
def test_a_path_that_cannot_be_read_is_a_row_with_its_error(tmp_path, name, words):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "locked.png").write_bytes(PNG)
    path = f"{tmp_path}/{name}"
    (prediction,) = COLOUR.predict([path])
    assert prediction.path == path
    assert prediction.error is not None and words in prediction.error


# --- what it needs

HEAVY = {"keras", "tensorflow", "torch", "jax", "sklearn", "onnx", "pyarrow", "matplotlib"}
HEAVY |= {"pydantic", "rich", "typer"}  # not as large, but of no use here


def test_answering_needs_neither_keras_nor_any_other_large_library(tmp_path):
    (tmp_path / "m.onnx").write_bytes(model_bytes())
    (tmp_path / "a.png").write_bytes(PNG)
    program = (
        "import sys; from tinylens.inference.classifier import Classifier; "
        "print(Classifier.open('m.onnx').predict('a.png')[0].label); "
        f"print({HEAVY} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [COLOUR.predict(PNG)[0].label, "set()"]


# --- when not to answer

LEVELS = (Level(0.01, 0.6, 0.5), Level(0.1, 0.0, 1.0))
SETS = (SetLevel(0.9, 0.25),)


def knowing(max_error: float | None = None) -> Classifier:
    known = SelectivePrediction(LEVELS, SETS, max_error)
    return Classifier.from_bytes(model_bytes(RULE, selective=known), "knowing", threads=1)


def test_what_is_not_sure_enough_is_unknown_and_says_why():
    images = some_images(300, RULE, seed=5)
    sure = linear_answers(images, RULE).max(axis=1) >= 0.6
    found = knowing().predict(images, max_error=0.01)
    assert 0 < sure.sum() < len(sure)
    assert [prediction.unknown for prediction in found] == (~sure).tolist()
    unsure = found[int(np.argmin(sure))]
    assert unsure.label in CLASS_NAMES  # what it would have been is still told
    assert unsure.reason == (
        "its confidence is under 0.600, from which on at most 1 % of answers are wrong"
    )
    assert unsure.to_json()["reason"] == unsure.reason
    assert "reason" not in found[int(np.argmax(sure))].to_json()


def test_a_model_keeps_what_it_was_trained_to_keep_unless_asked_for_another():
    images = some_images(300, RULE, seed=5)
    requested = knowing().predict(images, max_error=0.01)
    assert knowing(0.01).predict(images) == requested
    assert not any(
        prediction.unknown for prediction in knowing(0.01).predict(images, max_error=0.1)
    )
    assert not any(prediction.unknown for prediction in knowing().predict(images))


def test_a_card_that_promises_strangeness_needs_the_output():
    with pytest.raises(ModelError, match="ood_score"):
        Classifier.from_bytes(
            model_bytes(RULE, selective=SelectivePrediction(ordinary=tuple(range(len(SHARES))))),
            "lacking",
        )


def test_sets_name_all_classes_that_are_likely_enough():
    images = some_images(200, RULE, seed=6)
    answers = linear_answers(images, RULE)
    for prediction, answer in zip(knowing().predict(images, coverage=0.9), answers, strict=True):
        likely = {CLASS_NAMES[column] for column in np.flatnonzero(answer >= 0.25)}
        assert set(prediction.label_set) == likely | {prediction.label}
        assert prediction.label_set[0] == prediction.label
        assert prediction.to_json()["set"] == list(prediction.label_set)


def test_what_a_model_cannot_promise_is_refused_by_name():
    with pytest.raises(RecipeError, match="it has 1%, 10%"):
        knowing().predict(PIXELS, max_error=0.02)
    with pytest.raises(RecipeError, match="trained without a val split"):
        COLOUR.predict(PIXELS, coverage=0.9)
