"""Whatever is sent: no 5xx, no worker that ends, no answer that breaks its schema."""

from __future__ import annotations

import http.client
import io
import json
import random
import warnings

import numpy as np
import pytest
from PIL import Image

from served import form, png, running
from shipped import RULE, model_bytes, some_images
from tinylens.serving import shapes

LEAST, MOST = 400, 100_000  # requests, in the fast suite and in the slow one
CASES = 5000  # of Schemathesis
LIMITS = ("--images", 4, "--body", 0.1, "--workers", 1)


def seeds() -> list[bytes]:
    """Return images of all kinds, forms, and tensors to be spoilt."""
    made = [png()]
    pixels = some_images(1, RULE, seed=5)[0]
    for kind, mode in (
        *(("PNG", "P"), ("PNG", "LA"), ("PNG", "I;16"), ("JPEG", "RGB"), ("JPEG", "CMYK")),
        *(("GIF", "P"), ("BMP", "RGB"), ("WEBP", "RGBA")),
    ):
        file = io.BytesIO()
        image = Image.fromarray(pixels)
        image = (
            Image.fromarray(pixels[..., 0].astype(np.uint16))
            if "16" in mode
            else image.convert(mode)
        )
        image.save(file, kind)
        made.append(file.getvalue())
    return made


def spoilt(content: bytes, chance: random.Random) -> bytes:
    """Return `content` with some bytes changed, taken out, put in or doubled."""
    out = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(len(out) + 1)
        match chance.randrange(6):
            case 0 if out:
                out[min(at, len(out) - 1)] = chance.randrange(256)
            case 1:
                del out[at : at + chance.choice((1, 4, 64))]
            case 2:
                out[at:at] = chance.randbytes(chance.choice((1, 4, 64)))
            case 3:
                del out[at:]
            case 4:
                out[at:at] = out[at : at + chance.choice((8, 256))]
            case _:
                out[at : at + 4] = chance.choice(
                    (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff")
                )
    return bytes(out)


def ask_spoilt(server, count: int) -> dict[int, int]:
    """Send so many spoilt requests, and return how often each status came back."""
    chance, statuses = random.Random(11), {}
    images, connection = seeds(), server.connect()
    tensor = {"name": "image", "shape": [1, *RULE.shape], "datatype": "UINT8", "data": [1] * 144}
    infer = json.dumps({"id": "a", "inputs": [tensor]}).encode()
    for number in range(count):
        path, body, kind = "/predict", spoilt(chance.choice(images), chance), "image/png"
        if number % 4 == 1:
            body, kind = form(("a.png", chance.choice(images)), ("b.gif", body))
            if number % 8 == 1:
                body = spoilt(body, chance)
        elif number % 8 == 3:
            path, body, kind = "/v2/models/fuzzed/infer", spoilt(infer, chance), "application/json"
        try:
            answer = server.ask(path, body, "POST", connection, content_type=kind)
        except (ConnectionError, http.client.HTTPException):
            connection.close()
            connection = server.connect()
            raise AssertionError(f"request {number} had no answer") from None
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
        assert answer.status < 500, (number, answer.body)
        if path == "/predict":
            shape = shapes.Answer if answer.status == 200 else shapes.NoAnswer
            shape.model_validate_json(answer.body)
    connection.close()
    return statuses


@pytest.fixture
def fuzzed(tmp_path):
    path = tmp_path / "fuzzed.onnx"
    path.write_bytes(model_bytes())
    with running(path, *LIMITS) as server:
        yield server


@pytest.mark.parametrize("count", [LEAST, pytest.param(MOST, marks=pytest.mark.slow)])
def test_spoilt_requests_are_answered_or_refused_and_end_nothing(fuzzed, count):
    statuses = ask_spoilt(fuzzed, count)
    assert {200, 400, 422} <= set(statuses) <= {200, 400, 413, 422}
    assert fuzzed.metric("tinylens_restarts_total") == 0
    assert fuzzed.ask("/predict", png()).status == 200
    assert "Traceback" not in fuzzed.errors


@pytest.mark.slow
def test_the_openapi_document_holds(fuzzed):
    """5,000 cases by Schemathesis: no 5xx, no status and no answer that is not in the document."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import schemathesis
        from schemathesis.checks import not_a_server_error
        from schemathesis.specs.openapi.checks import (
            response_schema_conformance,
            status_code_conformance,
        )
    import hypothesis

    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{fuzzed.port}/openapi.json")
    operations = [one.ok() for one in schema.get_all_operations()]
    checks = [not_a_server_error, response_schema_conformance, status_code_conformance]
    asking = [one for one in operations if one.path_parameters or one.query or one.body]
    tried = 0
    for operation in operations:  # those without parameters have one case each

        @hypothesis.settings(
            max_examples=CASES // len(asking) + 1,
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy())
        def ask(case):
            nonlocal tried
            tried += 1
            case.call_and_validate(checks=checks)

        ask()
    assert tried >= CASES
    assert "Traceback" not in fuzzed.errors
