"""Knowledge distillation from a larger network or an ensemble.

A teacher's probabilities say more of an image than its label does: which other classes it is like
(Hinton et al. 2015, arXiv:1503.02531). The teacher is a model.onnx, asked once for each image of
train as it is, without augmentation; what it answered is kept beside the decoded data sets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinylens import files
from tinylens.data.cache import cache_root
from tinylens.data.dataset import Dataset, Splits
from tinylens.errors import RecipeError
from tinylens.inference.classifier import Classifier
from tinylens.inference.model_file import model_file, read_model

STRETCH = 2_000  # images from one word of progress to the next
LEAST = 1e-30  # probability: its logarithm is a number


@dataclass(frozen=True)
class Teacher:
    """Who teaches, as run.json records it.

    Attributes:
        name: of its run's folder.
        sha256: of its model.onnx.
        network: its kind, as its card says.
        dataset: what it was trained on, in words.
        fingerprint: of that data set with its splits.
    """

    name: str
    sha256: str
    network: str
    dataset: str
    fingerprint: str

    def to_json(self) -> dict[str, str]:
        """Return plain strings by name."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a teacher has to say of the images of train.

    Attributes:
        teacher: who said it.
        probabilities: calibrated, float32, shape (n_train, classes).
    """

    teacher: Teacher
    probabilities: NDArray[np.float32] = field(repr=False)


def lesson(path: str | Path, data: Splits, describe: Callable[[str], object]) -> Lesson:
    """Ask a teacher about the images of train, or take what it said of them before.

    Args:
        path: of a run, or of a model.onnx.
        data: of the student.
        describe: is given how far the asking is, in words, as it goes on.

    Raises:
        ModelError: there is no such file, or it is damaged.
        RecipeError: its classes are not the student's.
    """
    file = model_file(path)
    content = read_model(file)
    classifier = Classifier.from_bytes(content, str(file))
    _check_classes(classifier, data, path)
    card, sha256 = classifier.card, hashlib.sha256(content).hexdigest()
    teacher = Teacher(file.parent.name, sha256, card.network, card.dataset, card.fingerprint)
    kept = cache_root() / "lessons" / f"{sha256[:32]}-{data.train.fingerprint[:32]}.float32"
    answers = _read(kept, (len(data.train), len(data.class_names)))
    if answers is None:
        answers = _requested(classifier, data.train, describe)
        kept.parent.mkdir(exist_ok=True)
        files.write_bytes(kept, answers.tobytes())
    return Lesson(teacher, answers)


def softened(probabilities: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Return probabilities whose logarithms are divided by a temperature, summing up to 1.

    Args:
        probabilities: shape (n, classes).
        temperature: above 1 the less probable classes count for more.

    >>> softened(np.array([[0.8, 0.2], [0.5, 0.5]], np.float32), 2.0).round(3).tolist()
    [[0.6669999957084656, 0.3330000042915344], [0.5, 0.5]]
    """
    powers = np.maximum(probabilities, LEAST).astype(np.float64) ** (1 / temperature)
    soft: NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return soft


def notes(teacher: Teacher, data: Splits) -> list[str]:
    """Return what a reader of the student's figures must know of its teacher."""
    found = [f"taught by {teacher.name}, a network {teacher.network} ({teacher.sha256[:12]})"]
    if teacher.fingerprint != data.fingerprint:
        found.append(
            "the teacher was trained on other data or other parts of it: where it has seen "
            "images of val or test, the figures on these flatter the student, too"
        )
    return found


def _check_classes(classifier: Classifier, data: Splits, path: str | Path) -> None:
    theirs, ours = classifier.class_names, data.class_names
    if theirs == ours:
        return
    missing = [name for name in ours if name not in theirs]
    extra = [name for name in theirs if name not in ours]
    if missing or extra:
        found = f"it lacks {_listed(missing)} and adds {_listed(extra)}"
    else:
        found = f"it has them in another order: {_listed(theirs)}"
    raise RecipeError(
        f"--distil {path}: the teacher does not have the classes of {data.source}: {found}; "
        "expected the same ones in the same order: take a teacher that was trained on them"
    )


def _listed(names: Any) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown or "none"


def _read(path: Path, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """Return answers that were kept; None where there are none, or not so many."""
    content = path.read_bytes() if path.is_file() else b""
    answers: NDArray[np.float32] = np.frombuffer(content[: len(content) // 4 * 4], np.float32)
    return answers.reshape(shape) if answers.size == shape[0] * shape[1] else None


def _requested(
    classifier: Classifier, train: Dataset, describe: Callable[[str], object]
) -> NDArray[np.float32]:
    """Return the classifier's probabilities, float32, shape (n, classes), asking bit by bit."""
    answers = []
    for start in range(0, len(train), STRETCH):
        describe(f"asking the teacher: {start:,} of {len(train):,} images")
        answers.append(classifier.probabilities(train.images[start : start + STRETCH]))
    return np.concatenate(answers)
