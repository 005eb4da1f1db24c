from __future__ import annotations

import email.message
import email.parser
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from served import form
from tinylens.serving import multipart
from tinylens.serving.multipart import BadForm, Part, TooManyParts

KIND = b"multipart/form-data; boundary=xYzZY"
NAMES = st.text(
    st.characters(blacklist_characters='"\\%\r\n\0', blacklist_categories=("Cs",)),
    min_size=1,
    max_size=40,
)
FILES = st.lists(
    st.tuples(NAMES, st.binary(max_size=200).filter(lambda b: b"xYzZY" not in b)), max_size=5
)


@given(FILES)
def test_what_was_put_into_a_form_comes_out(files):
    body, kind = form(*files)
    assert multipart.parse(kind.encode(), body, 5) == [Part(*one) for one in files]


@given(FILES)
def test_parts_are_those_that_the_standard_library_finds(files):
    body, kind = form(*files)
    if not files:
        return
    head = f"Content-Type: {kind}\r\n\r\n".encode()
    policy = email.policy.HTTP.clone(cte_type="8bit")
    found = email.parser.BytesParser(email.message.Message, policy=policy).parsebytes(head + body)
    ours = multipart.parse(kind.encode(), body, 5)
    assert len(found.get_payload()) == len(ours)


@given(st.binary(max_size=300))
def test_no_bytes_break_it(body):
    with pytest.raises((BadForm, TooManyParts)):
        multipart.parse(KIND, b"--xYzZY" + body, 3)
        raise BadForm  # a form of no parts, or of files, is fine


def part(head: str, content: str = "1") -> bytes:
    return f"--xYzZY\r\n{head}\r\n\r\n{content}\r\n--xYzZY--".encode()


@pytest.mark.parametrize(
    ("head", "name"),
    [
        ('Content-Disposition: form-data; name="f"; filename="a.png"', "a.png"),
        ('content-disposition:form-data; filename=a.png; name="f"', "a.png"),
        ('Content-Type: image/png\r\nContent-Disposition: form-data; filename="a"', "a"),
        ('Content-Disposition: form-data; name="f"; filename="a\\"b%22c"', 'a"b"c'),
        ('Content-Disposition: form-data; name="f"; filename="schön.png"', "schön.png"),
        ('Content-Disposition: form-data; name="f"; filename="' + "a" * 300 + '"', "a" * 255),
        ('Content-Disposition: form-data; name="f"\r\nContent-Type: image/png', ""),
    ],
)
def test_heads_of_files(head, name):
    assert multipart.parse(KIND, part(head), 3) == [Part(name, b"1")]


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        (b"multipart/form-data", b"--x", "names no boundary"),
        (KIND, b"--other\r\n", "does not have the boundary"),
        (KIND, b"", "does not have the boundary"),
        (KIND, part('Content-Disposition: form-data; filename="a"')[:-2], "cut off"),
        (KIND, part("X: y"), "no Content-Disposition"),
        (KIND, part('Content-Disposition: form-data; name="top"', "3"), "options go into"),
        (KIND, b"--xYzZY\r\nno headers\r\n--xYzZY--", "has no headers"),
    ],
)
def test_what_is_no_form_is_told(kind, body, words):
    with pytest.raises(BadForm, match=words):
        multipart.parse(kind, body, 3)


def test_a_form_without_parts_has_none():
    assert multipart.parse(KIND, b"--xYzZY--\r\n", 3) == []
    assert multipart.parse(KIND, b"before\r\n--xYzZY--\r\nafter", 3) == []


def test_as_many_parts_as_are_taken_are_taken_and_no_more():
    body, kind = form(*[("a", b"1")] * 3)
    assert len(multipart.parse(kind.encode(), body, 3)) == 3
    with pytest.raises(TooManyParts, match="more than 2 parts"):
        multipart.parse(kind.encode(), body, 2)
