"""Servers for the tests: one for most, and one that asks for a token."""

from __future__ import annotations

import pytest

from served import TOKEN, running
from shipped import model_bytes


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The file of a small network."""
    path = tmp_path_factory.mktemp("served") / "boots.onnx"
    path.write_bytes(model_bytes())
    return path


@pytest.fixture(scope="session")
def server(model):
    """A server with one worker, small limits and a log."""
    limits = ("--body", 0.25, "--read-timeout", 1, "--images", 8, "--queue", 32)
    with running(model, "--workers", 1, *limits, "--log-requests") as found:
        yield found


@pytest.fixture(scope="session")
def guarded(model, tmp_path_factory):
    """A server that all machines can reach, with a token."""
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text(TOKEN + "\n")
    words = ("--host", "0.0.0.0", "--token-file", file, "--log-requests")
    with running(model, "--workers", 1, *words) as found:
        yield found
