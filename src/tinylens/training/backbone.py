"""Pretrained backbones from keras.applications."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tinylens.data.cache import cache_root
from tinylens.data.dataset import Splits
from tinylens.data.images import rule_of
from tinylens.errors import ModelError
from tinylens.models.build import build_network, check_options, save, ship
from tinylens.models.layers import use_weights
from tinylens.models.pretrained import application, first_kernel, takes_blue_first
from tinylens.models.spec import NetworkShape
from tinylens.training.transfer import Source

IMAGENET_CLASSES = 1_000  # of files that hold the old head, too
IMAGENET_STD = (0.229, 0.224, 0.225)  # of red, green and blue; pixels from 0 to 1
UNREACHABLE = "URL fetch failure on "  # how Keras says that a download failed


def pretrained_source(
    architecture: str, weights: str | Path | None, data: Splits, options: dict[str, Any]
) -> Source:
    """Return a network of keras.applications as a source for images of the size of `data`.

    It is kept in the cache as a model.keras, under what its weights hold.

    Args:
        architecture: such as "MobileNetV2".
        weights: a file of them, as Keras saves them; None for those of ImageNet, downloaded.
        data: whose images it is to look at.
        options: of the network `backbone`.

    Raises:
        RecipeError: no such architecture, images too small for it, or options it does not take.
        ModelError: the weights cannot be had, or belong to another network.
    """
    chosen = {**options, "architecture": architecture}
    check_options("backbone", chosen)
    trained = trained_application(architecture, None if weights is None else Path(weights))
    digest = hashlib.sha256(architecture.encode())
    for variable in trained.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).tobytes())
    shape = data.train.image_shape
    sized = "x".join(str(each) for each in (*shape, chosen.get("times", 0)))
    path = cache_root() / "backbones" / f"{digest.hexdigest()[:32]}-{sized}.keras"
    if not path.is_file():
        _write(path, trained, architecture, shape, chosen)
    return Source(
        name=architecture,
        sha256=digest.hexdigest(),
        network="backbone",
        dataset="ImageNet-1k" if weights is None else f"what {Path(weights).name} was trained on",
        fingerprint="",
        path=path,
        options=chosen,
        rule=rule_of(data.train),
    )


def trained_application(architecture: str, weights: Path | None) -> keras.Model:
    """Return a network of keras.applications, without a head, with trained weights.

    Raises:
        RecipeError: no such architecture.
        ModelError: the weights cannot be had, or belong to another network.
    """
    if weights is not None:
        network = _with_weights(architecture, weights)
    else:
        network = _downloaded(architecture)
    if takes_blue_first(architecture):  # so that nobody has to swap channels any more
        kernel = first_kernel(network)
        kernel.assign(keras.ops.convert_to_numpy(kernel)[:, :, ::-1])
    if architecture.startswith("EfficientNetB"):
        _scale_as_trained(network)
    return network


def _downloaded(architecture: str) -> keras.Model:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # weights of 224 pixels serve for others
            network = application(architecture, weights="imagenet")
    except Exception as error:  # Keras raises no narrower one
        if not str(error).startswith(UNREACHABLE):
            raise
        address = str(error).removeprefix(UNREACHABLE).partition(":")
        url = address[0] + address[1] + address[2].partition(":")[0]
        raise ModelError(
            f"the weights of {architecture} cannot be downloaded; expected {url} to answer. On a "
            "machine without the internet bring that file along, and type: "
            f"--backbone {architecture} --weights {url.rpartition('/')[2]}"
        ) from None
    return network


def _with_weights(architecture: str, path: Path) -> keras.Model:
    """Return a network with a file's weights, which may hold the head of ImageNet, too."""
    if not path.is_file():
        raise ModelError(f"--weights {path}: there is no such file")
    reasons = []
    for options in ({}, {"include_top": True, "classes": IMAGENET_CLASSES}):
        network = application(architecture, **options)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # a line for each layer; errors count
                network.load_weights(path)
        except (ValueError, OSError, KeyError, TypeError) as error:
            reasons.append(str(error).strip().partition("\n")[0][:200])
            continue
        if options:
            bare = application(architecture)
            _copy(network, bare)
            network = bare
        return network
    raise ModelError(
        f"--weights {path}: these are not the weights of {architecture}: {reasons[0]}; expected "
        "what its save_weights wrote, or the file that keras.applications downloads"
    )


def _scale_as_trained(network: keras.Model) -> None:
    """Let an EfficientNet see pixels divided by the power 1.5 of their standard deviation.

    So were the weights of ImageNet trained; Keras adds a layer for it where it downloads them
    itself, and leaves it out for who loads the same file. Here the file's variance says it.
    """
    layer = next(each for each in network.layers if isinstance(each, keras.layers.Normalization))
    variance, std = keras.ops.convert_to_numpy(layer.adapt_variance), np.array(IMAGENET_STD)
    if np.allclose(variance, std**2, rtol=0.01):
        layer.adapt_variance.assign(variance * std)
        use_weights(layer)


def _write(
    path: Path,
    trained: keras.Model,
    architecture: str,
    image_shape: tuple[int, int, int],
    options: dict[str, Any],
) -> None:
    """Write the network for images of a shape, under a head of one class that nobody asks."""
    unused = (0.0,) * image_shape[2]
    network = build_network("backbone", NetworkShape(image_shape, 1, unused, unused), options)
    _copy(trained, network)
    path.parent.mkdir(exist_ok=True)
    save(ship(network), path)


def _copy(source: keras.Model, target: keras.Model) -> None:
    """Put the weights of a body into a network of the same body, whatever head it has."""
    theirs, ours = (
        [each for each in network.layers if each.weights] for network in (source, target)
    )
    for origin, into in zip(theirs, ours, strict=False):  # heads come last, and are left out
        into.set_weights(origin.get_weights())
        use_weights(into)
