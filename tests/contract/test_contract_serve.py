"""What the server answers, asked over HTTP by another process."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import names
import numpy as np
import pytest
from outside import NAMES, Shell

TOKEN = "a-token-of-24-characters"


class Answer:
    """A status, headers in small letters, and a body."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """`tinylens serve` in a process of its own."""

    def __init__(self, shell: Shell, *words: Any) -> None:
        self.process = shell.start("serve", *words, "--port", 0, "--json")
        said = ""
        for line in self.process.stdout:
            said += line
            with contextlib.suppress(ValueError):
                self.port = int(json.loads(said)["url"].rstrip("/").rpartition(":")[2])
                break
        else:
            raise AssertionError(self.process.communicate())
        # so that a full pipe stops nobody
        self._reader = threading.Thread(target=self.process.stderr.read, daemon=True)
        self._reader.start()

    def ask(
        self, path: str, body: bytes | None = None, method: str | None = None, **headers: str
    ) -> Answer:
        """Ask once; words of headers are joined by _ for -."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, body, named)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def metrics(self) -> dict[str, float]:
        """Return the sums of /metrics by name, over all labels."""
        sums: dict[str, float] = {}
        for line in self.ask("/metrics").body.decode().splitlines():
            if found := re.match(r"([a-z_0-9]+)(?:\{.*\})? ([-+.\deE]+|NaN|\+Inf)$", line):
                sums[found[1]] = sums.get(found[1], 0.0) + float(found[2])
        return sums

    def stop(self) -> int:
        """End it and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        self._reader.join(5)
        self.process.stdout.close()
        self.process.stderr.close()
        return code


@contextlib.contextmanager
def running(shell: Shell, *words: Any) -> Iterator[Server]:
    server = Server(shell, *words)
    try:
        yield server
    finally:
        server.stop()


def form(*files: tuple[str, bytes]) -> dict[str, Any]:
    """Return a body with files, and its content type."""
    parts = [
        f'--xYz\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + content
        + b"\r\n"
        for name, content in files
    ]
    kind = "multipart/form-data; boundary=xYz"
    return {"body": b"".join(parts) + b"--xYz--\r\n", "content_type": kind}


def until(true, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not become true"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def server(shell, classic) -> Iterator[Server]:
    limits = ["--workers", 1, names.IMAGES_OPTION, 8, names.BODY_OPTION, 0.25]
    with running(shell, f"shown={classic}", *limits, "--read-timeout", 2) as one:
        yield one


@pytest.fixture(scope="module")
def image(kinds) -> bytes:
    return kinds.files("test")[0].read_bytes()


def expected(classic: Path) -> np.ndarray:
    with np.load(classic / "predictions.npz") as arrays:
        return arrays["test_probabilities"]


def test_a_raw_body_is_an_image(server, classic, image):
    answer = server.ask("/predict?top=3", image, content_type="image/png", x_request_id="mine-1")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert set(answer.json) == {"model", "results", "request_id", "milliseconds"}
    [row] = answer.json["results"]
    assert set(row) == names.RESULT_KEYS and row["error"] is None
    probabilities = expected(classic)[0]
    assert row["label"] == NAMES[probabilities.argmax()] and len(row["top"]) == 3
    assert row["confidence"] == pytest.approx(probabilities.max(), abs=1e-4)
    assert set(row["top"][0]) == {"label", "probability"}
    assert answer.json["request_id"] == answer.headers["x-request-id"] == "mine-1"
    assert answer.json["model"]["name"] == "shown"


def test_files_of_a_form_are_answered_in_their_order(server, classic, kinds):
    files = [(f"{number}.png", kinds.files("test")[number].read_bytes()) for number in range(8)]
    rows = server.ask("/predict?top=1", **form(*files)).json["results"]
    assert [row["name"] for row in rows] == [name for name, _ in files]
    probabilities = expected(classic)[:8]
    assert [row["label"] for row in rows] == [NAMES[label] for label in probabilities.argmax(1)]
    found = [row["confidence"] for row in rows]
    np.testing.assert_allclose(found, probabilities.max(1), atol=1e-4)


def test_a_bad_image_among_several_fails_alone(server, image):
    answer = server.ask("/predict", **form(("a", image), ("b", b"hello"), ("c", image)))
    assert answer.status == 200
    assert [bool(row["error"]) for row in answer.json["results"]] == [False, True, False]


def test_what_the_model_saw_and_where_it_looked(server, image):
    [row] = server.ask("/predict?seen=true&look=true", image).json["results"]
    assert row["seen"].startswith("data:image/png;base64,")
    assert (row["look"]["height"], row["look"]["width"]) == (16, 16)
    assert np.shape(row["look"]["values"]) in ((16, 16), (256,))


@pytest.mark.parametrize(
    ("path", "requested", "status"),
    [
        ("/predict", {"body": b"hello"}, 422),
        ("/predict", {"body": b""}, 422),
        ("/predict?model=gone", {"body": b"hello"}, 404),
        ("/predict?top=many", {"body": b"hello"}, 422),
        ("/predict?nosuch=1", {"body": b"hello"}, 422),
        ("/predict", {"body": b"x" * 300_000}, 413),
        ("/predict", form(*[("a.png", b"x")] * 9), 422),
        ("/predict", {"body": b"x", "content_type": "multipart/form-data"}, 400),
        ("/predict", {"body": b"x", "content_encoding": "gzip"}, 415),
        ("/predict", {"body": b"x", "host": "evil.example"}, 403),
        ("/predict", {"body": b"x", "origin": "http://evil.example"}, 403),
        ("/predict", {"body": b"x", "method": "PUT"}, 405),
        ("/nowhere", {}, 404),
        ("/v2/models/gone/infer", {"body": b"{}"}, 404),
        ("/v2/models/shown/infer", {"body": b"{"}, 400),
        ("/v2/models/shown/infer", {"body": b'{"id": NaN}'}, 400),
        ("/v2/models/shown/infer", {"body": b'{"inputs": []}'}, 422),
        ("/models/shown/reload", {"body": b"", "origin": "http://evil.example"}, 403),
    ],
)
def test_what_cannot_be_answered_says_why(server, path, requested, status):
    answer = server.ask(path, **requested)
    assert answer.status == status, answer.body
    rows = answer.json.get("results", [answer.json])  # of an image that is none: its row says it
    assert "request_id" in answer.json and all(row["error"] for row in rows)
    assert b"Traceback" not in answer.body and b"/tmp" not in answer.body
    assert "access-control-allow-origin" not in answer.headers
    assert server.ask("/v2/health/ready").status == 200


def test_a_body_that_does_not_come_is_not_waited_for(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", "9")
    connection.endheaders()
    assert connection.getresponse().status == 408
    connection.close()


def test_the_open_inference_protocol(server, classic, kinds):
    assert server.ask("/v2/health/live").json == {"live": True}
    assert server.ask("/v2/health/ready").json == {"ready": True}
    assert server.ask("/v2/models/shown/ready").json == {"name": "shown", "ready": True}
    assert server.ask("/v2").json["name"] == "tinylens"
    metadata = server.ask("/v2/models/shown").json
    assert metadata["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 16, 16, 3]}]
    assert metadata["outputs"][0]["name"] == "probabilities"
    images = kinds.arrays["x_test"][:3]
    for data in (images.tolist(), images.ravel().tolist()):
        tensor = {"name": "image", "shape": [3, 16, 16, 3], "datatype": "UINT8", "data": data}
        body = json.dumps({"id": "x", "inputs": [tensor]}).encode()
        answer = server.ask("/v2/models/shown/infer", body).json
        [output] = [one for one in answer["outputs"] if one["name"] == "probabilities"]
        assert (answer["id"], output["shape"], output["datatype"]) == ("x", [3, 4], "FP32")
        found = np.reshape(output["data"], (3, 4))
        np.testing.assert_allclose(found, expected(classic)[:3], atol=1e-4)


def test_models_are_described(server):
    [model] = server.ask("/models").json["models"]
    assert (model["name"], model["classes"]) == ("shown", list(NAMES))
    assert re.fullmatch("[0-9a-f]{64}", model["sha256"])
    sizes = {key: model["image"][key] for key in ("height", "width", "channels")}
    assert sizes == {"height": 16, "width": 16, "channels": 3}


def test_metrics_count_what_was_asked(server, image):
    before = server.metrics()
    for _ in range(3):
        assert server.ask("/predict", image).status == 200
    after = server.metrics()
    assert set(after) >= names.METRICS
    assert after[names.METRIC_IMAGES] - before.get(names.METRIC_IMAGES, 0) == 3
    assert after[names.METRIC_REQUESTS] - before.get(names.METRIC_REQUESTS, 0) >= 3


def test_pages_and_documents(server):
    assert "script-src 'self'" in server.ask("/docs").headers["content-security-policy"]
    document = server.ask("/openapi.json").json
    assert {"/predict", "/models", "/metrics", "/v2/models/{name}/infer"} <= set(document["paths"])


def test_a_token_is_asked_for(shell, classic, image, tmp_path):
    (tmp_path / "token").write_text(TOKEN + "\n")
    (tmp_path / "token").chmod(0o600)
    with running(shell, classic, "--workers", 1, "--token-file", tmp_path / "token") as guarded:
        for path, body in (("/predict", image), ("/models", None), ("/metrics", None)):
            without = guarded.ask(path, body)
            assert (without.status, without.headers["www-authenticate"]) == (401, "Bearer")
            assert guarded.ask(path, body, authorization=f"Bearer {TOKEN[:-1]}x").status == 401
            assert guarded.ask(path, body, authorization=f"Bearer {TOKEN}").status == 200
        assert guarded.ask("/v2/health/live").status == 200
    for words in (["--host", "0.0.0.0"], ["--token-file", tmp_path / "gone"]):
        ended = shell("serve", classic, "--port", 0, *words, "--json")
        assert ended.code == 2 and ended.json["error"]["message"]


def test_a_model_is_replaced_by_its_file_and_a_broken_one_is_not(
    shell, runs, damaged, image, tmp_path
):
    path = tmp_path / "swapped.onnx"
    shutil.copy(runs["classic"][0] / "model.onnx", path)
    with running(shell, path, "--workers", 1) as server:

        def served() -> str:
            answer = server.ask("/predict", image)
            assert answer.status == 200
            return answer.json["model"]["sha256"]

        def put(source: Path) -> None:
            shutil.copy(source, tmp_path / "new")
            (tmp_path / "new").replace(path)
            if names.RELOAD_SIGNAL:
                server.process.send_signal(names.RELOAD_SIGNAL)

        first = served()
        put(runs["fast"][0] / "model.onnx")
        until(lambda: served() != first)
        second = served()
        put(damaged)
        time.sleep(1)
        assert served() == second
        assert server.stop() == 0


def test_every_request_that_was_taken_is_answered_at_the_end(shell, classic, image):
    server = Server(shell, classic, "--workers", 1)
    statuses: list[int] = []
    failed: list[str] = []

    def ask() -> None:
        while True:
            try:
                statuses.append(server.ask("/predict", image).status)
            except ConnectionRefusedError:
                return  # it takes no more connections
            except (OSError, http.client.HTTPException) as error:
                failed.append(repr(error))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(statuses) > 20)
    code = server.stop()
    for thread in threads:
        thread.join()
    # a connection that was open and not yet read may be closed: each client meets that once
    assert code == 0 and set(statuses) <= {200, 503} and len(failed) <= len(threads), failed


@pytest.mark.slow
def test_more_than_the_queue_holds_is_refused_with_503(shell, classic, kinds):
    words = ["--workers", 1, "--queue", 1, "--batch", 1]
    body = form(*[("a.png", kinds.files("test")[0].read_bytes())] * 32)
    statuses: list[tuple[int, str | None]] = []
    with running(shell, classic, *words) as busy:

        def ask() -> None:
            for _ in range(20):
                answer = busy.ask("/predict?seen=true", **body)
                statuses.append((answer.status, answer.headers.get("retry-after")))

        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert busy.ask("/v2/health/ready").status == 200
    assert {status for status, _ in statuses} == {200, 503}
    assert all(wait for status, wait in statuses if status == 503)
