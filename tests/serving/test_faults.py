"""Faults that a server must survive, row by row, against a real one in a second process."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from served import TOKEN, Server, encoded, form, png, read_all, resident, running, until
from shipped import RULE, model_bytes
from tinylens.inference.classifier import Classifier

HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"


def post(body: bytes, *headers: bytes) -> bytes:
    lines = b"".join(b"%b\r\n" % header for header in headers)
    return HEAD + b"Content-Length: %d\r\n%b\r\n" % (len(body), lines) + body


def answers(server: Server) -> bool:
    return server.ask("/predict", png()).status == 200


# --- S1: bodies over the limit


def test_a_body_over_the_limit_is_refused_by_its_length_and_the_connection_ends(server):
    before = server.memory()
    said = server.raw(HEAD + b"Content-Length: 99999999999\r\n\r\n" + b"x" * 100_000)
    assert said.startswith(b"HTTP/1.1 413 ") and b"connection: close" in said
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"] == (
        "the body is too large, expected at most 262144 bytes"
    )
    assert server.memory() - before < 4 * 2**20


def test_a_body_without_a_length_is_refused_once_it_is_over_the_limit(server):
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    said = server.raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 40)
    assert said.startswith(b"HTTP/1.1 413 ") and b"connection: close" in said
    path = b"POST /v2/models/boots/infer HTTP/1.1\r\nHost: localhost\r\n"
    said = server.raw(path + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 40)
    assert said.startswith(b"HTTP/1.1 413 ") and b"connection: close" in said


def test_a_compressed_body_is_refused_unread(server):
    bomb = gzip.compress(bytes(10_000_000))
    answer = server.ask("/predict", bomb, content_encoding="gzip")
    assert (answer.status, answer.json["error"]) == (
        415,
        "the body is compressed, expected it as it is",
    )


# --- S2: those who send slowly


@pytest.mark.parametrize("path", ["/predict", "/v2/models/boots/infer"])
def test_a_body_that_does_not_come_is_not_waited_for(server, path):
    begun = time.monotonic()
    said = server.raw(
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n".encode()
    )
    assert said.startswith(b"HTTP/1.1 408 ") and b"connection: close" in said
    assert 0.9 < time.monotonic() - begun < 8


def test_a_head_that_comes_byte_by_byte_is_not_waited_for(server):
    with server.socket() as made:
        made.sendall(b"GET /models HTTP/1.1\r\nX: ")
        said, end = b"", time.monotonic() + 8
        made.settimeout(0.1)
        while not said and time.monotonic() < end:
            with contextlib.suppress(OSError):
                made.sendall(b"x")
                said = made.recv(1000)
    assert said.startswith(b"HTTP/1.1 408 ")


def test_a_head_without_end_is_refused(server):
    with server.socket() as made, contextlib.suppress(ConnectionError):
        made.sendall(b"GET /models HTTP/1.1\r\n")
        for _ in range(40):
            made.sendall(b"X: " + b"y" * 8192 + b"\r\n")
            time.sleep(0.005)
        said = read_all(made)
        assert said.startswith(b"HTTP/1.1 431 ")


# --- S3: tensors that are none


def tensor(**changes) -> bytes:
    count = RULE.height * RULE.width * RULE.channels
    made = {"name": "image", "shape": [1, *RULE.shape], "datatype": "UINT8", "data": [7] * count}
    return json.dumps({"id": "a", "inputs": [{**made, **changes}]}).encode()


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "not JSON"),
        (b"[" * 100_000, 400, "nested too deeply"),
        (b'{"id": NaN}', 400, "NaN is no number"),
        (b'{"id": -Infinity}', 400, "no number"),
        (b'{"id": ' + b"9" * 9000 + b"}", 400, "not JSON"),
        (b'{"id": "a", "id": "b"}', 400, "twice"),
        (b"\xff\xfe", 400, "not JSON"),
        (b"[]", 422, "the request is a list, expected an object"),
        (b'{"inputs": [], "x": 1}', 422, "the request has 'x'"),
        (b'{"inputs": []}', 422, "one tensor"),
        (b'{"inputs": [1]}', 422, "the tensor is a number"),
        (tensor(datatype="FP32"), 422, "datatype"),
        (tensor(name="other"), 422, "name"),
        (tensor(shape=[1, 8, 6]), 422, "shape is [1, 8, 6]"),
        (tensor(shape=[-1, 8, 6, 3]), 422, "shape is [-1, 8, 6, 3]"),
        (tensor(shape=[1.0, 8, 6, 3]), 422, "whole numbers"),
        (tensor(shape=[10**30, 8, 6, 3]), 422, "expected up to 8"),
        (tensor(data=[1, 2, 3]), 422, "data has 3 values, expected 144"),
        (tensor(data=[256] * 144), 422, "0 to 255"),
        (tensor(data=[True] * 144), 422, "0 to 255"),
        (tensor(data=[1.5] * 144), 422, "0 to 255"),
        (tensor(data=[10**40] * 144), 422, "0 to 255"),
        (tensor(data=[[1], [1, 2]]), 422, "nested otherwise"),
        (tensor(data="abc"), 422, "data is text"),
        (tensor(parameters={"binary_data_size": 3}), 422, "knows none"),
    ],
)  # fmt: skip
def test_a_tensor_that_is_none_is_refused_with_a_reason(server, body, status, words):
    answer = server.ask("/v2/models/boots/infer", body, content_type="application/json")
    assert (answer.status, words in answer.json["error"]) == (status, True), answer.json


# --- S4: forms with too much


def test_a_thousand_parts_are_refused(server):
    body, kind = form(*[("a.png", b"x")] * 1000)
    answer = server.ask("/predict", body, content_type=kind)
    assert (answer.status, answer.json["error"]) == (
        422,
        "the form has more than 8 parts, expected up to 8",
    )


def test_a_part_with_huge_headers_is_refused(server):
    body, kind = form(("a" * 100_000, b"x"))
    answer = server.ask("/predict", body, content_type=kind)
    assert (answer.status, "no headers, or more than 8192" in answer.json["error"]) == (400, True)


# --- S5: more than can be answered


def test_too_many_images_are_refused_at_once_and_the_others_answered(model):
    with running(model, "--workers", 1, "--queue", 4, "--images", 4) as busy:
        body, kind = form(*[("a.png", large_png())] * 4)
        sent = post(body, b"Content-Type: " + kind.encode())
        sockets = [busy.socket() for _ in range(12)]
        begun = time.monotonic()
        for made in sockets:
            made.sendall(sent)
        said = []
        for made in sockets:
            first = made.recv(65536)
            said.append((int(first[9:12]), time.monotonic() - begun, first))
            made.close()
        refused = [one for one in said if one[0] == 503]
        assert {one[0] for one in said} == {200, 503} and len(refused) >= 8
        assert all(b"retry-after: 1\r\n" in one[2] for one in refused)
        assert answers(busy)
        assert busy.metric("tinylens_refused_total", reason="full") == len(refused)
        assert busy.metric("tinylens_waiting") == 0


def test_who_was_refused_after_a_wait_is_not_late_the_next_time(model):
    with running(model, "--workers", 1, "--queue", 4, "--images", 4) as busy:
        large = encoded(np.full((800, 800, 3), 77, np.uint8), compress_level=1)
        body, kind = form(*[("a.png", large)] * 4)
        with busy.socket() as first, busy.socket() as second:
            first.sendall(post(body, b"Content-Type: " + kind.encode()))
            time.sleep(0.003)  # it has all places by now
            second.sendall(post(png()).replace(b"localhost", b"evil.example"))
            assert second.recv(65536)[9:12] in (b"403", b"503")
            time.sleep(1.2)
            before = busy.metric("tinylens_seconds_sum")
            second.sendall(post(png()))
            assert second.recv(65536).startswith(b"HTTP/1.1 200 ")
            assert busy.metric("tinylens_seconds_sum") - before < 1


def large_png() -> bytes:
    """Return an image that takes some 30 ms to decode."""
    return encoded(np.full((1500, 1500, 3), 77, np.uint8), compress_level=1)


# --- S6: those who leave


def test_clients_that_leave_cost_nothing(server):
    for _ in range(5):
        assert answers(server)
    before = server.memory()
    sent = post(png())
    for turn in range(300):
        with server.socket() as made:
            made.sendall(sent[: len(sent) if turn % 2 else len(sent) // 2])
    until(lambda: server.metric("tinylens_waiting") == 0)
    assert answers(server)
    assert server.memory() - before < 8 * 2**20


# --- S7: a bad image among good ones


def test_a_bad_image_fails_alone(server):
    good = png()
    alone = server.ask("/predict", good).json["results"][0]
    body, kind = form(("a.png", good), ("b.png", good[:60]), ("c.png", b"text"), ("d.png", good))
    results = server.ask("/predict", body, content_type=kind).json["results"]
    assert [row["error"] is None for row in results] == [True, False, False, True]
    assert results[0] == {**alone, "name": "a.png"} and results[3] == {**alone, "name": "d.png"}
    assert results[2]["error"].startswith("not an image: starts with b'text'")


def test_a_bad_request_in_a_batch_fails_alone(server):
    found: list[int] = []

    def ask(content: bytes) -> None:
        found.append(server.ask("/predict", content).status)

    bodies = [png(), b"\x89PNG\r\n\x1a\nbroken"] * 8
    threads = [threading.Thread(target=ask, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [200] * 8 + [422] * 8


# --- S8: workers that die or hang


def test_a_dead_worker_is_told_and_replaced(model):
    with running(model, "--workers", 1) as server:
        assert answers(server)
        os.kill(server.workers[0], signal.SIGKILL)
        until(lambda: ready(server) == 503, pause=0.002)
        assert server.ask("/v2/health/live").json == {"live": True}
        refused = server.ask("/predict", png())
        if refused.status != 200:  # it may be back already
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        until(lambda: ready(server) == 200)
        assert answers(server)
        assert "a worker ended with the code -9; another is started in 0.1 s" in server.errors
        assert server.metric("tinylens_restarts_total") == 1
        assert server.stop() == 0


def ready(server: Server) -> int:
    with contextlib.suppress(ConnectionError):
        return server.ask("/v2/health/ready").status
    return 0  # it was handed to the worker that died


@pytest.mark.slow
def test_a_hanging_worker_is_ended_and_replaced(model):
    with running(model, "--workers", 2) as server:
        os.kill(server.workers[0], signal.SIGSTOP)
        time.sleep(3)  # from then on it is not handed connections
        begun = time.monotonic()
        assert all(answers(server) for _ in range(20))
        assert time.monotonic() - begun < 5
        until(lambda: "hangs, and is ended" in server.errors, 30)
        until(lambda: server.metric("tinylens_workers") == 2, 30)


# --- S9: the end


def test_nothing_that_was_asked_is_lost_at_the_end(model):
    with running(model, "--workers", 2) as server:
        stop, failed, answered = threading.Event(), [], []

        def ask() -> None:
            sent = post(png())
            while not stop.is_set():
                try:
                    made = server.socket()
                except ConnectionError:
                    return  # it takes no more connections
                with made:
                    last = False
                    while not last:
                        try:
                            made.sendall(sent)
                            said = made.recv(65536)
                        except OSError as error:
                            failed.append(repr(error))
                            return
                        last = b"connection: close" in said
                        (answered if said.startswith(b"HTTP/1.1 200") else failed).append(said[:60])

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        begun = time.monotonic()
        code = server.stop()
        assert time.monotonic() - begun < 30
        stop.set()
        for thread in threads:
            thread.join()
        assert (code, failed) == (0, []) and len(answered) > 20


def test_a_second_interrupt_does_not_wait(model):
    with running(model, "--workers", 1) as server, server.socket() as made:
        made.sendall(HEAD + b"Content-Length: 9\r\n\r\n")  # and no body, for ten seconds
        time.sleep(0.2)
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert server.process.poll() is None
        assert server.stop(signal.SIGINT) == 130


# --- S10: models that are replaced


def test_a_model_is_replaced_by_its_file_and_a_broken_one_is_not(tmp_path):
    path = tmp_path / "boots.onnx"
    path.write_bytes(model_bytes())
    with running(path, "--workers", 2) as server:
        old = server.ask("/models").json["models"][0]
        path.write_bytes(model_bytes(class_names=("a", "b", "c", "d")))
        done = server.ask("/models/boots/reload", b"")
        assert (done.status, done.json["previous"]) == (200, old["sha256"])
        for _ in range(8):  # both workers
            row = server.ask("/predict", png()).json
            assert row["results"][0]["label"] in "abcd"
            assert row["model"]["sha256"] == done.json["sha256"]
        whole = path.read_bytes()
        for broken, words in (
            (whole[:-9], "boots.onnx is cut short"),
            (b"no model", "is not a model file"),
            (model_bytes(golden=wrong_golden()), "does not give its recorded answers"),
        ):
            path.write_bytes(broken)
            refused = server.ask("/models/boots/reload", b"")
            assert refused.status == 409 and words in refused.json["error"], refused.json
            assert str(tmp_path) not in refused.json["error"]
            assert server.ask("/predict", png()).json["model"]["sha256"] == done.json["sha256"]
        path.write_bytes(model_bytes())
        server.process.send_signal(signal.SIGHUP)
        until(lambda: server.ask("/models").json["models"][0] == old)
        assert server.metric("tinylens_reloads_total", outcome="failed") == 3


def wrong_golden():
    golden = Classifier.from_bytes(model_bytes(), "x", threads=1).card.golden
    return type(golden)(golden.images, np.roll(golden.probabilities, 1, axis=1))


# --- S11: what is not there


def test_unknown_models_and_paths_are_not_found(server):
    assert server.ask("/v2/models/other/infer", b"{}").status == 404
    assert server.ask("/predict?model=other", png()).json["error"] == (
        "no model is called 'other'; there is boots"
    )
    for path in ("/v2/models/..%2f..%2fetc", "/../../etc/passwd", "/static/../app.py", "/app.py"):
        assert server.ask(path).status in (404, 422), path
    assert server.ask(f"/v2/models/{'a' * 65}").status == 422


def test_the_server_says_that_it_is_not_ready_before_its_models_are(model):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    statuses: list[tuple[int, int]] = []

    def look() -> None:
        import http.client

        end = time.monotonic() + 30
        while time.monotonic() < end and (not statuses or statuses[-1][1] != 200):
            with contextlib.suppress(OSError):
                pair = []
                for path in ("/v2/health/live", "/v2/health/ready"):
                    requested = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                    requested.request("GET", path)
                    pair.append(requested.getresponse().status)
                    requested.close()
                statuses.append((pair[0], pair[1]))
            time.sleep(0.01)

    looking = threading.Thread(target=look)
    looking.start()
    with running(model, "--workers", 1, port=port):
        looking.join()
    assert statuses[0] == (200, 503) and statuses[-1] == (200, 200)


# --- S12: who may ask


@pytest.mark.parametrize(
    "path", ["/predict", "/models", "/metrics", "/v2", "/docs", "/openapi.json"]
)
def test_a_token_is_asked_for(guarded, path):
    body = png() if path == "/predict" else None
    without = guarded.ask(path, body)
    assert (without.status, without.headers["www-authenticate"]) == (401, "Bearer")
    wrong = guarded.ask(path, body, authorization=f"Bearer {TOKEN[:-1]}x")
    assert (wrong.status, wrong.json["error"]) == (401, "the token is not the server's")
    assert guarded.ask(path, body, authorization=f"Bearer {TOKEN}").status == 200


def test_probes_and_the_page_need_no_token(guarded):
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert guarded.ask(path).status == 200
    assert guarded.ask("/").status in (200, 404)
    assert guarded.ask("/v2/healthy").status == 401


@pytest.mark.parametrize("path", ["/predict", "/models"])
def test_pages_of_elsewhere_and_foreign_hosts_are_refused(server, path):
    body = png() if path == "/predict" else None
    assert server.ask(path, body, host="evil.example").status == 403
    assert server.ask(path, body, host="localhost:1").status == 200
    assert server.ask(path, body, origin="http://evil.example").status == 403
    assert server.ask(path, body, origin="null").status == 403
    own = f"127.0.0.1:{server.port}"
    assert server.ask(path, body, host=own, origin=f"http://{own}").status == 200
    preflight = server.ask(path, method="OPTIONS", origin="http://evil.example")
    assert preflight.status == 403
    assert "access-control-allow-origin" not in preflight.headers


@pytest.mark.parametrize("words", [("--host", "0.0.0.0"), ("--host", "192.0.2.1")])
def test_other_machines_are_not_served_without_a_token(model, words):
    command = [sys.executable, "-m", "tinylens", "serve", str(model), *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2 and "there is no token" in ended.stderr


# --- S13: the log


def test_nothing_forges_a_line_of_the_log_and_no_secret_is_in_it(guarded):
    name = 'a\r\n{"status": 200}.png'
    body, kind = form((name.replace("\r\n", "%0D%0A"), png()))
    requested = {"content_type": kind, "authorization": f"Bearer {TOKEN}"}
    answer = guarded.ask("/predict?top=1", body, x_request_id="x" * 65, **requested)
    assert answer.status == 200
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]+-[0-9a-f]+", answer.headers["x-request-id"])
    guarded.ask("/a%0A%7B%22status%22:200%7D" + "b" * 500, authorization=f"Bearer {TOKEN}")
    named = guarded.ask(
        "/predict", png(), x_request_id="mine-1.a_B", **requested | {"content_type": ""}
    )
    assert (named.headers["x-request-id"], named.json["request_id"]) == ("mine-1.a_B",) * 2
    until(lambda: "mine-1.a_B" in guarded.errors)
    lines = [json.loads(line) for line in guarded.errors.splitlines()]
    keys = {"time", "id", "method", "path", "status", "milliseconds"}
    assert all(set(line) == keys and len(line["path"]) <= 200 for line in lines)
    assert (
        TOKEN not in guarded.errors
        and "PNG" not in guarded.errors
        and "top=1" not in guarded.errors
    )


# --- S14: connections without end


def test_idle_connections_keep_nobody_out(server):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    idle = []
    try:
        for _ in range(2300):
            idle.append(server.socket())
        assert server.ask("/v2/health/ready").status == 200
        assert answers(server)
        assert resident(server.workers[0]) < 400 * 2**20
    finally:
        for made in idle:
            made.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
