"""Where in an image a Keras network sees a class: Grad-CAM, on every backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from tinylens.data.dataset import Images, Labels
from tinylens.errors import DataError, ModelError
from tinylens.heatmaps import Heatmaps, Line, highest_one, upsampled

BATCH = 100

Progress = Callable[[int, int], None]


class GradCam:
    """Heatmaps of what speaks for a class (Selvaraju et al. 2017, arXiv:1610.02391).

    The channels of the last layer that still has places, each weighed by the mean gradient of the
    class's logit and added up; what is below 0 speaks against the class and is left out. The sum
    is linear between the pixels that its places look at, the middles of their receptive fields:
    pools that leave out a last row, or convolutions without a border, move those up and left.

    Args:
        network: from uint8 images, shape (n, height, width, channels), to logits, in a layer
            called "logits"; `embedding.open_network` returns one. It is used, not copied.

    Attributes:
        layer: the name of the layer whose channels are added up.
        places: the height and width of its maps.
        flattened: whether the network flattens maps before it answers. One mean weight a channel,
            for all places, then says little: what speaks for a class in one place speaks against it
            in another (Draelos and Carin 2020, arXiv:2011.08891).

    Raises:
        ModelError: there is no such layer, or none before it has places.
    """

    def __init__(self, network: keras.Model) -> None:
        outputs = _outputs(network)
        if "logits" not in outputs:
            raise ModelError(
                f"the network {network.name} has no layer called logits; expected one, with the "
                "class scores before the softmax"
            )
        self.layer = _last_with_places(outputs, network.name)
        images, maps, logits = network.inputs[0], outputs[self.layer], outputs["logits"]
        self.places: tuple[int, int] = tuple(maps.shape[1:3])
        self.flattened = any(
            isinstance(layer, keras.layers.Flatten) and max(layer.input.shape[1:3]) > 1
            for layer in network.layers
        )
        height, width = images.shape[1:3]
        self._grid = (_line(maps, 0, height), _line(maps, 1, width))
        self._maps = keras.Model(images, maps)
        # the image goes in too: a branch may pass by the maps
        self._head = keras.Model([images, maps], logits)
        self._classes: int = logits.shape[-1]
        self._gradients = _GRADIENTS[keras.backend.backend()]

    def __call__(
        self, images: Images, labels: Labels, progress: Progress | None = None
    ) -> Heatmaps:
        """Return one heatmap an image, float32, shape (n, height, width), its largest value 1.

        Where nothing speaks for the class it is 0 everywhere.

        Args:
            images: uint8, shape (n, height, width, channels).
            labels: the class that is asked about, of each image, int64, shape (n,).
            progress: called with images done and images in all.

        Raises:
            DataError: labels do not fit the images or the network's classes.
        """
        _check(labels, len(images), self._classes)
        heats = np.empty(images.shape[:3], np.float32)
        for start in range(0, len(images), BATCH):
            batch = slice(start, start + BATCH)
            coarse = self._coarse(images[batch], labels[batch])
            heats[batch] = highest_one(upsampled(coarse, images.shape[1:3], self._grid))
            if progress:
                progress(min(start + BATCH, len(images)), len(images))
        return heats

    def _coarse(self, images: Images, labels: Labels) -> NDArray[np.float64]:
        """Return the weighed sums of the maps, in the maps' own size."""
        samples = ops.convert_to_tensor(np.ascontiguousarray(images))
        requested = ops.one_hot(ops.convert_to_tensor(labels), self._classes, dtype="float32")
        maps = self._maps(samples, training=False)

        def spoken(maps: Any) -> Any:
            return ops.sum(self._head([samples, maps], training=False) * requested)

        gradients = self._gradients(spoken, maps)
        weights = _array(gradients).mean(axis=(1, 2))
        sums: NDArray[np.float64] = np.einsum("nhwc,nc->nhw", _array(maps), weights)
        return np.maximum(sums, 0.0)


def _outputs(network: keras.Model) -> dict[str, Any]:
    """Return the output of each layer in a network, in order; of one used twice, the last one."""
    network = getattr(network, "_functional", network)  # what a Sequential model is made of
    by_depth = network._nodes_by_depth  # the inputs are deepest
    nodes = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    computed = [node for node in nodes if not node.is_input]
    return {node.operation.name: node.outputs[0] for node in computed}


def _last_with_places(outputs: Mapping[str, Any], name: str) -> str:
    """Return the last layer whose output has more than one row and more than one column."""
    found = [
        layer
        for layer, output in outputs.items()
        if len(output.shape) == 4 and None not in output.shape[1:] and min(output.shape[1:3]) > 1
    ]
    if not found:
        raise ModelError(
            f"the network {name} has no layer with places, of a fixed shape (height, width, "
            "channels), so nothing can be said of where it looks; expected a convolutional network"
        )
    return found[-1]


# --- which pixels a place looks at


def _line(maps: Any, axis: int, size: int) -> Line:
    """Return where the places of maps lie in the image.

    Args:
        maps: a tensor of a Functional model.
        axis: 0 for rows, 1 for columns.
        size: of the image along that axis, in pixels.
    """
    first, step = 0.0, 1.0
    while True:
        layer, number, _ = maps._keras_history
        if isinstance(layer, keras.layers.InputLayer):
            return Line(first, step)
        node = layer._inbound_nodes[number]
        sources = [each for each in node.input_tensors if len(each.shape) == 4]
        # of those that are added or multiplied, one value a channel says nothing of places
        source = max(sources, key=lambda each: int(each.shape[1 + axis]), default=None)
        old = size if source is None else source.shape[1 + axis]
        own = _first_and_step(layer, axis, old, maps.shape[1 + axis])
        first, step = own[0] + own[1] * first, own[1] * step
        if source is None:  # places made of something without: they share the image evenly
            return Line(first, step)
        maps = source


def _first_and_step(layer: Any, axis: int, size: int, new: int) -> tuple[float, float]:
    """Return where the `new` places of one layer lie among the `size` of its input."""
    if isinstance(layer, keras.Model):
        within = _line(layer.outputs[0], axis, size)
        return within.first, within.step
    if isinstance(layer, keras.layers.ZeroPadding2D):
        return -layer.padding[axis][0], 1.0
    if isinstance(layer, keras.layers.Cropping2D):
        return layer.cropping[axis][0], 1.0
    window = getattr(layer, "pool_size", getattr(layer, "kernel_size", None))
    if window is None or new > size:
        return (size / new - 1) / 2, size / new  # stretched evenly, or not at all
    reach = (window[axis] - 1) * getattr(layer, "dilation_rate", (1, 1))[axis] + 1
    step = layer.strides[axis]
    added = max((new - 1) * step + reach - size, 0) if layer.padding == "same" else 0
    return (reach - 1) / 2 - added // 2, step


def _check(labels: Labels, count: int, classes: int) -> None:
    if labels.shape != (count,) or (count and not 0 <= labels.min() <= labels.max() < classes):
        raise DataError(
            f"{count} images, and labels of shape {labels.shape} from "
            f"{labels.min(initial=0)} to {labels.max(initial=0)}; expected one an image, from 0 "
            f"to {classes - 1}"
        )


def _array(tensor: Any) -> NDArray[np.float64]:
    return np.asarray(ops.convert_to_numpy(tensor), np.float64)


# --- the gradient of a number by a tensor; Keras has no call for it that all backends share


def _by_tensorflow(function: Callable[[Any], Any], tensor: Any) -> Any:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(tensor)
        value = function(tensor)
    return tape.gradient(value, tensor)


def _by_jax(function: Callable[[Any], Any], tensor: Any) -> Any:
    import jax

    return jax.grad(function)(tensor)


def _by_torch(function: Callable[[Any], Any], tensor: Any) -> Any:
    import torch

    leaf = tensor.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(function(leaf), leaf)
    return gradient


_GRADIENTS = {"tensorflow": _by_tensorflow, "jax": _by_jax, "torch": _by_torch}
