"""Pretrained keras.applications backbones for transfer learning."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import keras
import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from tinylens.errors import ModelError, RecipeError, did_you_mean
from tinylens.models.layers import HostHeUniform, use_weights
from tinylens.models.spec import NetworkShape, logits

HEAD, NORMALIZE = "logits", "normalize"
CHOSEN_BY_STEP = {"counter"}  # weights of training alone, which what ships does not have


def statistics(source: keras.Model) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the channel means and standard deviations of a network's normalization."""
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
    """Copy backbone weights, including norm statistics, and a head into a network.

    Args:
        network: Freshly built network.
        source: Network of the same builder and options, loaded from a model.keras.
        kernel: Head kernel, shape (features, classes).
        bias: Head bias, shape (classes,), or None.

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
    """Compute layer-wise learning-rate multipliers, relative to the head.

    Discriminative fine-tuning (Howard & Ruder 2018, arXiv:1801.06146): early layers are more
    general and change less. A norm shares the rate of the convolution before it.

    Args:
        network: Functional model, its last layer the head.
        top: Multiplier of the layer below the head.
        decay: Factor per further layer below.
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
    """Yield the weighted layers of a backbone, from the input."""
    for layer in network.layers:
        if layer.name != HEAD and _shapes(layer):
            yield layer


def _shapes(layer: Any) -> dict[str, tuple[int, ...]]:
    return {
        variable.name: tuple(variable.shape)
        for variable in layer.weights
        if variable.name not in CHOSEN_BY_STEP
    }


SIDE = 96  # pixels; they were trained on 224, and hardly tell anything apart on 32
MOST_TIMES = 16
MOMENTUM = 0.9  # of the norms' averages: theirs, 0.99 and more, lag behind a short training
# ConvNeXt's blocks are models within the model, whose layers Keras's cloning does not reach
LEFT_OUT = ("ConvNeXt",)


def architectures() -> dict[str, Callable[..., keras.Model]]:
    """Return the keras.applications architectures by name."""
    return {
        name: made
        for name, made in sorted(vars(keras.applications).items())
        if name[:1].isupper() and not name.startswith(LEFT_OUT)
    }


def _known(architecture: str) -> str:
    if architecture not in architectures():
        near = did_you_mean(architecture, architectures())
        raise ValueError(f"one of {', '.join(architectures())}{near}")
    return architecture


Architecture = Annotated[
    str, AfterValidator(_known), Field(json_schema_extra={"enum": [*architectures()]})
]


def backbone(
    shape: NetworkShape,
    *,
    architecture: Architecture = "MobileNetV2",
    times: Annotated[int, Field(ge=0, le=MOST_TIMES)] = 0,
) -> keras.Model:
    """Build a keras.applications backbone with a new head, initialized from the seed.

    Uses the architecture's own preprocessing; grey images become three channels.

    Args:
        shape: Network shape.
        architecture: Name in keras.applications.
        times: Upscaling factor of the images; 0 chooses one that gives at least 96 pixels.

    Raises:
        RecipeError: images too small for it.
    """
    pixels = keras.Input(shape.image_shape, name="image")
    x = pixels if shape.image_shape[2] == 3 else keras.layers.Concatenate()([pixels] * 3)
    scale, offset = preprocessing(architecture)
    x = keras.layers.Rescaling(scale.tolist(), offset.tolist(), name="normalize")(x)
    factor = times or times_of(shape.image_shape)
    if factor > 1:
        x = keras.layers.UpSampling2D(factor, interpolation="bilinear", name="enlarge")(x)
    body = application(architecture, input_tensor=x)
    initializers = shape.initializers()
    _settle(body, initializers, shape.seed)
    head = logits(body.output, shape.num_classes, next(initializers))
    return keras.Model(pixels, head, name=architecture.lower())


def times_of(image_shape: tuple[int, ...]) -> int:
    """Return the upscaling factor for images of a shape.

    >>> times_of((28, 28, 1)), times_of((32, 32, 3)), times_of((128, 128, 3))
    (4, 3, 1)
    """
    return max(-(-SIDE // min(image_shape[:2])), 1)


def application(architecture: str, **options: Any) -> keras.Model:
    """Build a headless keras.applications network with random weights.

    Args:
        architecture: Name in `architectures`.
        options: Keyword arguments of its keras.applications function.

    Raises:
        RecipeError: images too small for it.
    """
    chosen = {"include_top": False, "weights": None, "pooling": "avg"}
    try:
        return architectures()[architecture](**chosen | options)
    except ValueError as error:
        if "Input size must be at least" not in str(error):
            raise
        raise RecipeError(f"backbone {architecture}: {str(error).partition(';')[0]}") from None


def preprocessing(architecture: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return an architecture's RGB preprocessing scale and offset.

    Measured by applying its `preprocess_input` to a few pixels.
    """
    answers = _preprocessed(architecture)
    offset, matrix = answers[0], (answers[1:] - answers[0]) / 255.0  # row: channel that is lit
    if takes_blue_first(architecture):
        offset, matrix = offset[::-1], matrix[:, ::-1]
    return np.diag(matrix), offset


def takes_blue_first(architecture: str) -> bool:
    """Return whether an architecture expects BGR channel order."""
    answers = _preprocessed(architecture)
    return bool(answers[1, 2] != answers[0, 2])  # red lit, and it is the last one that changes


def first_kernel(network: keras.Model) -> Any:
    """Return the kernel of the first convolution."""
    layers = (layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D))
    return next(layers).kernel


def _preprocessed(architecture: str) -> NDArray[np.float64]:
    """Return the preprocessed black, red, green and blue pixels, float64."""
    module: Any = sys.modules[architectures()[architecture].__module__]
    pixels = np.concatenate([np.zeros((1, 3)), 255 * np.eye(3)]).reshape(4, 1, 1, 3)
    answers: NDArray[np.float64] = np.asarray(module.preprocess_input(pixels), np.float64)
    return answers.reshape(4, 3)


def _settle(body: keras.Model, initializers: Iterator[HostHeUniform], seed: int) -> None:
    """Seed weights and dropout, which Keras would draw anew in each process."""
    dropouts = 0
    for layer in body.layers:
        for variable in layer.trainable_weights:
            if len(variable.shape) == 4:
                drawn = next(initializers).draw(_one_input_each(layer, variable))
                variable.assign(drawn.reshape(variable.shape))
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = MOMENTUM
        if getattr(layer, "seed_generator", None) is not None:
            layer.seed_generator.state.assign(np.asarray([seed, dropouts], np.uint32))
            dropouts += 1


def _one_input_each(layer: Any, kernel: Any) -> tuple[int, ...]:
    """Return a kernel's shape for `HostHeUniform`: depthwise outputs have one input."""
    height, width, inputs, outputs = kernel.shape
    if isinstance(layer, keras.layers.DepthwiseConv2D) or kernel.name == "depthwise_kernel":
        return (height, width, 1, inputs * outputs)
    return (height, width, inputs, outputs)
