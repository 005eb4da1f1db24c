"""The Open Inference Protocol, version 2, as far as JSON goes.

https://github.com/kserve/open-inference-protocol: one input, "image", uint8 in NHWC; no extension.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinylens.inference.classifier import Prediction, Read
from tinylens.serving.answers import finite
from tinylens.serving.hosted import Hosted
from tinylens.serving.tickets import Refused, Reply, Ticket

INPUT, PROBABILITIES, OOD_SCORE = "image", "probabilities", "ood_score"
_REQUEST = {"id", "parameters", "inputs", "outputs"}
_TENSOR = {"name", "shape", "datatype", "parameters", "data"}


def describe(hosted: Hosted) -> dict[str, Any]:
    """Return a model's metadata."""
    classes = len(hosted.classifier.class_names)
    shape = [-1, *hosted.classifier.rule.shape]
    outputs = [{"name": PROBABILITIES, "datatype": "FP32", "shape": [-1, classes]}]
    if hosted.classifier.card.selective.ordinary:
        outputs.append({"name": OOD_SCORE, "datatype": "FP32", "shape": [-1]})
    return {
        "name": hosted.name,
        "versions": [hosted.sha256],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": shape}],
        "outputs": outputs,
    }


class Inference:
    """A request, read and checked.

    Args:
        content: its body.
        hosted: the model that is asked.
        most: images in a request.

    Attributes:
        images: uint8, shape (n, height, width, channels).

    Raises:
        Refused: 400 for what is no JSON, 422 for what the protocol or the model does not know.
    """

    def __init__(self, content: bytes, hosted: Hosted, most: int) -> None:
        tree = _object(_parse(content), _REQUEST, "the request")
        self._id = tree.get("id")
        if self._id is not None and not isinstance(self._id, str):
            raise Refused(422, f"id is {_kind(self._id)}, expected text")
        _no_parameters(tree)
        inputs = tree.get("inputs")
        if not isinstance(inputs, list) or len(inputs) != 1:
            raise Refused(422, 'inputs: expected a list with one tensor, "image"')
        self.images = _tensor(inputs[0], hosted, most)
        known = [output["name"] for output in describe(hosted)["outputs"]]
        self._outputs = _wanted(tree.get("outputs"), known)

    def reads(self) -> list[Read]:
        """Return the images one by one."""
        return [Read(None, image) for image in self.images]

    def render(self, hosted: Hosted, ticket: Ticket, predictions: Sequence[Prediction]) -> Reply:
        """Return the answer."""
        values: dict[str, tuple[list[int], list[float | None]]] = {}
        count, names = len(predictions), hosted.classifier.class_names
        if PROBABILITIES in self._outputs:
            every = [dict(found.top) for found in predictions]
            flat: list[float | None] = [row[name] for row in every for name in names]
            values[PROBABILITIES] = [count, len(names)], flat
        if OOD_SCORE in self._outputs:
            values[OOD_SCORE] = [count], [finite(found.ood_score) for found in predictions]
        tree: dict[str, Any] = {
            "model_name": hosted.name,
            "model_version": hosted.sha256,
            "outputs": [
                {"name": name, "datatype": "FP32", "shape": shape, "data": data}
                for name, (shape, data) in values.items()
            ],
        }
        if self._id is not None:
            tree["id"] = self._id
        return Reply(200, json.dumps(tree, separators=(",", ":")).encode())


def _parse(content: bytes) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        tree = dict(pairs)
        if len(tree) < len(pairs):
            raise ValueError("a name is given twice in one object")
        return tree

    def no_constant(word: str) -> Any:
        raise ValueError(f"{word} is no number of JSON")

    try:
        return json.loads(content, object_pairs_hook=once, parse_constant=no_constant)
    except RecursionError:
        raise Refused(400, "the JSON is nested too deeply") from None
    except ValueError as error:  # also UnicodeDecodeError, and integers of thousands of digits
        words = " ".join(str(error).split())[:120]
        raise Refused(400, f"the body is not JSON as it is wanted: {words}") from None


def _object(tree: Any, known: set[str], what: str) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise Refused(422, f"{what} is {_kind(tree)}, expected an object")
    if unknown := sorted(set(tree) - known):
        names = ", ".join(sorted(known))
        raise Refused(422, f"{what} has {unknown[0][:40]!a}, expected only {names}")
    return tree


def _no_parameters(tree: dict[str, Any]) -> None:
    if tree.get("parameters") not in (None, {}):
        raise Refused(422, "parameters: this server knows none, such as those of binary data")


def _tensor(given: Any, hosted: Hosted, most: int) -> NDArray[np.uint8]:
    tensor = _object(given, _TENSOR, "the tensor")
    _no_parameters(tensor)
    shape, expected = tensor.get("shape"), list(hosted.classifier.rule.shape)
    if (tensor.get("name"), tensor.get("datatype")) != (INPUT, "UINT8"):
        raise Refused(422, 'the tensor: expected the name "image" and the datatype "UINT8"')
    if not isinstance(shape, list) or not all(type(side) is int for side in shape):
        raise Refused(422, "shape: expected a list of whole numbers")
    if len(shape) != 4 or shape[1:] != expected or shape[0] < 1:
        raise Refused(422, f"shape is {str(shape)[:60]}, expected n images of {expected}")
    if shape[0] > most:
        raise Refused(422, f"{str(shape[0])[:20]} images, expected up to {most}")
    flat = _flat(tensor.get("data"), shape)
    values = np.array(flat, np.int64)
    return values.astype(np.uint8).reshape(shape)


def _flat(data: Any, shape: list[int]) -> list[int]:
    """Return the values of a tensor that is given flat or nested."""
    if not isinstance(data, list):
        raise Refused(422, f"data is {_kind(data)}, expected a list")
    depth = 0
    while data and isinstance(data[0], list) and depth < len(shape) - 1:
        if any(type(row) is not list or len(row) != shape[depth + 1] for row in data):
            raise Refused(422, "data is nested otherwise than shape says")
        data = list(itertools.chain.from_iterable(data))
        depth += 1
    if len(data) != math.prod(shape):
        raise Refused(422, f"data has {len(data)} values, expected {math.prod(shape)}")
    if set(map(type, data)) != {int} or min(data) < 0 or max(data) > 255:
        raise Refused(422, "data: expected whole numbers from 0 to 255")
    found: list[int] = data
    return found


def _wanted(given: Any, known: list[str]) -> list[str]:
    if given is None:
        return known
    if not isinstance(given, list) or not given:
        raise Refused(422, f"outputs: expected a list of {', '.join(known)}")
    names = []
    for each in given:
        output = _object(each, {"name", "parameters"}, "an output")
        _no_parameters(output)
        if output.get("name") not in known:
            raise Refused(422, f"outputs: expected names of {', '.join(known)}")
        names.append(output["name"])
    return names


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return names.get(type(value), "nothing" if value is None else "a number")
