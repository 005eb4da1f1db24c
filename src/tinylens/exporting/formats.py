"""Export formats: names, files and what each one needs."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tinylens.errors import MissingExtra, RecipeError, did_you_mean


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        name: what a user types.
        file: the file or folder that it is exported to.
        integers: whether it computes in 8-bit integers, so that answers differ a little.
        writes_with: modules that must be there to write it.
        runs_with: modules that must be there to run it.
        extra: what to install for both.
    """

    name: str
    file: str
    integers: bool
    writes_with: tuple[str, ...]
    runs_with: tuple[str, ...]
    extra: str


FORMATS: dict[str, Format] = {
    each.name: each
    for each in (
        Format("onnx", "model.onnx", False, (), ("onnxruntime",), "train"),
        Format("onnx-int8", "model-int8.onnx", True, ("onnx",), ("onnxruntime",), "train"),
        Format(
            "litert", "model.tflite", False, ("tensorflow",), ("ai_edge_litert",), "train,litert"
        ),
        Format(
            *("litert-int8", "model-int8.tflite", True),
            *(("tensorflow",), ("ai_edge_litert",), "train,litert"),
        ),
        Format("saved-model", "saved-model", False, ("tensorflow",), ("tensorflow",), "train"),
        Format("openvino", "openvino", False, ("openvino",), ("openvino",), "openvino"),
        Format("keras", "model.keras", False, ("keras",), ("keras",), "train"),
    )
}
ALL = "all"
WEB = "web"  # a page around model.onnx, and no file that answers by itself


def requested(names: Sequence[str]) -> list[Format]:
    """Return the formats with these names, each once, in the table's order; "all" means all.

    Raises:
        RecipeError: there is no such format.
    """
    for name in names:
        if name not in FORMATS and name != ALL:
            raise RecipeError(
                f"--format {name}: no such format{did_you_mean(name, [*FORMATS, WEB])}; expected "
                f"{', '.join(FORMATS)}, {WEB} or {ALL}"
            )
    return [each for each in FORMATS.values() if ALL in names or each.name in names]


def check_installed(formats: Iterable[Format], *, writing: bool) -> None:
    """Raise a MissingExtra that names all that is not installed for running or writing formats."""
    missing: dict[str, list[str]] = {}
    for each in formats:
        needed = {*each.runs_with, *(each.writes_with if writing else ())}
        if absent := sorted(name for name in needed if not importlib.util.find_spec(name)):
            missing.setdefault(each.extra, []).append(f"{each.name} needs {' and '.join(absent)}")
    if missing:
        extras = ",".join(dict.fromkeys(",".join(missing).split(",")))
        words = "; ".join(line for lines in missing.values() for line in lines)
        raise MissingExtra(f"{words}; type: pip install 'tinylens[{extras}]'")
