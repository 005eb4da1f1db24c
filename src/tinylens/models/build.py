"""Network registry, and conversion of trained networks for export.

A builder returns a Functional model from pixel values (0 to 255, uint8 or float) to logits, with
normalization as its first layer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
from pydantic import TypeAdapter, ValidationError

from tinylens import files
from tinylens.errors import RecipeError, did_you_mean
from tinylens.models.airbench import whitened
from tinylens.models.averaging import averaged, mean_logits
from tinylens.models.classic import classic
from tinylens.models.layers import plain, use_weights
from tinylens.models.pretrained import backbone
from tinylens.models.resnet import resnet20
from tinylens.models.spec import NetworkShape


def save(network: keras.Model, path: Path) -> None:
    """Save a network atomically; Keras itself writes in place."""
    temporary = files.temporary_beside(path)
    try:
        network.save(temporary)
        files.fsync_file(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    files.fsync_folder(path.parent)


LOG_PROBABILITIES = "log_probabilities"  # a layer of what ships, behind the logits

BUILDERS: dict[str, Callable[..., keras.Model]] = {
    "backbone": backbone,
    "classic": classic,
    "resnet20": resnet20,
    "whitened": whitened,
}


def build_network(name: str, shape: NetworkShape, options: Mapping[str, Any]) -> keras.Model:
    """Build the network `name`, initialized from `shape.seed`.

    Uses the dtype policy set at build time; logits are float32.

    Raises:
        RecipeError: no such network, or options that it does not take; all mistakes at once.
    """
    check_options(name, options)
    return BUILDERS[name](shape, **options)


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Validate a network's name and options; the RecipeError lists all mistakes."""
    if name not in BUILDERS:
        raise RecipeError(
            f"model.name: no network {name!r}{did_you_mean(name, BUILDERS)}; "
            f"choose from {', '.join(BUILDERS)}"
        )
    signature = inspect.signature(BUILDERS[name], eval_str=True)
    known = {key: item for key, item in signature.parameters.items() if key != "shape"}
    mistakes = [
        f"model.options.{key}: {name} has no such option{did_you_mean(key, known)}; "
        f"it has {', '.join(known)}"
        for key in options
        if key not in known
    ]
    for key in options.keys() & known.keys():
        try:
            # strict: the value goes to the builder as it is, so "16" must not pass as 16
            TypeAdapter(known[key].annotation).validate_python(options[key], strict=True)
        except ValidationError as error:
            described = error.errors()[0]["msg"].removeprefix("Value error, ")
            reason = described.removeprefix("Input should be ")
            mistakes.append(f"model.options.{key}: expected {reason}, got {options[key]!r}")
    if mistakes:
        raise RecipeError("\n  ".join(["the recipe has mistakes:", *sorted(mistakes)]))


def defaults(name: str) -> dict[str, Any]:
    """Return the default options of the network `name`."""
    parameters = inspect.signature(BUILDERS[name]).parameters.values()
    return {each.name: each.default for each in parameters if each.name != "shape"}


def ship(
    network: keras.Model, temperature: float = 1.0, tta_views: int = 1, curvature: float = 0.0
) -> keras.Model:
    """Build the export model: plain float32 Keras layers, uint8 images to probabilities.

    Args:
        network: a trained network from `build`.
        temperature: what the logits are divided by (Guo et al. 2017); it goes into the weights of
            the last dense layer, so no reader of the model can leave it out.
        tta_views: of each image whose logits are averaged; see `tinylens.models.averaging`.
        curvature: how much more than a temperature is needed; see `tinylens.metrics.fit_curvature`.
            Where it is not 0, it and the temperature go behind the logits instead of into the
            weights.
    """
    images = keras.Input(network.input_shape[1:], dtype="uint8", name="image")
    # clone_model would build anew in the policy that is set: `plain` says float32 for each layer
    copy = keras.models.clone_model(network, input_tensors=images, clone_function=plain)
    for source, target in zip(network.layers, copy.layers, strict=True):
        weights = {variable.name: variable.numpy() for variable in source.weights}
        target.set_weights([weights[variable.name] for variable in target.weights])
        use_weights(target)
    last = copy.layers[-1]
    if not curvature:
        last.set_weights([values / temperature for values in last.get_weights()])
    softmax = keras.layers.Softmax(dtype="float32", name="probabilities")
    answered = copy if tta_views == 1 else averaged(copy, tta_views)
    logits = _curved(answered.output, temperature, curvature) if curvature else answered.output
    return keras.Model(answered.input, softmax(logits), name=network.name)


def ship_ensemble(
    members: Sequence[keras.Model], temperature: float = 1.0, curvature: float = 0.0
) -> keras.Model:
    """Build an ensemble with calibrated mean probabilities.

    Args:
        members: Models from `ship` with equal classes and image sizes; layers are shared, not
            copied.
        temperature: Temperature of the log mean probabilities.
        curvature: as for `ship`.
    """
    mean = mean_logits(members)
    logits = keras.layers.Rescaling(1 / temperature, dtype="float32", name="logits")(mean.output)
    if curvature:
        logits = _curved(mean.output, temperature, curvature)
    softmax = keras.layers.Softmax(dtype="float32", name="probabilities")
    return keras.Model(mean.input, softmax(logits), name="ensemble")


def _curved(logits: Any, temperature: float, curvature: float) -> Any:
    """Return u · (1 - bend - bend · u) / temperature of the log probabilities u."""
    straight = keras.layers.Activation("log_softmax", dtype="float32", name=LOG_PROBABILITIES)
    u = straight(logits)
    slope = keras.layers.Rescaling(
        -curvature / temperature,
        offset=(1 - curvature) / temperature,
        dtype="float32",
        name="slope",
    )
    return keras.layers.Multiply(dtype="float32", name="bent")([u, slope(u)])
