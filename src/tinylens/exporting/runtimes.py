"""Exported files of every format, opened by their own runtimes.

This is for comparing them. Who wants answers takes `Classifier`, which also reads images, knows
when not to answer, and needs onnxruntime alone.
"""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinylens.backend import activate, quiet
from tinylens.errors import ModelError
from tinylens.exporting.formats import FORMATS, Format, check_installed
from tinylens.inference.classifier import Classifier
from tinylens.inference.model_file import INTEGERS, ModelCard

Answer = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

CARD = "tinylens.json"  # what files that hold other files call the model card
EXTRA_ASSETS = "assets.extra"  # where TensorFlow's own tools leave files in a SavedModel alone
OPENVINO_CARD = ["tinylens", "card"]  # place in the run-time information of OpenVINO's files
OPENVINO_MODEL = "model.xml"
SAVED_MODEL = "saved_model.pb"


@dataclass(frozen=True, eq=False)
class Opened:
    """A model file that answers.

    Attributes:
        path: of the file or folder.
        format: it has.
        card: what it says of itself, or None where it does not, as Keras's own file in a run.
        answer: uint8 images, shape (n, height, width, channels) → probabilities float32, shape
            (n, classes). One thread at a time may call it.
    """

    path: Path
    format: Format
    card: ModelCard | None
    answer: Answer

    @property
    def size(self) -> int:
        """Bytes of the file, or of all files of the folder."""
        files = self.path.rglob("*") if self.path.is_dir() else [self.path]
        return sum(file.stat().st_size for file in files if file.is_file())


def open_model(path: Path, threads: int) -> Opened:
    """Open a model file of any format.

    Args:
        path: of the file, or of the folder of a SavedModel or of OpenVINO's two files.
        threads: that answer. TensorFlow, and Keras on it, keep to the first that they are told.

    Raises:
        ModelError: there is no such file, it is of no known format, or it cannot be run.
        MissingExtra: the runtime of its format is not installed.
    """
    kind = kind_of(path)
    check_installed([FORMATS[kind]], writing=False)
    try:
        card, answer = OPENERS[kind](path, threads)
    except ModelError:
        raise
    except Exception as error:  # runtimes raise dozens of types that share no base
        words = " ".join(str(error).split())[:300]
        raise ModelError(f"{path} cannot be run: {type(error).__name__}: {words}") from error
    integers = card is not None and card.precision == INTEGERS
    return Opened(path, FORMATS[f"{kind}-int8" if integers else kind], card, answer)


def kind_of(path: Path) -> str:
    """Return the format of a file or folder by its name and content, "onnx" for "onnx-int8" too.

    Raises:
        ModelError: there is none, or it is of no known format.
    """
    if path.is_dir():
        inside = {SAVED_MODEL: "saved-model", OPENVINO_MODEL: "openvino"}
        for name, kind in inside.items():
            if (path / name).is_file():
                return kind
        raise ModelError(
            f"{path} holds no model; expected a folder with {' or '.join(inside)}, or a run"
        )
    if not path.is_file():
        raise ModelError(f"no model file {path}; `tinylens export RUN --format all` writes some")
    suffixes = {".onnx": "onnx", ".tflite": "litert", ".keras": "keras"}
    if path.suffix not in suffixes:
        raise ModelError(f"{path} is of no known format; expected {', '.join(suffixes)}")
    return suffixes[path.suffix]


# --- one function a runtime


def _onnx(path: Path, threads: int) -> tuple[ModelCard | None, Answer]:
    classifier = Classifier.open(path, threads=threads)
    return classifier.card, classifier.probabilities


def _litert(path: Path, threads: int) -> tuple[ModelCard | None, Answer]:
    from ai_edge_litert.interpreter import Interpreter

    with quiet():  # a line about its delegate
        interpreter = Interpreter(model_content=path.read_bytes(), num_threads=threads)
        interpreter.allocate_tensors()
    [given], [found] = interpreter.get_input_details(), interpreter.get_output_details()

    def answer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        if tuple(interpreter.get_input_details()[0]["shape"]) != images.shape:
            interpreter.resize_tensor_input(given["index"], images.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], images)
        interpreter.invoke()
        probabilities: NDArray[np.float32] = interpreter.get_tensor(found["index"])
        return probabilities

    return _card_in_zip(path), answer


def _saved_model(path: Path, threads: int) -> tuple[ModelCard | None, Answer]:
    tensorflow = _tensorflow(threads)
    signature = tensorflow.saved_model.load(str(path)).signatures["serving_default"]

    def answer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = signature(image=tensorflow.constant(images))["probabilities"].numpy()
        probabilities: NDArray[np.float32] = found
        return probabilities

    card = path / EXTRA_ASSETS / CARD
    return (_card(card.read_text("utf-8")) if card.is_file() else None), answer


def _openvino(path: Path, threads: int) -> tuple[ModelCard | None, Answer]:
    core = openvino_module().Core()
    network = core.read_model(path / OPENVINO_MODEL)
    card = _card(network.get_rt_info(OPENVINO_CARD).value)
    # where the processor has bfloat16 it would compute in that, and answers differ by 0.01
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    compiled = core.compile_model(network, "CPU", options)

    def answer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        probabilities: NDArray[np.float32] = compiled([images])["probabilities"].copy()
        return probabilities

    return card, answer


def _keras(path: Path, threads: int) -> tuple[ModelCard | None, Answer]:
    activate()
    import keras

    if keras.backend.backend() == "tensorflow":
        _tensorflow(threads)
    network = keras.models.load_model(path)

    def answer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = network.predict_on_batch(images)
        return np.asarray(found, np.float32)

    return _card_in_zip(path), answer


def openvino_module() -> Any:
    """Return OpenVINO's module, which would send word of its import to its makers."""
    # with this, it takes the stub for telemetry that it has for where that is not installed
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def _tensorflow(threads: int) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # else lines of build details at first use
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(threads))
    with quiet():  # its C++ code writes before its own log level is read
        import tensorflow

    return tensorflow


OPENERS: dict[str, Callable[[Path, int], tuple[ModelCard | None, Answer]]] = {
    "onnx": _onnx,
    "litert": _litert,
    "saved-model": _saved_model,
    "openvino": _openvino,
    "keras": _keras,
}


# --- cards


def _card(text: str) -> ModelCard:
    return ModelCard.from_json(json.loads(text))


def _card_in_zip(path: Path) -> ModelCard | None:
    """Return the card in a .keras file, which is a zip, or in the zip behind a .tflite file."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        if CARD not in archive.namelist():
            return None
        return _card(archive.read(CARD).decode("utf-8"))
