"""Image embeddings: penultimate-layer features of a trained network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from tinylens.data.dataset import Images
from tinylens.errors import ModelError

BATCH = 500
MOST_VALUES = 2**26  # of one layer for one batch: 256 MiB of float32


class Embedding:
    """Feature extractor of a trained network.

    Args:
        path: model.keras file written by tinylens.

    Attributes:
        biased: Whether the last layer has a bias.

    Raises:
        ModelError: it cannot be opened, or has no layer called "logits".
    """

    def __init__(self, path: Path) -> None:
        network = open_network(path)
        self.biased: bool = network.get_layer("logits").use_bias
        self._features = keras.Model(network.input, network.get_layer("logits").input)
        self._batch = batch_for(self._features)

    def __call__(self, images: Images) -> NDArray[np.float32]:
        """Extract features of uint8 images, float32, shape (n, features)."""
        parts = [
            np.asarray(
                keras.ops.convert_to_numpy(
                    self._features.predict_on_batch(images[start : start + self._batch])
                ),
                np.float32,
            )
            for start in range(0, len(images), self._batch)
        ]
        return np.concatenate(parts).reshape(len(images), -1)


def batch_for(network: keras.Model, most: int = BATCH) -> int:
    """Return a batch size that bounds the memory of the largest layer.

    >>> pixels = keras.Input((256, 256, 3))
    >>> batch_for(keras.Model(pixels, keras.layers.Conv2D(64, 3, padding="same")(pixels)))
    16
    """
    largest = max(int(math.prod(layer.output.shape[1:])) for layer in network.layers)
    return max(min(most, MOST_VALUES // largest), 1)


def open_network(path: Path) -> keras.Model:
    """Load the network of a model.keras that ends in the layer "logits".

    With test-time augmentation, the network inside the average.

    Raises:
        ModelError: the file cannot be opened, or has no such layer.
    """
    try:
        model = keras.saving.load_model(path, compile=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be opened by Keras: {error}") from None
    network = next((each for each in _networks(model) if _has_logits(each)), None)
    if network is None:
        raise ModelError(
            f"{path} has no layer called logits, whose input are the features; expected a "
            "model.keras that tinylens wrote"
        )
    return network


def _networks(model: Any) -> Iterator[Any]:
    """Yield a model's graph and its nested models."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _networks(layer)
    yield model


def _has_logits(model: Any) -> bool:
    return any(layer.name == "logits" for layer in model.layers)
