"""The body of a trained network in a new one: its statistics, its weights, the order of layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from tinylens.errors import ModelError
from tinylens.layers import use_weights

HEAD, NORMALIZE = "logits", "normalize"
CHOSEN_BY_STEP = {"counter"}  # weights of training alone, which what ships does not have


def statistics(source: keras.Model) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel that a network normalizes by."""
    layer = source.get_layer(NORMALIZE)
    scale, offset = np.atleast_1d(layer.scale), np.atleast_1d(layer.offset)
    std = 1 / scale.astype(np.float64)
    return tuple((-offset * std).tolist()), tuple(std.tolist())


def take(
    network: keras.Model,
    source: keras.Model,
    kernel: NDArray[np.float32],
    bias: NDArray[np.float32] | None,
) -> None:
    """Put the weights of a body, norms' running statistics among them, and a head into a network.

    Args:
        network: as a builder made it.
        source: of the same builder and options, opened from a model.keras.
        kernel: of the head, shape (features, classes).
        bias: of the head, shape (classes,); None where it has none.

    Raises:
        ModelError: they are not of the same build.
    """
    ours, theirs = list(_weighted(network)), list(_weighted(source))
    fits = len(ours) == len(theirs)
    if not fits or any(_shapes(a) != _shapes(b) for a, b in zip(ours, theirs, strict=True)):
        raise ModelError(
            f"the body of {source.name} does not fit the network {network.name} that its recipe "
            "builds; train the source again with this version"
        )
    for target, origin in zip(ours, theirs, strict=True):
        values = {variable.name: variable for variable in origin.weights}
        for variable in target.weights:
            variable.assign(keras.ops.convert_to_numpy(values[variable.name]))
        use_weights(target)
    network.get_layer(HEAD).set_weights([kernel] if bias is None else [kernel, bias])


def rates(network: keras.Model, top: float, decay: float) -> list[float]:
    """Return the learning rate of each trainable variable, as a multiple of the head's.

    The deeper a layer lies below the head, the less it is changed: what it has learnt is the more
    general (Howard & Ruder 2018, arXiv:1801.06146, "discriminative fine-tuning"). A norm has the
    rate of the convolution before it.

    Args:
        network: Functional, its last layer the head.
        top: of the layer below the head.
        decay: of each layer below that, from the one above it.
    """
    depths: list[int | None] = []
    depth = 0
    for layer in network.layers:
        trained = layer.trainable_variables
        depth += any(len(variable.shape) > 1 for variable in trained)
        depths += [None if layer.name == HEAD else depth for _ in trained]
    last = max((each for each in depths if each is not None), default=0)
    return [1.0 if each is None else top * decay ** (last - each) for each in depths]


def _weighted(network: keras.Model) -> Iterator[Any]:
    """Yield the layers of a body that have weights, from below."""
    for layer in network.layers:
        if layer.name != HEAD and _shapes(layer):
            yield layer


def _shapes(layer: Any) -> dict[str, tuple[int, ...]]:
    return {
        variable.name: tuple(variable.shape)
        for variable in layer.weights
        if variable.name not in CHOSEN_BY_STEP
    }
