"""What a server answers, asked by a second process."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image

from builders_input_checks import make_images, photo, reference
from served import encoded, form, png, read_all, running, until
from shipped import CLASS_NAMES, RULE, model_bytes, some_images
from tinylens.data.images import ImageRule
from tinylens.inference import drift
from tinylens.inference.classifier import Classifier
from tinylens.inference.occlusion import occlusion
from tinylens.inference.selective_prediction import Level, SelectivePrediction
from tinylens.serving import shapes

CLASSIFIER = Classifier.from_bytes(model_bytes(), "boots", threads=1)


def header_of_a_png(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    whole = b"\0\0\0\r" + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + whole + b"\0\0\0\x04IDAT" + bytes(8)


# --- /predict


def test_an_answer_is_that_of_the_classifier(server):
    answer = server.ask("/predict?top=3", png(), content_type="image/png", x_request_id="one")
    [expected] = CLASSIFIER.predict([png()], top=3)
    tree = answer.json
    assert shapes.Answer.model_validate(tree)
    assert tree["results"] == [
        {
            "name": None,
            "label": expected.label,
            "confidence": expected.confidence,
            "top": [{"label": label, "probability": value} for label, value in expected.top],
            "unknown": None,
            "ood_score": None,
            "findings": [],
            "seen": None,
            "look": None,
            "error": None,
        }
    ]
    assert len(expected.top) == 3 and answer.headers["content-type"] == "application/json"
    assert tree["model"]["name"] == "boots" and re.fullmatch(
        "[0-9a-f]{64}", tree["model"]["sha256"]
    )
    assert tree["request_id"] == answer.headers["x-request-id"] == "one"
    assert 0 < tree["milliseconds"] < 5000


def test_files_of_a_form_are_answered_in_their_order(server):
    files = [(f"{'ü' * seed}.png", png(seed)) for seed in range(1, 9)]
    body, kind = form(*files)
    rows = server.ask("/predict?top=1", body, content_type=kind).json["results"]
    expected = CLASSIFIER.predict([content for _, content in files], top=1)
    assert [row["name"] for row in rows] == [name for name, _ in files]
    assert [row["label"] for row in rows] == [one.label for one in expected]
    np.testing.assert_allclose(
        [row["confidence"] for row in rows], [one.confidence for one in expected], atol=1e-6
    )


def test_requests_that_are_answered_together_get_what_each_asked_for(server):
    found: dict[int, list[str]] = {}

    def ask(top: int) -> None:
        rows = server.ask(f"/predict?top={top}", png(top)).json["results"]
        found[top] = [one["label"] for one in rows[0]["top"]]

    threads = [threading.Thread(target=ask, args=(1 + number % 4,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for top, labels in found.items():
        [expected] = CLASSIFIER.predict([png(top)], top=top)
        assert labels == [label for label, _ in expected.top]


def test_what_the_model_saw_and_where_it_looked(server):
    large = Image.fromarray(some_images(1, RULE, seed=9)[0]).resize((60, 80))
    file = io.BytesIO()
    large.save(file, "PNG")
    [row] = server.ask("/predict?seen=true&look=true", file.getvalue()).json["results"]
    image = CLASSIFIER.read(file.getvalue()).image
    kind, _, data = row["seen"].partition(",")
    assert kind == "data:image/png;base64"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), image)
    label = np.array([CLASS_NAMES.index(row["label"])])
    [expected] = occlusion(CLASSIFIER.probabilities, image[None], label)
    assert (row["look"]["height"], row["look"]["width"]) == image.shape[:2]
    np.testing.assert_allclose(row["look"]["values"], expected, atol=2e-4)


def test_the_input_doctor_looks_where_it_is_asked_and_fixes_what_it_may(tmp_path):
    rule = ImageRule(28, 28, 1)
    path = tmp_path / "photos.onnx"
    path.write_bytes(model_bytes(rule, input_checks=reference()))
    file = io.BytesIO()
    Image.fromarray(photo(make_images(1, seed=3)[0])).save(file, "PNG")
    classifier = Classifier.open(path)
    with running(path, "--workers", 1) as server:
        for query, fix in (("", None), ("&fix=", ""), ("&fix=all", "all")):
            [row] = server.ask(f"/predict?seen=true{query}", file.getvalue()).json["results"]
            [described] = classifier.predict(file.getvalue(), fix=fix)
            assert row["label"] == described.label
            assert row["findings"] == described.to_json().get("findings", [])
            seen = Image.open(io.BytesIO(base64.b64decode(row["seen"].partition(",")[2])))
            image = classifier.read(file.getvalue(), fix).image
            np.testing.assert_array_equal(np.asarray(seen), image[..., 0])
        assert {one["kind"]: one["fixed"] for one in row["findings"]}["inverted"]
        refused = server.ask("/predict?fix=invertd", file.getvalue())
        assert refused.status == 422 and "did you mean inverted?" in refused.json["error"]


def test_a_map_is_made_of_one_image_at_a_time(server):
    body, kind = form(("a", png()), ("b", png()))
    answer = server.ask("/predict?look=true", body, content_type=kind)
    assert (answer.status, answer.json["error"]) == (
        422,
        "look=true with 2 images; expected one, as it takes long",
    )


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"hello", 422, "not an image: starts with b'hello'"),
        (png()[:50], 422, "broken PNG"),
        (b"", 422, "an empty body"),
        (header_of_a_png(20_000, 20_000), 413, "too large: 20000×20000 pixels"),
    ],
)  # fmt: skip
def test_images_that_cannot_be_read_say_why(server, content, status, words):
    answer = server.ask("/predict", content)
    assert (answer.status, words in answer.json["error"]) == (status, True), answer.json


def test_a_name_and_a_type_that_lie_do_not_matter(server):
    body, kind = form(("a.jpg", png()))
    [row] = server.ask("/predict", body, content_type=kind).json["results"]
    assert row["error"] is None
    assert server.ask("/predict", png(), content_type="image/gif").status == 200


def test_answers_that_are_none_say_why(tmp_path):
    selective = SelectivePrediction(levels=(Level(0.01, 0.999, 0.5),), max_error=0.01)
    images = some_images(500, RULE, seed=4)
    confidence = CLASSIFIER.probabilities(images).max(axis=1)
    known = drift.reference(images, np.arange(500), confidence, "val")
    path = tmp_path / "unsure.onnx"
    path.write_bytes(model_bytes(selective=selective, reference=known))
    with running(path, "--workers", 2) as server:
        [row] = server.ask("/predict", png()).json["results"]
        assert row["unknown"] == (
            "its confidence is under 0.999, from which on at most 1 % of answers are wrong"
        )
        pixels = [np.full(RULE.shape, 200 + seed % 9, np.uint8) for seed in range(32)]
        body, kind = form(*[("a", encoded(one)) for one in pixels])
        for _ in range(10):
            assert server.ask("/predict", body, content_type=kind).status == 200
        assert server.metric("tinylens_drift_reference", model="unsure") == 500
        assert server.metric("tinylens_drift_images") == 321
        for what in ("brightness", "contrast"):
            luck = server.metric("tinylens_drift_psi_by_luck", what=what)
            assert server.metric("tinylens_drift_psi", what=what) > 10 * luck > 0
        assert server.metric("tinylens_confidence_count", model="unsure") == 321
        assert server.metric("tinylens_images_total", outcome="unknown") > 0
        assert server.metric("tinylens_workers") == 2


def test_a_model_without_a_reference_says_so_in_the_metrics(server):
    assert server.ask("/predict", png()).status == 200
    text = server.ask("/metrics").body.decode()
    assert 'tinylens_drift_reference{model="boots"} 0.0' in text
    assert "tinylens_drift_psi{" not in text


def test_an_answer_that_takes_too_long_is_not_waited_for(model):
    with running(model, "--workers", 1, "--deadline", 0.06) as server:
        pixels = np.full((4000, 4000, 3), 9, np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG", compress_level=1)
        body, kind = form(*[("a", file.getvalue())] * 8)
        late = server.ask("/predict", body, content_type=kind)
        assert (late.status, late.json["error"].startswith("the answer took longer")) == (504, True)
        until(lambda: server.metric("tinylens_waiting") == 0)
        assert server.metric("tinylens_refused_total", reason="late") == 1


# --- connections


def test_requests_in_one_go_are_answered_in_their_order(server):
    body = png()
    head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: {}\r\n"
    head += "Content-Length: {}\r\n\r\n"
    requested = b"".join(head.format(f"n{n}", len(body)).encode() + body for n in range(5))
    last = b"GET /models HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: last\r\n"
    said = server.raw(requested + last + b"Connection: close\r\n\r\n")
    assert re.findall(rb"x-request-id: (\w+)", said) == [b"n0", b"n1", b"n2", b"n3", b"n4", b"last"]
    assert said.count(b"HTTP/1.1 200 OK") == 6


def test_a_body_is_asked_for_where_the_client_waits(server):
    body = png()
    with server.socket() as made:
        made.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        assert made.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        made.sendall(body)
        assert read_all(made).startswith(b"HTTP/1.1 200 OK")


def test_a_body_in_pieces_is_a_body(server):
    body = png()
    pieces = [body[:10], body[10:11], body[11:]]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in pieces) + b"0\r\n\r\n"
    said = server.raw(
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
        b"Connection: close\r\n\r\n" + chunks
    )
    assert said.startswith(b"HTTP/1.1 200 OK")


def test_what_is_no_http_is_told(server):
    said = server.raw(b"hello\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 400 ") and b"not a request of HTTP/1.1" in said


# --- everything else


def test_models_are_described(server):
    [model] = server.ask("/models").json["models"]
    assert model == {
        "name": "boots",
        "sha256": model["sha256"],
        "classes": list(CLASS_NAMES),
        "image": {"height": 8, "width": 6, "channels": 3, "aspect": "stretch"},
    }


def test_the_open_inference_protocol(server):
    assert server.ask("/v2/health/live").json == {"live": True}
    assert server.ask("/v2/health/ready").json == {"ready": True}
    assert server.ask("/v2/models/boots/ready").json == {"name": "boots", "ready": True}
    assert server.ask("/v2").json["extensions"] == []
    metadata = server.ask("/v2/models/boots").json
    assert metadata["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 8, 6, 3]}]
    images = some_images(3, RULE, seed=11)
    for data in (images.tolist(), images.ravel().tolist()):
        tensor = {"name": "image", "shape": [3, 8, 6, 3], "datatype": "UINT8", "data": data}
        requested = {"id": "x", "inputs": [tensor], "outputs": [{"name": "probabilities"}]}
        answer = server.ask("/v2/models/boots/infer", json.dumps(requested).encode()).json
        [output] = answer["outputs"]
        assert (answer["id"], answer["model_version"]) == ("x", metadata["versions"][0])
        assert output["shape"] == [3, 4]
        expected = CLASSIFIER.probabilities(images).ravel()
        np.testing.assert_allclose(output["data"], expected, atol=1e-6)


def test_several_models_are_served_and_the_first_is_asked(model, tmp_path):
    other = tmp_path / "other.onnx"
    other.write_bytes(model_bytes(class_names=("a", "b", "c", "d")))
    with running(f"first={model}", f"second={other}", "--workers", 1) as server:
        assert [one["name"] for one in server.ask("/models").json["models"]] == ["first", "second"]
        assert server.ask("/predict", png()).json["model"]["name"] == "first"
        [row] = server.ask("/predict?model=second", png()).json["results"]
        assert row["label"] in "abcd"


def test_the_pages_fetch_nothing_from_elsewhere(server):
    page = server.ask("/docs")
    assert page.headers["content-security-policy"].startswith(
        "default-src 'none'; script-src 'self'"
    )
    text = page.body.decode()
    assert "<code>POST /predict</code>" in text
    assert re.findall(r"(?:src|href)=\"([^\"]*)\"|url\(([^)]*)\)", text) == [("/openapi.json", "")]
    assert server.ask("/redoc").status == 404


def test_methods_that_are_none_are_told(server):
    answer = server.ask("/predict", b"x", "PUT")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert set(answer.json) == {"error", "request_id"}


def test_a_port_that_is_taken_is_told(server, model, type_in):
    code, _, said = type_in("serve", model, "--port", server.port)
    assert code == 2 and "take another port, or --port 0" in said


@pytest.mark.parametrize(
    ("content", "words"), [(b"nonsense", "is not a model file"), (None, "no model file")]
)
def test_a_model_that_cannot_be_served_is_told(tmp_path, type_in, content, words):
    path = tmp_path / "bad.onnx"
    if content is not None:
        path.write_bytes(content)
    code, _, said = type_in("serve", path, "--port", 0)
    assert code == 5 and words in said


def test_a_model_that_gives_other_answers_here_is_told(tmp_path, type_in):
    golden = CLASSIFIER.card.golden
    wrong = type(golden)(golden.images, np.roll(golden.probabilities, 1, axis=1))
    path = tmp_path / "wrong.onnx"
    path.write_bytes(model_bytes(golden=wrong))
    code, _, said = type_in("serve", path, "--port", 0, "--workers", 1)
    assert code == 5 and "does not give its recorded answers" in said
