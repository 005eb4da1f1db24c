"""Networks side by side: how large each is, how right, and how fast on one core."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinylens.classifier import Classifier
from tinylens.data.dataset import Images
from tinylens.errors import ModelError, RunError
from tinylens.modelfile import model_file, read_model
from tinylens.results import NetworkSize, Score
from tinylens.run import Run
from tinylens.verification import BATCH, SECONDS, time_together

STRANGENESS = "strangeness"  # so begin the names of all that tells strangers
TAUGHT = "distil."  # keys of a recipe in which a network trained alone may differ


def compare(paths: Mapping[str, Path], run: Run, seconds: float = SECONDS) -> list[NetworkSize]:
    """Return the size, accuracy and speed of several networks, timed in turns.

    Args:
        paths: of runs, or of files model.onnx, by the names of the table.
        run: whose test part counts.
        seconds: of timing for each.

    Raises:
        ModelError: a file is missing or damaged.
    """
    files = {name: model_file(path) for name, path in paths.items()}
    contents = {name: read_model(file) for name, file in files.items()}
    opened = [
        Classifier.from_bytes(contents[name], str(file), threads=1) for name, file in files.items()
    ]
    turns = np.zeros((1, 1, 1, 1), np.uint8)  # each answers on its own pictures instead
    speeds = time_together(list(map(_answer, opened)), turns, seconds)
    return [
        NetworkSize(
            name=name,
            path=str(files[name]),
            parameters=parameters(contents[name]),
            bytes=len(contents[name]),
            accuracy=_accuracy(files[name], run),
            one_p50_ms=speed.one_p50_ms,
        )
        for name, speed in zip(files, speeds, strict=True)
    ]


def alone(run: Run) -> Run | None:
    """Return a finished run beside this one that differs in having had no teacher, if any."""
    for folder in sorted(run.path.absolute().parent.iterdir()):
        other = Run(folder)
        with contextlib.suppress(RunError):
            if other.started and _same_but_taught(run, other):
                return other
    return None


def parameters(content: bytes) -> int:
    """Return how many numbers the weights in a model file's content have.

    Those that tell strangers, and shapes and places in pictures, are no weights.
    """
    import onnx

    weights = onnx.load_from_string(content).graph.initializer
    return sum(
        int(np.prod(each.dims))
        for each in weights
        if each.data_type == onnx.TensorProto.FLOAT and not each.name.startswith(STRANGENESS)
    )


def _same_but_taught(run: Run, other: Run) -> bool:
    info = other.info
    if info.state != "done" or info.teacher or info.fingerprint != run.info.fingerprint:
        return False
    return all(each.startswith(TAUGHT) for each in run.recipe.differences(other.recipe))


def _answer(classifier: Classifier) -> Callable[[Images], NDArray[np.float32]]:
    """Return what answers as many pictures of the network's own shape as it is given others."""
    golden = classifier.card.golden
    if golden is None:  # `Classifier.from_bytes` refuses such a file
        raise ModelError("a model file without golden samples; export it again")
    own = {count: np.resize(golden.images, (count, *classifier.rule.shape)) for count in (1, BATCH)}

    def answer(images: Images) -> NDArray[np.float32]:
        given = {"image": own[len(images)]}
        probabilities: NDArray[np.float32] = classifier.session.run(None, given)[0]
        return probabilities

    return answer


def _accuracy(file: Path, run: Run) -> Score | None:
    """Return the accuracy of a file's run, where it was judged on the test part of `run`."""
    other = Run(file.parent)
    with contextlib.suppress(RunError):
        if other.info.splits["test"] == run.info.splits["test"]:
            return other.evaluation.splits["test"].accuracy
    return None
