"""Model file format: an ONNX model with a model card and a checksum.

    head   metadata "tinylens": the model card, JSON
    body   the ONNX model
    tail   metadata "tinylens.sha256": SHA-256 of head and body, in hexadecimal

All three are ModelProto messages. Concatenated Protocol Buffers messages merge, so any ONNX reader
sees an ordinary model with two metadata entries, and this module reads the card and verifies the
hash without a library. The hash detects damage, not tampering.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinylens.data.images import ImageRule
from tinylens.errors import DataError, ModelError
from tinylens.inference.drift import Reference as DriftReference
from tinylens.inference.input_checks.reference import Reference as InputReference
from tinylens.inference.selective_prediction import ANSWERS_ALWAYS, SelectivePrediction

SCHEMA = 2  # of the model card; raised when a key changes its name or meaning
LARGEST_FILE = 2**31 - 1  # bytes; a Protocol Buffers message cannot be larger
TOLERANCE = 1e-4  # between probabilities of the same network in two libraries
# the same for a network in 8-bit integers: processors may round a sum up or down, and a value of
# 256 steps is then off by one; a processor that saturates where others do not is further off
INTEGER_TOLERANCE = 0.05
FLOATS, INTEGERS = "float32", "int8"
DEEPEST_NESTING = 64  # messages in messages; Protocol Buffers' own readers stop at 100

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5  # how a field is stored
_METADATA_FIELD, _GRAPH_FIELD = 14, 7  # of ModelProto

# Where tensors can be in a ModelProto: kind of message → number of a field → kind of its content.
_CONTENTS = {
    "model": {_GRAPH_FIELD: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse",
        23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA_FIELDS = (13, 14)  # of TensorProto: where the numbers are, if in another file


@dataclass(frozen=True, eq=False)
class GoldenSamples:
    """Sample images with the exported network's probabilities.

    Attributes:
        images: uint8, shape (n, height, width, channels).
        probabilities: float32, shape (n, classes).
    """

    images: NDArray[np.uint8]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class ModelCard:
    """Model card stored in a model file.

    Attributes:
        class_names: Class names in output order.
        rule: Preprocessing rule.
        network: Network name in the recipe.
        dataset: Description of the training data.
        fingerprint: SHA-256 of the dataset.
        created: UTC, such as "2026-05-04T03:02:01Z".
        tinylens: the version that wrote the file.
        temperature: what the logits are divided by, already in the file (Guo et al. 2017).
        input_checks: what the training images are like, for the input checks, or None.
        curvature: how much more than a temperature was needed, likewise; see
            `metrics.fit_curvature`.
        precision: what it computes in: "float32", or "int8" after calibration on train.
        reference: what its images looked like, to notice when others come; see
            `tinylens.inference.drift`. None where that is not known.
        chosen_on: the part of the data that the temperature was chosen on, or "" for none.
        selective: when not to answer.
        golden: images with their answers, or None before export.

    Raises:
        DataError: fewer than two class names, an empty one, or one given twice.
    """

    class_names: tuple[str, ...]
    rule: ImageRule
    network: str
    dataset: str
    fingerprint: str
    created: str
    tinylens: str
    temperature: float = 1.0
    chosen_on: str = ""
    selective: SelectivePrediction = ANSWERS_ALWAYS
    golden: GoldenSamples | None = None
    curvature: float = 0.0
    precision: str = FLOATS
    input_checks: InputReference | None = None
    reference: DriftReference | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(self.class_names))
        twins = sorted({name for name in self.class_names if self.class_names.count(name) > 1})
        if twins:
            raise DataError(f"class names given twice: {', '.join(twins)}; rename one")
        if len(self.class_names) < 2 or not all(self.class_names):
            raise DataError(f"class names {self.class_names}, expected two or more, none empty")

    @property
    def tolerance(self) -> float:
        """Allowed difference from the golden probabilities on any machine."""
        return INTEGER_TOLERANCE if self.precision == INTEGERS else TOLERANCE

    def to_json(self) -> dict[str, Any]:
        """Return the card as JSON values; arrays as base64 of their little-endian bytes."""
        golden = self.golden and {
            "images": _array_to_json(self.golden.images),
            "probabilities": _array_to_json(self.golden.probabilities),
        }
        return {
            "schema": SCHEMA,
            "tinylens": self.tinylens,
            "created": self.created,
            "network": self.network,
            "precision": self.precision,
            "class_names": list(self.class_names),
            "image": self.rule.to_json(),
            "calibration": {
                "temperature": self.temperature,
                "curvature": self.curvature,
                "chosen_on": self.chosen_on,
            },
            "selective": self.selective.to_json(),
            "input_checks": self.input_checks and self.input_checks.to_json(),
            "data": {"name": self.dataset, "fingerprint": self.fingerprint},
            "reference": self.reference and self.reference.to_json(),
            "golden": golden,
        }

    @staticmethod
    def from_json(tree: Mapping[str, Any]) -> ModelCard:
        """Return the card that `to_json` wrote.

        Raises:
            ModelError: written by a newer tinylens in a way that this one cannot read, or not
                written by tinylens.
        """
        try:
            if tree["schema"] > SCHEMA:
                raise ModelError(
                    f"the model card has schema {tree['schema']} and this tinylens reads up to "
                    f"{SCHEMA}; needs tinylens ≥ {tree['tinylens']}: "
                    f"pip install -U 'tinylens>={tree['tinylens']}'"
                )
            if tree["schema"] < SCHEMA:
                raise ModelError(
                    f"the model card has schema {tree['schema']}, expected {SCHEMA}: tinylens "
                    f"{tree['tinylens']} wrote it before keys changed; train or export it again"
                )
            golden, known = tree["golden"], tree["reference"]
            return ModelCard(
                class_names=tuple(str(name) for name in tree["class_names"]),
                rule=ImageRule.from_json(tree["image"]),
                network=str(tree["network"]),
                dataset=str(tree["data"]["name"]),
                fingerprint=str(tree["data"]["fingerprint"]),
                created=str(tree["created"]),
                tinylens=str(tree["tinylens"]),
                temperature=float(tree["calibration"]["temperature"]),
                curvature=float(tree["calibration"]["curvature"]),
                precision=str(tree["precision"]),
                chosen_on=str(tree["calibration"]["chosen_on"]),
                selective=SelectivePrediction.from_json(tree["selective"]),
                input_checks=InputReference.from_json(tree["input_checks"]),
                reference=known and DriftReference.from_json(known),
                golden=golden
                and GoldenSamples(
                    _array_from_json(golden["images"], np.uint8),
                    _array_from_json(golden["probabilities"], np.float32),
                ),
            )
        except DataError as error:
            raise ModelError(f"the model card is wrong: {error}") from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"the model card is incomplete: {error!r}") from None


def model_file(path: str | os.PathLike[str]) -> Path:
    """Resolve the path of a model file or a run to a model file."""
    file = Path(path)
    if file.is_dir():
        from tinylens.run import Run  # its settings library would be a tenth of the start-up

        file = Run(file).model
    return file


def read_model(path: Path) -> bytes:
    """Read a model file.

    Raises:
        ModelError: there is none, it is too large or cannot be read.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise ModelError(f"{path} has {size} bytes, expected at most {LARGEST_FILE}")
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelError(
            f"no model file {path}; `tinylens train DATASET` writes one into its run's folder"
        ) from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None


def seal(card: ModelCard, body: bytes) -> bytes:
    """Serialize a model file: card, ONNX model `body` and their hash."""
    text = json.dumps(card.to_json(), separators=(",", ":"))
    content = _metadata("tinylens", text.encode("ascii")) + body
    return content + _tail(content)


def unseal(content: bytes, name: str) -> ModelCard:
    """Verify a model file and return its card.

    Args:
        content: Whole file.
        name: File name for errors.

    Raises:
        ModelError: the file is cut short, changed, not ONNX, not from tinylens, from a newer
            tinylens, or keeps its weights in other files.
    """
    _check_hash(content, name)
    try:
        number, entry = next(_fields(memoryview(content)))
        key, text = (bytes(value) for _, value in _fields(entry))
        _check_no_external_data(memoryview(content))
        if number != _METADATA_FIELD or key != b"tinylens":
            raise ModelError(f"{name} does not begin with a model card; export it again")
        return ModelCard.from_json(json.loads(text))
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from None
    except (ValueError, TypeError) as error:
        raise ModelError(f"{name} is not a whole ONNX file: {error}") from None


def _check_hash(content: bytes, name: str) -> None:
    empty_tail = _metadata("tinylens.sha256", b"0" * 64)
    end = len(content) - len(empty_tail)
    if content[end:-64] == empty_tail[:-64]:
        expected = _tail(content[:end])[-64:]
        if content[-64:] != expected:
            raise ModelError(
                f"{name} was changed after it was written: its content has SHA-256 "
                f"{expected[:12].decode()}…, recorded is {content[-64:-52]!r}…; copy it again from "
                "where it was made, or train again"
            )
    elif b"\x0a\x08tinylens\x12" in content[:20]:
        raise ModelError(
            f"{name} is cut short or was added to: its {len(content)} bytes do not end with their "
            "SHA-256; copy it again from where it was made, or train again"
        )
    elif _is_onnx(content):
        raise ModelError(
            f"{name} is an ONNX file, but not one that tinylens wrote: it has no class names and "
            "no rule for images; expected the model.onnx of a run"
        )
    else:
        raise ModelError(
            f"{name} is not a model file: {len(content)} bytes that start with {content[:8]!r}; "
            "expected the model.onnx of a run"
        )


def _is_onnx(content: bytes) -> bool:
    try:
        return any(number == _GRAPH_FIELD for number, _ in _fields(memoryview(content)))
    except ValueError:
        return False


def _check_no_external_data(message: memoryview, kind: str = "model", depth: int = 0) -> None:
    """Reject external weights: such a model could read any path."""
    if depth > DEEPEST_NESTING:
        raise ModelError("graphs in graphs without end; expected a classifier")
    for number, value in _fields(message):
        if kind == "tensor" and number in _EXTERNAL_DATA_FIELDS and value:
            raise ModelError("keeps weights in other files; expected all weights in this one")
        content = _CONTENTS[kind].get(number)
        if content and isinstance(value, memoryview):
            _check_no_external_data(value, content, depth + 1)


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Yield (field number, value) of a message: int for varints, else memoryview.

    Raises:
        ValueError: the bytes are not a Protocol Buffers message.
    """
    place = 0
    while place < len(message):
        tag, place = _read_varint(message, place)
        stored = tag & 7
        if stored == _VARINT:
            value, place = _read_varint(message, place)
            yield tag >> 3, value
            continue
        if stored == _BYTES:
            length, place = _read_varint(message, place)
        elif stored in (_EIGHT_BYTES, _FOUR_BYTES):
            length = 8 if stored == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"no field can start with {tag} at byte {place}")
        if place + length > len(message):
            raise ValueError(f"a field of {length} bytes at byte {place} of {len(message)}")
        yield tag >> 3, message[place : place + length]
        place += length


def _read_varint(message: memoryview, place: int) -> tuple[int, int]:
    """Decode a varint; return it and the next offset."""
    number = 0
    for digit in range(10):  # 64 bits
        if place + digit >= len(message):
            break
        number |= (message[place + digit] & 0x7F) << (7 * digit)
        if message[place + digit] < 0x80:
            return number, place + digit + 1
    raise ValueError(f"no whole number at byte {place}")


def _write_varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])


def _field(number: int, value: bytes) -> bytes:
    return _write_varint(number << 3 | _BYTES) + _write_varint(len(value)) + value


def _metadata(key: str, value: bytes) -> bytes:
    """Serialize a ModelProto with a single metadata entry."""
    return _field(_METADATA_FIELD, _field(1, key.encode()) + _field(2, value))


def _tail(content: bytes) -> bytes:
    return _metadata("tinylens.sha256", hashlib.sha256(content).hexdigest().encode())


def _array_to_json(array: NDArray[Any]) -> dict[str, Any]:
    little_endian = array.astype(array.dtype.newbyteorder("<"))
    data = base64.b64encode(little_endian.tobytes()).decode()
    return {"shape": list(array.shape), "data": data}


def _array_from_json(tree: Mapping[str, Any], dtype: type[np.generic]) -> NDArray[Any]:
    data = base64.b64decode(tree["data"], validate=True)
    little_endian = np.dtype(dtype).newbyteorder("<")
    return np.frombuffer(data, little_endian).reshape(tree["shape"]).astype(dtype)
