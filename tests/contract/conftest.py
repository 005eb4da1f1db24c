"""What the contract's tests share: images in every kind of file, two runs, one server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from outside import Kinds, Shell, training, written


@pytest.fixture(scope="session")
def shell(tmp_path_factory) -> Shell:
    return Shell(tmp_path_factory.mktemp("shell"))


@pytest.fixture(scope="session")
def kinds(tmp_path_factory) -> Kinds:
    return written(tmp_path_factory.mktemp("kinds"))


@pytest.fixture(scope="session")
def runs(shell, kinds) -> dict[str, tuple[Path, Any]]:
    """Two runs, by name their folder and what the command printed; only read them."""
    folder = shell.folder
    wanted = {
        "classic": training("classic", kinds.folder / "images.npz", folder / "classic"),
        "fast": training("fast", kinds.folder / "images.npz", folder / "fast"),
    }
    started = {name: shell.start(*words) for name, words in wanted.items()}
    ended = {name: shell.wait(process) for name, process in started.items()}
    assert [one.code for one in ended.values()] == [0, 0], [one.err for one in ended.values()]
    return {name: (folder / name, one.json) for name, one in ended.items()}


@pytest.fixture(scope="session")
def classic(runs) -> Path:
    return runs["classic"][0]


@pytest.fixture(scope="session")
def fast(runs) -> Path:
    return runs["fast"][0]


@pytest.fixture(scope="session")
def broken(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("broken") / "no-image-at-all.png"
    path.write_bytes(b"hello")
    return path


@pytest.fixture(scope="session")
def damaged(classic, tmp_path_factory) -> Path:
    """A model file of which one bit in the middle was turned."""
    content = bytearray((classic / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    path = tmp_path_factory.mktemp("damaged") / "damaged.onnx"
    path.write_bytes(content)
    return path
