"""ONNX export: written, checked against Keras, then kept."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import onnx
from numpy.typing import NDArray

from tinylens import files
from tinylens.backend import quiet
from tinylens.errors import ModelError
from tinylens.evaluation.out_of_distribution import OodScore
from tinylens.exporting.onnx_layers import UnknownLayer
from tinylens.exporting.onnx_writer import INPUT, OUTPUT, onnx_model
from tinylens.exporting.ood_output import add_ood_score
from tinylens.exporting.verify import disagreements
from tinylens.inference.classifier import Classifier
from tinylens.inference.model_file import TOLERANCE, GoldenSamples, ModelCard, seal

MOST_GOLDEN_SAMPLES = 16
MOST_GOLDEN_BYTES = 49_152  # of pixels: 16 images of 32×32 RGB; a third more as base64
OOD_SCORE_TOLERANCE = 1e-3  # relative: logits differ by 1e-4, and their squares add up


@dataclass(frozen=True)
class ExportCheck:
    """How an exported file compares with the Keras network it came from.

    Attributes:
        images: compared, all of them with the same best class but for `ties`.
        ties: images whose two best classes are equal in float32, told apart differently.
        largest_difference: between any two probabilities.
        size: of the file, in bytes.
        opset: version of the ONNX operators in it.
        writer: "tinylens" when the graph was written directly, "keras" when by Keras's export.
        has_ood_score: whether the file has the output "OOD score".
        seconds: for writing and comparing.
    """

    images: int
    ties: int
    largest_difference: float
    size: int
    opset: int
    writer: str
    has_ood_score: bool
    seconds: float


def export_onnx(
    network: keras.Model,
    path: Path,
    *,
    card: ModelCard,
    check_images: NDArray[np.uint8],
    check_probabilities: NDArray[np.float32],
    ood_score: tuple[OodScore, NDArray[np.float64]] | None = None,
) -> ExportCheck:
    """Write `network` to `path`, once it answers there as it does in Keras.

    The file has the input "image", uint8 (batch, height, width, channels), and the output
    "probabilities", float32 (batch, classes), for batches of any size. Up to 16 of the images
    go into it with their answers, as golden samples. It has a second output "OOD score", float32
    (batch,), where that is known, the file ends with a softmax and gives the same there; otherwise
    its card forgets how out of distribution ordinary images are. It is an extra, and no reason to
    refuse.

    Args:
        network: float32, from uint8 images to probabilities.
        path: of the file; it appears whole or not at all.
        card: what the file says about itself; its golden samples are chosen here.
        check_images: uint8, shape (n, height, width, channels): the images to compare on.
        check_probabilities: float32, shape (n, classes): Keras's answers to them.
        ood_score: how out of distribution images are told, and how out of distribution those are,
            float64, shape (n,).

    Raises:
        ModelError: the network does not fit its card, cannot be exported, or the exported file
            answers differently; nothing is written then.
    """
    start = time.perf_counter()
    _check_fits(network, card, check_images, check_probabilities)
    proto, writer = _onnx_of(network, card)
    described = ood_score is not None and add_ood_score(
        proto, ood_score[0], curved=card.curvature > 0
    )
    if not described:
        card = replace(card, selective=card.selective.without_ood_score())
    golden = choose_golden(check_images, check_probabilities)
    body = proto.SerializeToString()
    content = seal(replace(card, golden=golden), body)
    try:
        given, ood_scores = Classifier.from_bytes(content, path.name).evaluated(check_images)
        ties, difference = _compare(check_probabilities, given)
    except ModelError as error:
        raise ModelError(f"{network.name} was not exported: {error}") from None
    if ood_score is not None and ood_scores is not None and not _alike(ood_score[1], ood_scores):
        return export_onnx(
            network,
            path,
            card=card,
            check_images=check_images,
            check_probabilities=check_probabilities,
        )
    files.write_bytes(path, content)
    return ExportCheck(
        images=len(check_images),
        ties=ties,
        largest_difference=difference,
        size=len(content),
        opset=max(item.version for item in proto.opset_import if item.domain in ("", "ai.onnx")),
        writer=writer,
        has_ood_score=described,
        seconds=time.perf_counter() - start,
    )


def choose_golden(images: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> GoldenSamples:
    """Return up to 16 of the images, of as many predicted classes as there are.

    The first image of every class comes first, then every class's second, and so on.
    """
    count = max(1, min(MOST_GOLDEN_SAMPLES, MOST_GOLDEN_BYTES // images[0].size))
    predicted = probabilities.argmax(axis=1)
    turn = np.zeros(len(predicted), np.int64)  # how many of its class came before
    for label in np.unique(predicted):
        of_class = predicted == label
        turn[of_class] = np.arange(of_class.sum())
    rows = np.argsort(turn, kind="stable")[:count]
    return GoldenSamples(images[rows], probabilities[rows])


def _check_fits(
    network: keras.Model,
    card: ModelCard,
    images: NDArray[np.uint8],
    probabilities: NDArray[np.float32],
) -> None:
    expected = (len(card.class_names), card.rule.shape)
    found = (network.output_shape[-1], tuple(network.input_shape[1:]))
    if found != expected:
        raise ModelError(
            f"{network.name} gives {found[0]} probabilities for images of shape {found[1]}, but "
            f"its card names {expected[0]} classes and images of shape {expected[1]}"
        )
    if not len(images) or images.shape[1:] != expected[1] or images.dtype != np.uint8:
        raise ModelError(
            f"images to compare on are {images.dtype} of shape {images.shape}, "
            f"expected uint8 (n, {', '.join(map(str, expected[1]))}) with n at least 1"
        )
    if probabilities.shape != (len(images), expected[0]):
        raise ModelError(
            f"probabilities to compare with have shape {probabilities.shape}, "
            f"expected {(len(images), expected[0])}"
        )


def _compare(expected: NDArray[np.float32], given: NDArray[np.float32]) -> tuple[int, float]:
    """Return the number of ties and the largest difference, both small enough to keep the file."""
    difference = float(np.abs(expected - given).max())
    if not difference <= TOLERANCE:  # also when it is not a number
        raise ModelError(
            f"its probabilities differ by up to {difference:.2g} from Keras's on "
            f"{len(expected)} images, expected at most {TOLERANCE:g}"
        )
    apart, ties = disagreements(expected, given)
    if apart:
        raise ModelError(
            f"it gives another class than Keras for {apart} of "
            f"{len(expected)} images, expected the same class for all"
        )
    return ties, difference


def _alike(expected: NDArray[np.float64], given: NDArray[np.float32]) -> bool:
    """Whether two figures of OOD score are the same; what is not a number is not."""
    off = np.abs(expected - given) / (1 + np.abs(expected))
    return bool((off <= OOD_SCORE_TOLERANCE).all())


def _onnx_of(network: keras.Model, card: ModelCard) -> tuple[onnx.ModelProto, str]:
    try:
        proto, writer = onnx_model(network, card.tinylens), "tinylens"
    except UnknownLayer as unknown:
        proto, writer = _through_keras(network, str(unknown)), "keras"
    onnx.checker.check_model(proto)
    return proto, writer


def _through_keras(network: keras.Model, reason: str) -> onnx.ModelProto:
    """Return `network` as Keras's own export writes it, with our names for input and output."""
    signature = keras.InputSpec(shape=(None, *network.input_shape[1:]), dtype="uint8", name=INPUT)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            with quiet():
                network.export(path, format="onnx", verbose=False, input_signature=[signature])
            proto = onnx.load(path)
        except Exception as error:  # three converters, with their own and their libraries' errors
            words = " ".join(str(error).split())[:200]
            raise ModelError(
                f"{network.name} was not exported: tinylens cannot write {reason}, and Keras's "
                f"export on {keras.backend.backend()} failed: {type(error).__name__}: {words}"
            ) from error
    _rename(proto.graph, proto.graph.input[0].name, INPUT)
    _rename(proto.graph, proto.graph.output[0].name, OUTPUT)
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return proto


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = new if value.name == old else value.name
