"""Files of every format, opened by name and content."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import shipped
from tinylens.errors import ModelError
from tinylens.exporting.runtimes import kind_of, open_model


def test_a_format_is_known_by_name_and_content(tmp_path):
    for name in ("saved_model.pb", "model.xml"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).touch()
    for suffix in ("onnx", "tflite", "keras", "txt"):
        (tmp_path / f"m.{suffix}").touch()
    assert kind_of(tmp_path / "saved_model") == "saved-model"
    assert kind_of(tmp_path / "model") == "openvino"
    kinds = [kind_of(tmp_path / f"m.{suffix}") for suffix in ("onnx", "tflite", "keras")]
    assert kinds == ["onnx", "litert", "keras"]
    with pytest.raises(ModelError, match=r"m.txt is of no known format; expected .onnx, .tflite"):
        kind_of(tmp_path / "m.txt")
    with pytest.raises(ModelError, match=r"holds no model; expected a folder with saved_model.pb"):
        kind_of(tmp_path)
    with pytest.raises(ModelError, match=r"no model file .*; `tinylens export RUN --format all`"):
        kind_of(tmp_path / "gone.onnx")


def test_an_onnx_file_answers(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(shipped.model_bytes())
    opened = open_model(path, 1)
    images = shipped.some_images(3, shipped.RULE)
    expected = shipped.linear_answers(images, shipped.RULE)
    np.testing.assert_allclose(opened.answer(images), expected, atol=1e-5)
    assert (opened.format.name, opened.size) == ("onnx", path.stat().st_size)


@pytest.mark.parametrize("name", ["m.tflite", "m.keras"])
def test_a_damaged_file_is_refused_in_a_sentence(name, tmp_path):
    pytest.importorskip("ai_edge_litert" if name == "m.tflite" else "keras")
    (tmp_path / name).write_bytes(b"no model at all" * 10)
    with pytest.raises(ModelError, match=f"{name} cannot be run: ") as caught:
        open_model(tmp_path / name, 1)
    assert "\n" not in str(caught.value)


RUNTIMES = {
    "onnxruntime": "import tinylens.inference.classifier",
    "openvino": "from tinylens.exporting.runtimes import openvino_module; openvino_module().Core()",
}


@pytest.mark.parametrize("name", RUNTIMES)
def test_runtimes_are_imported_without_a_word_to_their_makers(name, tmp_path):
    if not importlib.util.find_spec(name):
        pytest.skip(f"{name} is not installed")
    subprocess.run(
        [sys.executable, "-c", RUNTIMES[name]],
        env={"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        check=True,
    )
    assert list(tmp_path.iterdir()) == []  # else each leaves a number there to be known by
