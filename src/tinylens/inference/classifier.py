"""`Classifier`: inference with a model file, on numpy, Pillow and onnxruntime.

Shared by evaluation, `tinylens predict` and the server. Without Keras, it starts in a fraction of a
second.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tinylens.data.images import Decoded, ImageRule, Pixels, convert, decode
from tinylens.display import html_table
from tinylens.errors import DataError, ModelError
from tinylens.inference.input_checks.examine import Finding
from tinylens.inference.input_checks.fixes import InputChecks, allowed_kinds
from tinylens.inference.model_file import INTEGERS, ModelCard, model_file, read_model, unseal
from tinylens.inference.selective_prediction import Level, SetLevel
from tinylens.system import core_count

ImageInput = (
    str | os.PathLike[str] | bytes | NDArray[np.uint8]
)  # a path, a file's content or pixels

LARGEST_IMAGE_FILE = 256 * 2**20  # bytes; the decoder's limit of pixels takes up less, raw

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, eq=False)
class Read:
    """Preprocessed image, or the reason it could not be read.

    Attributes:
        path: File path, or None for content and pixels.
        image: uint8, shape (height, width, channels), or None if unreadable.
        notes: Remarks on the image, such as that it is animated.
        error: Reason the image is unreadable, or None.
        findings: Input-check findings, or None if the checks did not run.
    """

    path: str | None
    image: NDArray[np.uint8] | None = None
    notes: tuple[str, ...] = ()
    error: str | None = None
    findings: tuple[Finding, ...] | None = None


def each(items: ImageInput | Sequence[ImageInput]) -> Sequence[ImageInput]:
    """Return the input as a list of single images.

    Raises:
        DataError: one array of another type or shape.
    """
    if isinstance(items, str | os.PathLike | bytes):
        return [items]
    if not isinstance(items, np.ndarray):
        return items
    one = items.ndim == 2 or (items.ndim == 3 and items.shape[2] in (1, 3, 4))
    images = items[None] if one else items
    if items.ndim not in (2, 3, 4) or items.dtype != np.uint8:
        raise DataError(
            f"the array is {items.dtype} of shape {items.shape}, expected uint8 from 0 to 255, "
            "(height, width, channels) for one image or (n, height, width, channels)"
        )
    return list(images)


def read(item: ImageInput, rule: ImageRule, input_checks: InputChecks | None = None) -> Read:
    """Read and preprocess an image; an unreadable one carries its error.

    Args:
        item: Path, file content, or uint8 pixels.
        rule: Preprocessing rule.
        input_checks: Checks and fixes applied before downscaling.
    """
    path = os.fspath(item) if isinstance(item, str | os.PathLike) else None
    found: tuple[Finding, ...] = ()

    def treatment(pixels: Pixels, orientation: int) -> Pixels:
        nonlocal found
        pixels, found = input_checks.see(pixels, orientation) if input_checks else (pixels, ())
        return pixels

    requested = treatment if input_checks else None
    try:
        if isinstance(item, np.ndarray):
            decoded = Decoded(convert(item[None], rule, requested)[0])
        else:
            content = item if isinstance(item, bytes) else _content(Path(item))
            decoded = decode(content, rule, requested)
    except DataError as error:
        return Read(path, error=str(error), findings=() if input_checks else None)
    return Read(path, decoded.image, decoded.notes, findings=found if input_checks else None)


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_IMAGE_FILE + 1)
    except FileNotFoundError:
        raise DataError("no such file") from None
    except IsADirectoryError:
        raise DataError("a folder, expected an image") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise DataError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > LARGEST_IMAGE_FILE:
        raise DataError(f"larger than {LARGEST_IMAGE_FILE // 2**20} MiB")
    return content


def map_ahead(
    function: Callable[[_Item], _Result], items: Iterable[_Item], workers: int, ahead: int
) -> Generator[_Result]:
    """Map `function` over items in order, with threads working a bounded number ahead."""
    if workers == 1:
        yield from map(function, items)
        return
    from concurrent.futures import Future, ThreadPoolExecutor  # 10 ms that one image saves

    pending: collections.deque[Future[_Result]] = collections.deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


Ranked = tuple[tuple[str, float], ...]  # classes with their probabilities, best first

_OUT_OF_DISTRIBUTION = (
    "it is unlike what the model was trained on: more unusual than {:.1f} % of ordinary images"
)


@dataclass(frozen=True)
class Prediction:
    """Prediction for one image, or its error.

    Attributes:
        path: File path, or None for content and pixels.
        label: Most probable class, or None if the image is unreadable.
        confidence: Probability of `label`, calibrated if the model is.
        top: Most probable classes with their probabilities, best first.
        unknown: Whether the model abstains: low confidence or an out-of-distribution image.
        reason: Reason for abstaining, or None.
        label_set: Prediction set of the requested coverage, most probable first; empty without
            one.
        ood_score: Share of validation images with a lower OOD score, 0 to 1; None if the model
            has none.
        error: Error message, or None.
        notes: Remarks on the image, such as that it is animated.
        findings: Input-check findings and whether they were fixed; None if the checks did not
            run. See `tinylens.inference.input_checks.fixes`.
    """

    path: str | None
    label: str | None = None
    confidence: float | None = None
    top: tuple[tuple[str, float], ...] = ()
    unknown: bool = False
    reason: str | None = None
    label_set: tuple[str, ...] = ()
    ood_score: float | None = None
    error: str | None = None
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] | None = None

    def __repr__(self) -> str:
        where = "" if self.path is None else f"{self.path!r}: "
        if self.label is None or self.confidence is None:
            return f"Prediction({where}error: {self.error})"
        answer = f"unknown, perhaps {self.label!r}" if self.unknown else repr(self.label)
        return f"Prediction({where}{answer} {100 * self.confidence:.1f} %)"

    def _repr_html_(self) -> str:
        if self.label is None:
            return html_table([["path", "error"], [self.path or "", self.error]])
        rows = [[label, f"{100 * share:.1f} %"] for label, share in self.top]
        return html_table([["class", "probability"], *rows])

    def to_json(self) -> dict[str, Any]:
        """Return the row of `tinylens predict --json`.

        Optional keys: "reason" if unknown, "set" with a coverage, "findings" with input checks.
        """
        extra: dict[str, Any] = {"reason": self.reason} if self.unknown else {}
        if self.label_set:
            extra["set"] = list(self.label_set)
        if self.findings is not None:
            extra["findings"] = [finding.to_json() for finding in self.findings]
        return {
            "path": self.path,
            "label": self.label,
            "confidence": self.confidence,
            "top": [{"label": label, "probability": value} for label, value in self.top],
            "unknown": self.unknown,
            "ood_score": self.ood_score,
            "error": self.error,
            **extra,
        }


@dataclass(frozen=True)
class PredictOptions:
    """Prediction options: output fields and abstention thresholds.

    Attributes:
        top: Number of most probable classes.
        level: Confidence level below which the label is unknown.
        set_level: Threshold of prediction sets.
        ood_limit: OOD score above which the label is unknown.
    """

    top: int
    level: Level | None
    set_level: SetLevel | None
    ood_limit: float | None


def describe(
    card: ModelCard,
    images: Sequence[Read],
    probabilities: NDArray[np.float32],
    ood_scores: NDArray[np.float32] | None,
    requested: PredictOptions,
) -> Iterator[Prediction]:
    """Yield one prediction per image from the probabilities of the readable ones.

    Args:
        card: Model card.
        images: Results of `tinylens.inference.classifier.read`, m of them readable.
        probabilities: shape (m, classes).
        ood_scores: shape (m,), or None if the model has none.
        requested: Prediction options.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    if requested.set_level is None:
        order = order[:, : max(requested.top, 1)]
    values = np.take_along_axis(probabilities, order, axis=1).tolist()
    ood_limit = [None] * len(values) if ood_scores is None else ood_scores.tolist()
    rows = zip(order.tolist(), values, ood_limit, strict=True)
    for image in images:
        if image.image is None:
            yield Prediction(image.path, error=image.error, findings=image.findings)
            continue
        columns, shares, ood_score = next(rows)
        ranked = tuple(zip([card.class_names[at] for at in columns], shares, strict=True))
        yield _describe_one(card, image, ranked, ood_score, requested)


def _describe_one(
    card: ModelCard,
    image: Read,
    ranked: Ranked,
    ood_scores: float | None,
    requested: PredictOptions,
) -> Prediction:
    label, confidence = ranked[0]
    ood_score = None if ood_scores is None else card.selective.ood_rank(ood_scores)
    reason = _too_unsure(confidence, requested.level)
    if ood_scores is not None and _above_ood_limit(ood_scores, requested.ood_limit):
        reason = _OUT_OF_DISTRIBUTION.format(100 * (ood_score or 0.0))
    return Prediction(
        image.path,
        label,
        confidence,
        ranked[: requested.top],
        unknown=reason is not None,
        reason=reason,
        label_set=() if requested.set_level is None else _label_set(ranked, requested.set_level),
        ood_score=ood_score,
        notes=image.notes,
        findings=image.findings,
    )


def _too_unsure(confidence: float, level: Level | None) -> str | None:
    if level is None or confidence >= level.threshold:
        return None
    return (
        f"its confidence is under {level.threshold:.3f}, from which on at most "
        f"{100 * level.max_error:g} % of answers are wrong"
    )


def _above_ood_limit(ood_score: float, limit: float | None) -> bool:
    # also what is not a number, as infinite logits would give
    return limit is not None and not ood_score <= limit


def _label_set(ranked: Ranked, level: SetLevel) -> tuple[str, ...]:
    inside = [label for label, probability in ranked if probability >= level.threshold]
    return tuple(inside or [ranked[0][0]])


BATCH = 256  # images at once: larger batches were no faster and take more memory


@dataclass(frozen=True, eq=False)
class Classifier:
    """Thread-safe image classifier loaded from a verified model file.

    Attributes:
        card: Model card.
        session: onnxruntime session from "image" to "probabilities".

    >>> classifier = Classifier.open("model.onnx")  # doctest: +SKIP
    >>> classifier.predict("boot.png")[0].label     # doctest: +SKIP
    'Ankle boot'
    """

    card: ModelCard
    session: onnxruntime.InferenceSession

    @staticmethod
    def open(path: str | os.PathLike[str], *, threads: int | None = None) -> Classifier:
        """Open and verify a model file or the model of a run.

        Args:
            path: Path of a model.onnx or a run, or a `Run`.
            threads: Inference threads; default: one per core.

        Raises:
            ModelError: there is no such file, it was damaged or changed, it is not from tinylens
                or from a newer one, or it does not give its own recorded answers here.
        """
        file = model_file(path)
        return Classifier.from_bytes(read_model(file), str(file), threads=threads)

    @staticmethod
    def from_bytes(content: bytes, name: str, *, threads: int | None = None) -> Classifier:
        """Open a model file from bytes; `name` identifies it in errors, as in `open`."""
        card = unseal(content, name)
        classifier = Classifier(card, _session(content, name, threads or core_count()))
        classifier._check_shapes(name)
        classifier._check_golden(name)
        return classifier

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of the probabilities."""
        return self.card.class_names

    @property
    def rule(self) -> ImageRule:
        """Preprocessing rule of the network's input."""
        return self.card.rule

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Predict class probabilities, float32, shape (n, classes).

        Args:
            images: uint8, shape (n, height, width) or (n, height, width, channels), of any size,
                grey, RGB or RGBA; preprocessed by the recorded rule.

        Raises:
            DataError: another type or shape.
        """
        return self.evaluated(images)[0]

    def evaluated(
        self, images: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Return the probabilities and the raw OOD scores, shape (n,) or None.

        See `tinylens.evaluation.out_of_distribution`.

        Args:
            images: as for `probabilities`.

        Raises:
            DataError: another type or shape.
        """
        batches = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
        answers = [self._run(convert(batch, self.rule)) for batch in batches]
        if not answers:
            return np.zeros((0, len(self.class_names)), np.float32), None
        probabilities, *ood_scores = (np.concatenate(parts) for parts in zip(*answers, strict=True))
        return probabilities, ood_scores[0] if ood_scores else None

    def predict(
        self,
        items: ImageInput | Sequence[ImageInput],
        *,
        top: int = 5,
        max_error: float | None = None,
        coverage: float | None = None,
        refused: float | None = None,
        fix: str | None = None,
    ) -> list[Prediction]:
        """Classify images; an unreadable one yields a prediction with its error.

        Args:
            items: Path, file content, array, or several of these. An array is uint8:
                (height, width) or (height, width, channels) with 1, 3 or 4 channels for one
                image, otherwise (n, height, width) or (n, height, width, channels).
            top: Number of most probable classes.
            max_error: Maximum error rate among answers, such as 0.01; less confident ones are
                unknown. None: the model's own.
            coverage: Share of images whose `label_set` contains the true class, such as 0.95.
            refused: Share of in-distribution images that may be rejected as out-of-distribution,
                such as 0.01. None: the model's own.
            fix: Findings that the input checks may fix before downscaling: "all" or a comma-
                separated list of `tinylens.inference.input_checks.examine.KINDS`; "" only
                reports, None disables the checks.

        Raises:
            DataError: `items` is one array of another type or shape.
            RecipeError: the model has no threshold for `max_error`, `coverage` or `refused`, or
                `fix` names a kind that is none.
        """
        found = self.stream(
            each(items), top=top, max_error=max_error, coverage=coverage, refused=refused, fix=fix
        )
        return list(found)

    def stream(
        self,
        items: Iterable[ImageInput],
        *,
        top: int = 5,
        workers: int = 1,
        max_error: float | None = None,
        coverage: float | None = None,
        refused: float | None = None,
        fix: str | None = None,
    ) -> Iterator[Prediction]:
        """Stream predictions for any number of images, in order.

        Keeps only a few hundred images in memory.

        Args:
            items: Single images, as for `predict`.
            top: Number of most probable classes.
            workers: Threads that read and decode.
            max_error: as for `predict`.
            coverage: as for `predict`.
            refused: as for `predict`.
            fix: as for `predict`.

        Raises:
            RecipeError: as `predict` does.
        """
        input_checks = self._input_checks(fix)
        requested = self.requested(top, max_error=max_error, coverage=coverage, refused=refused)
        images = map_ahead(
            lambda item: read(item, self.rule, input_checks), items, workers, 2 * BATCH
        )
        with contextlib.closing(images):
            while batch := list(itertools.islice(images, BATCH)):
                yield from self._answer(batch, requested)

    def read(self, item: ImageInput, fix: str | None = None) -> Read:
        """Read and preprocess an image; an unreadable one carries its error.

        Args:
            item: Single image, as for `predict`.
            fix: as for `predict`.

        Raises:
            RecipeError: `fix` names a kind that is none.
        """
        return read(item, self.rule, self._input_checks(fix))

    def _input_checks(self, fix: str | None) -> InputChecks | None:
        return None if fix is None else InputChecks(self.card.input_checks, allowed_kinds(fix))

    def requested(
        self,
        top: int,
        *,
        max_error: float | None = None,
        coverage: float | None = None,
        refused: float | None = None,
    ) -> PredictOptions:
        """Resolve the arguments of `predict` to prediction options; raises as `predict`."""
        selective = self.card.selective
        return PredictOptions(
            top,
            selective.level(max_error),
            None if coverage is None else selective.set_level(coverage),
            selective.ood_limit(refused),
        )

    def described(
        self,
        images: Sequence[Read],
        probabilities: NDArray[np.float32],
        ood_scores: NDArray[np.float32] | None,
        requested: PredictOptions,
    ) -> Iterator[Prediction]:
        """Yield one prediction per image; see `tinylens.inference.classifier.describe`."""
        return describe(self.card, images, probabilities, ood_scores, requested)

    def _answer(self, samples: list[Read], requested: PredictOptions) -> Iterator[Prediction]:
        images = [image.image for image in samples if image.image is not None]
        none = np.zeros((0, len(self.class_names)), np.float32)
        answers = self._run(np.stack(images)) if images else [none]
        ood_scores = answers[1] if len(answers) > 1 else None
        yield from self.described(samples, answers[0], ood_scores, requested)

    def _run(self, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Run the session; return probabilities and OOD scores, if the model has them."""
        answers: list[NDArray[np.float32]] = self.session.run(None, {"image": images})
        return answers

    def _check_shapes(self, name: str) -> None:
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        found = [(value.name, value.type, value.shape[1:]) for value in (*inputs, *outputs)]
        expected = [
            ("image", "tensor(uint8)", list(self.rule.shape)),
            ("probabilities", "tensor(float)", [len(self.class_names)]),
        ]
        if self.card.selective.ordinary:
            expected.append(("ood_score", "tensor(float)", []))
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


# --- opening


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
