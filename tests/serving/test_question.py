from __future__ import annotations

import pytest

from tinylens.serving.question import BadQuestion, Question, parse


@pytest.mark.parametrize(
    ("query", "requested"),
    [
        (b"", Question()),
        (b"top=1", Question(top=1)),
        (b"look=true&seen=1", Question(look=True, seen=True)),
        (b"look=False&seen=", Question()),
        (b"fix=all", Question(fix="all")),
        (b"fix=", Question(fix="")),
        (b"fix=inverted,margins", Question(fix="inverted,margins")),
        (b"model=a.b-c_1", Question(model="a.b-c_1")),
    ],
)
def test_what_is_asked(query, requested):
    assert parse(query) == requested


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (b"tpo=1", "unknown parameter 'tpo', did you mean top?; there are top, look"),
        (b"top=0", "top='0': expected a whole number from 1 to 10000"),
        (b"top=-1", "whole number"),
        (b"top=1e3", "whole number"),
        (b"top=99999", "whole number"),
        (b"top=%D9%A3", "whole number"),
        (b"look=maybe", "look='maybe': expected true or false"),
        (b"top=1&top=2", "given twice"),
        (b"fix=A;B", "expected all, or some of"),
        (b"fix=invertd", "did you mean inverted?"),
        (b"model=..%2f", "no model can be called so"),
        (b"&".join([b"a=1"] * 20), "cannot be read"),
        (b"top=%ff", "cannot be read"),
        (b"\xff", "cannot be read"),
    ],
)
def test_what_cannot_be_asked_is_told(query, words):
    with pytest.raises(BadQuestion) as described:
        parse(query)
    assert words in str(described.value)
