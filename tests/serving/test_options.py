from __future__ import annotations

import json

import pytest

from tinylens.errors import RecipeError
from tinylens.serving.options import Limits, Options, is_loopback, name_models

MODELS = (("boots", "boots.onnx"),)


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.7", False),
        ("example.org", False),
    ],
)
def test_which_addresses_are_this_machines_alone(host, alone):
    assert is_loopback(host) is alone


def test_options_come_back_from_json():
    options = Options(MODELS, token="x" * 20, allowed_hosts=("a.b",), limits=Limits(queue=9))
    assert Options.from_json(json.loads(json.dumps(options.to_json()))) == options


def test_a_token_is_not_shown():
    assert "secret" not in repr(Options(MODELS, token="secret-secret-secret"))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["runs/boots/model.onnx"], ("boots",)),
        (["boots.onnx", "x=runs/y"], ("boots", "x")),
        (["runs/boots-1", "b=boots=2.onnx"], ("boots-1", "b")),
    ],
)
def test_models_are_called_as_their_runs_or_files_are(words, named):
    assert tuple(name for name, _ in name_models(words)) == named


@pytest.mark.parametrize(
    ("words", "described"),
    [
        (["a b.onnx"], "cannot be called 'a b'"),
        (["a/model.onnx", "b/a"], "two models are called a"),
    ],
)
def test_names_that_cannot_be_are_told(words, described):
    with pytest.raises(RecipeError, match=described):
        name_models(words)


@pytest.mark.parametrize(
    ("changes", "described"),
    [
        ({"host": "0.0.0.0"}, "there is no token"),
        ({"token": "short"}, "the token has 5 characters"),
        ({"token": "with a space in it, long"}, "without spaces"),
        ({"workers": 0}, "expected at least 1"),
    ],
)
def test_options_that_cannot_be_are_told(changes, described):
    with pytest.raises(RecipeError, match=described):
        Options(MODELS, **changes)


def test_limits_are_more_than_nothing():
    with pytest.raises(RecipeError, match="--read-seconds 0: expected more than 0"):
        Limits(read_seconds=0)
