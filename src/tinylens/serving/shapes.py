"""The answers as OpenAPI documents them; nothing is built from these, the tests compare."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tinylens.data.dataset import Aspect


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Error(_Shape):
    """Why a request is not answered as it asks."""

    error: str
    request_id: str


class Model(_Shape):
    """Which model answered."""

    name: str
    sha256: str


class Chance(_Shape):
    """A class and its probability."""

    label: str
    probability: float = Field(ge=0, le=1)


class Finding(_Shape):
    """Something that is odd about an image."""

    kind: str
    message: str
    fixed: bool


class Look(_Shape):
    """Where the model saw its answer: by how much its log-odds fall where the place is covered.

    It lies over the image as the network saw it, which its aspect says how it came about.
    """

    height: int
    width: int
    aspect: Aspect
    values: list[list[float]]


class Result(_Shape):
    """The answer for one image, or its error."""

    name: str | None
    label: str | None
    confidence: float | None
    top: list[Chance]
    unknown: str | None = Field(description="why the label is no answer, or null where it is one")
    ood_score: float | None
    findings: list[Finding]
    seen: str | None
    look: Look | None
    error: str | None


class Answer(_Shape):
    """The answers for the images of a request, in their order."""

    model: Model
    request_id: str
    milliseconds: float
    results: list[Result]


class NoAnswer(_Shape):
    """Why there is no answer; with the error of each image where it was the images' fault."""

    error: str
    request_id: str
    model: Model | None = None
    milliseconds: float | None = None
    results: list[Result] | None = None


class Size(_Shape):
    """The images that a network sees, and what becomes of those of another ratio."""

    height: int
    width: int
    channels: int
    aspect: Aspect


class Served(_Shape):
    """A model that is served."""

    name: str
    sha256: str
    classes: list[str]
    image: Size


class Models(_Shape):
    """The models that are served, the first first."""

    models: list[Served]


class Reloaded(_Shape):
    """A model that was read again from its file."""

    name: str
    sha256: str
    previous: str


class Live(_Shape):
    """Whether the server lives."""

    live: Literal[True]


class Ready(_Shape):
    """Whether it answers."""

    ready: Literal[True]


class Server(_Shape):
    """What the server is."""

    name: str
    version: str
    extensions: list[str]


class TensorOf(_Shape):
    """Name, type and shape of an input or output."""

    name: str
    datatype: str
    shape: list[int]


class Metadata(_Shape):
    """A model as the Open Inference Protocol describes it."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorOf]
    outputs: list[TensorOf]


class ModelReady(_Shape):
    """Whether a model answers."""

    name: str
    ready: Literal[True]


class Tensor(TensorOf):
    """Numbers, row by row."""

    data: list[float | None]


class Inferred(_Shape):
    """An answer of the Open Inference Protocol."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_name: str
    model_version: str
    outputs: list[Tensor]
    id: str | None = None


PARAMETERS: list[dict[str, Any]] = [
    {
        "name": "top",
        "in": "query",
        "description": "how many of the likeliest classes",
        "schema": {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 5},
    },
    {
        "name": "look",
        "in": "query",
        "description": "whether to say where the model looked; of one image, and takes long",
        "schema": {"type": "boolean", "default": False},
    },
    {
        "name": "seen",
        "in": "query",
        "description": "whether to give back the small image that the model saw",
        "schema": {"type": "boolean", "default": False},
    },
    {
        "name": "fix",
        "in": "query",
        "description": "what the input checks may put right: all, kinds with commas, or empty for "
        "nothing; without it, it does not look, and finds nothing",
        "schema": {"type": "string"},
    },
    {
        "name": "model",
        "in": "query",
        "description": "the name of a model, where several are served; the first answers otherwise",
        "schema": {"type": "string", "default": ""},
    },
]
IMAGE = {"schema": {"type": "string", "format": "binary"}}
FORM = {
    "schema": {
        "type": "object",
        "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
        "required": ["file"],
    }
}
IMAGES = {
    "required": True,
    "content": {
        "multipart/form-data": FORM,
        **{f"image/{kind}": IMAGE for kind in ("png", "jpeg", "webp", "bmp", "gif")},
        "application/octet-stream": IMAGE,
    },
}
TENSORS = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["inputs"],
                "additionalProperties": False,
                "properties": {
                    "id": {"type": "string"},
                    "parameters": {"type": "object", "maxProperties": 0},
                    "inputs": {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["name", "shape", "datatype", "data"],
                            "additionalProperties": False,
                            "properties": {
                                "name": {"const": "image"},
                                "shape": {
                                    "type": "array",
                                    "items": {"type": "integer", "minimum": 1},
                                    "minItems": 4,
                                    "maxItems": 4,
                                },
                                "datatype": {"const": "UINT8"},
                                "parameters": {"type": "object", "maxProperties": 0},
                                "data": {"type": "array"},
                            },
                        },
                    },
                    "outputs": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["name"],
                            "properties": {"name": {"enum": ["probabilities", "ood_score"]}},
                        },
                    },
                },
            }
        }
    },
}
