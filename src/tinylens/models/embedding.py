"""What a trained network sees in an image: the input of its last layer."""

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
    """Features of images.

    Args:
        path: a model.keras that tinylens wrote.

    Attributes:
        biased: whether that last layer adds a bias.

    Raises:
        ModelError: it cannot be opened, or has no layer called "logits".
    """

    def __init__(self, path: Path) -> None:
        network = open_network(path)
        self.biased: bool = network.get_layer("logits").use_bias
        self._features = keras.Model(network.input, network.get_layer("logits").input)
        self._batch = batch_for(self._features)

    def __call__(self, images: Images) -> NDArray[np.float32]:
        """Return the features of uint8 images, float32, shape (n, features)."""
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
    """Return how many images a network is to answer at once, so that no layer fills the memory.

    >>> pixels = keras.Input((256, 256, 3))
    >>> batch_for(keras.Model(pixels, keras.layers.Conv2D(64, 3, padding="same")(pixels)))
    16
    """
    largest = max(int(math.prod(layer.output.shape[1:])) for layer in network.layers)
    return max(min(most, MOST_VALUES // largest), 1)


def open_network(path: Path) -> keras.Model:
    """Return the network in a model.keras that ends in the layer called "logits".

    Of a mean over views it is the network that sees each of them.

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
    """Yield a model's own graph and those within it, as a mean over views has."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _networks(layer)
    yield model


def _has_logits(model: Any) -> bool:
    return any(layer.name == "logits" for layer in model.layers)
