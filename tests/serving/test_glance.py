from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinylens.serving import glance


def request(*headers: bytes, body: bytes = b"hi", line: bytes = b"POST /predict HTTP/1.1") -> bytes:
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join((line, b"Host: localhost", length, *headers, b"", body))


@given(st.binary(max_size=300))
def test_a_plain_request_is_known_whatever_its_body(body):
    assert glance.request_id(request(body=body)) == b""
    assert glance.request_id(request(b"X-Request-ID: a-1", body=body)) == b"a-1"


@pytest.mark.parametrize(
    "other",
    [
        request()[:-1],
        request() + b"x",
        request() + request(),
        request(b"Content-Length: 2"),
        request(b"Transfer-Encoding: chunked"),
        request(b"content-encoding: gzip"),
        request(b"Expect: 100-continue"),
        request(b"Upgrade: h2c"),
        request(b"Connection: keep-alive, close"),
        request(line=b"GET /predict HTTP/1.1"),
        request(line=b"POST /predict HTTP/1.0"),
        request(line=b"POST /predicted HTTP/1.1"),
        request(line=b"POST /models/a/reload HTTP/1.1"),
        request(body=bytes(glance.LONGEST)),
        b"",
    ],
)
def test_what_is_not_plain_is_left_to_be_read(other):
    assert glance.request_id(other) is None


def test_what_a_body_says_is_no_header():
    assert glance.request_id(request(body=b"\r\nx-request-id: a\r\nexpect: b\r\n\r\n")) == b""


def test_a_question_and_a_lasting_connection_are_plain():
    requested = request(b"Connection: keep-alive", line=b"POST /predict?top=3 HTTP/1.1")
    assert glance.request_id(requested) == b""
