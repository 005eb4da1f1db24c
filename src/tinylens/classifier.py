"""`Classifier`, a model file that answers: the one way from pictures to labels.

Evaluation, `tinylens predict` and the server all go through here. It needs numpy, Pillow and
onnxruntime and never Keras, so it starts in a fraction of a second.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinylens.cores import core_count
from tinylens.data.images import ImageRule, convert
from tinylens.deciding import Level, SetLevel
from tinylens.errors import ModelError
from tinylens.modelfile import INTEGERS, LARGEST_FILE, ModelCard, unseal
from tinylens.reading import Picture, Read, each, map_ahead, read

# else its import leaves a number in ~/.cache to be known by, and reports to its makers
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

BATCH = 256  # pictures at once: larger batches were no faster and take more memory


@dataclass(frozen=True)
class Prediction:
    """The answer for one picture, or why there is none.

    Attributes:
        path: of the file, or None for content and pixels.
        label: the most probable class, or None where the picture could not be read.
        confidence: the probability of `label`, calibrated if the model is.
        top: the most probable classes with their probabilities, best first.
        unknown: whether `label` is not sure enough to be given as an answer, or the picture is too
            unlike those trained on.
        reason: why the answer is unknown, or None.
        label_set: the classes of which the right one is one as often as was asked for, likeliest
            first; empty where nothing was asked for.
        strangeness: share of ordinary pictures, val's, that are less unlike those trained on, 0 to
            1; None where the model does not know.
        error: why there is no answer, or None.
        notes: what to know about the picture, such as that it is animated.
    """

    path: str | None
    label: str | None = None
    confidence: float | None = None
    top: tuple[tuple[str, float], ...] = ()
    unknown: bool = False
    reason: str | None = None
    label_set: tuple[str, ...] = ()
    strangeness: float | None = None
    error: str | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the row of `tinylens predict --json`.

        "reason" is in it where the answer is unknown, "set" where a coverage was asked for.
        """
        extra: dict[str, Any] = {"reason": self.reason} if self.unknown else {}
        if self.label_set:
            extra["set"] = list(self.label_set)
        return {
            "path": self.path,
            "label": self.label,
            "confidence": self.confidence,
            "top": [{"label": label, "probability": value} for label, value in self.top],
            "unknown": self.unknown,
            "strangeness": self.strangeness,
            "error": self.error,
            **extra,
        }


@dataclass(frozen=True, eq=False)
class Classifier:
    """A model file, checked and ready to answer; safe to use from several threads.

    Attributes:
        card: what the file says about itself.
        session: onnxruntime's, from "image" to "probabilities".

    >>> classifier = Classifier.open("model.onnx")  # doctest: +SKIP
    >>> classifier.predict("boot.png")[0].label     # doctest: +SKIP
    'Ankle boot'
    """

    card: ModelCard
    session: onnxruntime.InferenceSession

    @staticmethod
    def open(path: str | os.PathLike[str], *, threads: int | None = None) -> Classifier:
        """Open a model file, or the one in a run's folder, and check it.

        Args:
            path: of a model.onnx or of a run, or a `Run`.
            threads: that answer; by default one a processor core.

        Raises:
            ModelError: there is no such file, it was damaged or changed, it is not from tinylens
                or from a newer one, or it does not give its own recorded answers here.
        """
        file = Path(path)
        if file.is_dir():
            from tinylens.run import Run  # its settings library would be a tenth of the start-up

            file = Run(file).model
        return Classifier.from_bytes(_read_model(file), str(file), threads=threads)

    @staticmethod
    def from_bytes(content: bytes, name: str, *, threads: int | None = None) -> Classifier:
        """Open the content of a model file; `name` stands for it in errors, which are `open`'s."""
        card = unseal(content, name)
        classifier = Classifier(card, _session(content, name, threads or core_count()))
        classifier._check_shapes(name)
        classifier._check_golden(name)
        return classifier

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of the probabilities."""
        return self.card.class_names

    @property
    def rule(self) -> ImageRule:
        """How any picture becomes the network's input."""
        return self.card.rule

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probability of each class, float32, shape (n, classes).

        Args:
            images: uint8, shape (n, height, width) or (n, height, width, channels), of any size,
                grey, RGB or RGBA: the recorded rule makes them fit.

        Raises:
            DataError: another type or shape.
        """
        return self.judged(images)[0]

    def judged(
        self, images: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Return the probabilities, and the strangeness as the file gives it, shape (n,).

        None instead of the latter where the model does not tell it; see `tinylens.strangers`.

        Args:
            images: as for `probabilities`.

        Raises:
            DataError: another type or shape.
        """
        batches = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
        answers = [self._run(convert(batch, self.rule)) for batch in batches]
        if not answers:
            return np.zeros((0, len(self.class_names)), np.float32), None
        probabilities, *strange = (np.concatenate(parts) for parts in zip(*answers, strict=True))
        return probabilities, strange[0] if strange else None

    def predict(
        self,
        items: Picture | Sequence[Picture],
        *,
        top: int = 5,
        max_error: float | None = None,
        coverage: float | None = None,
        refused: float | None = None,
    ) -> list[Prediction]:
        """Return one prediction a picture; a broken picture's says what is wrong with it.

        Args:
            items: a path, the content of a file, an array, or several of these. An array is uint8:
                (height, width) or (height, width, channels) with 1, 3 or 4 channels for one
                picture, otherwise (n, height, width) or (n, height, width, channels).
            top: how many of the most probable classes to give.
            max_error: share of answers that may be wrong, such as 0.01; less sure ones are marked
                unknown. None keeps what the model was trained to keep.
            coverage: how often the right class is to be in `label_set`, such as 0.95.
            refused: share of ordinary pictures that may be marked unknown for being unlike those
                trained on, such as 0.01. None keeps what the model was trained to do.

        Raises:
            DataError: `items` is one array of another type or shape.
            RecipeError: the model has no threshold for `max_error`, `coverage` or `refused`.
        """
        found = self.stream(
            each(items), top=top, max_error=max_error, coverage=coverage, refused=refused
        )
        return list(found)

    def stream(
        self,
        items: Iterable[Picture],
        *,
        top: int = 5,
        workers: int = 1,
        max_error: float | None = None,
        coverage: float | None = None,
        refused: float | None = None,
    ) -> Iterator[Prediction]:
        """Yield the predictions for any number of pictures, in their order, as they are ready.

        Only some hundred pictures are in memory at a time.

        Args:
            items: as those of `predict`, one picture each.
            top: how many of the most probable classes to give.
            workers: threads that read and decode.
            max_error: as for `predict`.
            coverage: as for `predict`.
            refused: as for `predict`.

        Raises:
            RecipeError: as `predict` does.
        """
        deciding = self.card.deciding
        asked = _Asked(
            top,
            deciding.level(max_error),
            None if coverage is None else deciding.set_level(coverage),
            deciding.strangest(refused),
        )
        pictures = map_ahead(lambda item: read(item, self.rule), items, workers, 2 * BATCH)
        with contextlib.closing(pictures):
            while batch := list(itertools.islice(pictures, BATCH)):
                yield from self._answer(batch, asked)

    def read(self, item: Picture) -> Read:
        """Return a picture as the network sees it, or what is wrong with it."""
        return read(item, self.rule)

    def _answer(self, pictures: list[Read], asked: _Asked) -> Iterator[Prediction]:
        images = [picture.image for picture in pictures if picture.image is not None]
        answers = zip(*self._run(np.stack(images)), strict=True) if images else iter(())
        for picture in pictures:
            if picture.image is None:
                yield Prediction(picture.path, error=picture.error)
                continue
            answer, *strange = next(answers)
            order = np.argsort(-answer, kind="stable")
            every = [(self.class_names[column], float(answer[column])) for column in order]
            label, confidence = every[0]
            strangeness = self.card.deciding.less_strange(float(strange[0])) if strange else None
            reason = _too_unsure(confidence, asked.level)
            if strange and _too_strange(float(strange[0]), asked.strangest):
                reason = _STRANGE.format(100 * (strangeness or 0.0))
            yield Prediction(
                picture.path,
                label,
                confidence,
                tuple(every[: asked.top]),
                unknown=reason is not None,
                reason=reason,
                label_set=() if asked.set_level is None else _label_set(every, asked.set_level),
                strangeness=strangeness,
                notes=picture.notes,
            )

    def _run(self, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Return the probabilities and, where the file tells it, the strangeness."""
        answers: list[NDArray[np.float32]] = self.session.run(None, {"image": images})
        return answers

    def _check_shapes(self, name: str) -> None:
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        found = [(value.name, value.type, value.shape[1:]) for value in (*inputs, *outputs)]
        expected = [
            ("image", "tensor(uint8)", list(self.rule.shape)),
            ("probabilities", "tensor(float)", [len(self.class_names)]),
        ]
        if self.card.deciding.ordinary:
            expected.append(("strangeness", "tensor(float)", []))
        if found != expected:
            raise ModelError(
                f"{name} has the inputs and outputs {found}, but its card, with "
                f"{len(self.class_names)} class names, expects {expected}; export it again"
            )

    def _check_golden(self, name: str) -> None:
        golden = self.card.golden
        if golden is None:
            raise ModelError(f"{name} has no golden samples to check it by; export it again")
        if golden.images.shape[1:] != self.rule.shape or golden.probabilities.shape != (
            len(golden.images),
            len(self.class_names),
        ):
            raise ModelError(f"{name} has golden samples of another shape; export it again")
        try:
            answers = self._run(golden.images)[0]
        except Exception as error:  # onnxruntime raises a dozen types that share no base
            raise ModelError(f"{name} cannot be run: {error}") from None
        difference = float(np.abs(answers - golden.probabilities).max())
        if not difference <= self.card.tolerance:  # also when it is not a number
            advice = f"try another version of onnxruntime than {onnxruntime.__version__}"
            if self.card.precision == INTEGERS:
                advice = (
                    "take model.onnx, since this processor may add 8-bit integers in another way"
                )
            raise ModelError(
                f"{name} does not give its recorded answers: its golden samples differ by "
                f"{difference:.2g}, expected at most {self.card.tolerance:g}; export it again, or "
                f"{advice}"
            )


# --- when not to answer

_STRANGE = "it is unlike what the model was trained on: stranger than {:.1f} % of ordinary pictures"


@dataclass(frozen=True)
class _Asked:
    """What an answer is to say, and when it is not to be given."""

    top: int
    level: Level | None
    set_level: SetLevel | None
    strangest: float | None


def _too_unsure(confidence: float, level: Level | None) -> str | None:
    if level is None or confidence >= level.threshold:
        return None
    return (
        f"its confidence is under {level.threshold:.3f}, from which on at most "
        f"{100 * level.max_error:g} % of answers are wrong"
    )


def _too_strange(strangeness: float, limit: float | None) -> bool:
    # also what is not a number, as infinite logits would give
    return limit is not None and not strangeness <= limit


def _label_set(ranked: list[tuple[str, float]], level: SetLevel) -> tuple[str, ...]:
    inside = [label for label, probability in ranked if probability >= level.threshold]
    return tuple(inside or [ranked[0][0]])


# --- opening


def _read_model(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise ModelError(f"{path} has {size} bytes, expected at most {LARGEST_FILE}")
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelError(
            f"no model file {path}; `tinylens train DATASET` writes one into its run's folder"
        ) from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None


def _session(content: bytes, name: str, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # its errors are raised as well, and told once is enough
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a dozen types that share no base
        raise ModelError(f"{name} cannot be run: {error}") from None
