"""SavedModel and LiteRT export through TensorFlow.

All are made of one function from uint8 images to probabilities, whose weights are constants:
LiteRT's converter leaves variables of Keras 3 behind.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from tinylens.backend import quiet
from tinylens.data.dataset import Images
from tinylens.exporting.onnx_writer import INPUT, OUTPUT
from tinylens.exporting.runtimes import CARD, EXTRA_ASSETS
from tinylens.inference.model_file import ModelCard

LABELS = "labels.txt"  # what LiteRT's own task library reads, a class a line
# In 8 bits probabilities would come in steps of 1/256; values times their own sigmoid, and norms
# behind pools, lose most: 98.7 % of answers on val are the floats' with these in floats, 97.9 %
# with the first two alone (`fast`, CIFAR-10 (JPEG), 2,000 images)
IN_FLOATS = ("LOG_SOFTMAX", "SOFTMAX", "MUL", "ADD")


def write_saved_model(network: keras.Model, card: ModelCard, path: Path) -> None:
    """Write the folder of a SavedModel, with one signature, "serving_default"."""
    import tensorflow

    serve = _function(network)
    module = tensorflow.Module()
    module.serve = serve
    with quiet():
        tensorflow.saved_model.save(module, str(path), signatures={"serving_default": serve})
    extra = path / EXTRA_ASSETS
    extra.mkdir()
    (extra / CARD).write_text(json.dumps(card.to_json()), encoding="utf-8")


def litert_model(network: keras.Model, images: Images | None = None) -> bytes:
    """Return LiteRT's file, in floats or, calibrated on `images`, in 8-bit integers."""
    import tensorflow

    with tempfile.TemporaryDirectory() as folder, quiet():
        serve = _function(network)
        module = tensorflow.Module()
        module.serve = serve
        tensorflow.saved_model.save(module, folder, signatures={"serving_default": serve})
        converter = tensorflow.lite.TFLiteConverter.from_saved_model(folder)
        content: bytes = converter.convert() if images is None else _integers(converter, images)
    return content


def with_card(content: bytes, card: ModelCard) -> bytes:
    """Return LiteRT's file with card and labels in a zip behind it, as its metadata are kept."""
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(LABELS, "".join(f"{name}\n" for name in card.class_names))
        archive.writestr(CARD, json.dumps(card.to_json()))
    return file.getvalue()


def _integers(converter: Any, images: Images) -> bytes:
    import tensorflow

    def each() -> Iterator[list[NDArray[np.uint8]]]:
        for image in images:
            yield [image[None]]

    converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
    converter.representative_dataset = each
    options = tensorflow.lite.experimental.QuantizationDebugOptions(denylisted_ops=list(IN_FLOATS))
    debugger = tensorflow.lite.experimental.QuantizationDebugger(
        converter=converter, debug_dataset=each, debug_options=options
    )
    content: bytes = debugger.get_nondebug_quantized_model()
    return content


def _function(network: keras.Model) -> Any:
    """Return a tf.function from "image", uint8 (batch, …), to {"probabilities": float32}."""
    import tensorflow

    trained, others = (
        [tensorflow.constant(keras.ops.convert_to_numpy(variable)) for variable in variables]
        for variables in (network.trainable_variables, network.non_trainable_variables)
    )
    signature = tensorflow.TensorSpec((None, *network.input_shape[1:]), "uint8", name=INPUT)

    def serve(image: Any) -> dict[str, Any]:
        answers, _ = network.stateless_call(trained, others, image, training=False)
        return {OUTPUT: answers}

    return tensorflow.function(serve, input_signature=[signature])
