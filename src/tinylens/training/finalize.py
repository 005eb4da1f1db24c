"""After the last step: calibration, export, evaluation and the run's records."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING

import keras
import numpy as np
from numpy.typing import NDArray

from tinylens import metrics
from tinylens.data.dataset import Dataset, Images, Splits
from tinylens.data.images import rule_of
from tinylens.errors import ModelError
from tinylens.evaluation import out_of_distribution
from tinylens.evaluation.evaluate import assemble, confused, worst_mistakes
from tinylens.evaluation.out_of_distribution import OodScore
from tinylens.exporting import onnx
from tinylens.inference import drift
from tinylens.inference.input_checks.study import study
from tinylens.inference.model_file import ModelCard
from tinylens.inference.selective_prediction import LEAST_ANSWERED, SelectivePrediction, decide
from tinylens.models.batching import in_batches
from tinylens.models.build import LOG_PROBABILITIES, save, ship
from tinylens.models.embedding import batch_for
from tinylens.recipe import Recipe
from tinylens.results import Calibration, OodScores
from tinylens.run import Arrays, Run, RunInfo
from tinylens.system import now, tinylens_version

if TYPE_CHECKING:
    from tinylens.progress import ProgressReporter

Probabilities = NDArray[np.float32]

LIKELIHOOD_RATIO = 3.84  # the 95 % quantile of chi squared with one degree of freedom
PREDICT_BATCH = 500  # images a step
STRETCH_BYTES = 512 * 2**20  # of images a call: Keras copies them all, in float32
MOST_STRETCHED = 20 * PREDICT_BATCH  # images a call


def finish(
    run: Run,
    data: Splits,
    network: keras.Model,
    recipe: Recipe,
    info: RunInfo,
    reporter: ProgressReporter,
) -> None:
    """Turn a trained network into what a run leaves, all but the report.

    Args:
        run: locked; gets model.keras, model.onnx, predictions.npz and evaluation.json.
        data: what it was trained on.
        network: trained, pixels to logits.
        recipe: resolved.
        info: of the run; "evaluate" and "export" seconds and the opening of test are added.
        reporter: told of each phase.

    Raises:
        ModelError: the exported file does not answer as Keras does; it is not kept.
    """
    reporter.phase("calibrating on val" if data.val else "shipping")
    tta_views = recipe.model.tta_views
    calibration = calibrate(network, data.val, tta_views)
    shipped = ship(network, calibration.temperature, tta_views, calibration.curvature)
    deliver(run, data, (shipped, calibration), recipe, info, reporter)


def deliver(
    run: Run,
    data: Splits,
    calibrated: tuple[keras.Model, Calibration],
    recipe: Recipe,
    info: RunInfo,
    reporter: ProgressReporter,
) -> None:
    """Judge what ships, and write it and its figures into the run; arguments as for `finish`.

    Args:
        run: locked.
        data: what it was trained on.
        calibrated: uint8 images to probabilities, and how that was calibrated.
        recipe: resolved.
        info: of the run.
        reporter: told of each phase.
    """
    shipped, calibration = calibrated
    save(shipped, run.keras_model)
    reporter.phase("judging on train, val and test")
    begun = time.monotonic()
    info.test_opened.append({"time": now(), "command": info.command})
    info.notes += _notes(data, recipe)
    run.write_info(info)  # before the look, so that none goes unrecorded
    answering = with_logits(shipped)
    answers = _answer_all(answering, data, recipe)
    known = _decide(answers, recipe, info, reporter)
    evaluated = assemble(
        {name: (answers.probabilities[name], answers.labels[name]) for name in answers.rows},
        data.class_names,
        calibration,
        known,
    )
    info.seconds["evaluate"] = round(time.monotonic() - begun, 3)

    reporter.phase("showing it images from elsewhere")
    begun = time.monotonic()
    described = _score_ood(answering, data.test, answers)
    if described is not None:
        known = replace(known, ordinary=described.ordinary, refused=recipe.answer.refused or None)
    info.seconds["ood"] = round(time.monotonic() - begun, 3)

    reporter.phase("exporting, and checking the file on every test image")
    begun = time.monotonic()
    check = onnx.export_onnx(
        shipped,
        run.model,
        card=_card(data, recipe, calibration, known, _reference(data, answers)),
        check_images=data.test.images,
        check_probabilities=answers.probabilities["test"],
        ood_score=None if described is None else (described.ood_score, described.of_test),
    )
    info.seconds["export"] = round(time.monotonic() - begun, 3)
    if described is not None and check.has_ood_score:
        evaluated = replace(evaluated, ood=described.scores)
    elif data.val is not None:
        _report_missing_ood_score(recipe, info, reporter)
    run.write_predictions(_predictions(data, answers))
    run.write_evaluation(evaluated)


@dataclass(frozen=True, eq=False)
class _Answers:
    """What the network answers on each part: rows judged, their labels, and the answers."""

    rows: dict[str, NDArray[np.int64]]
    labels: dict[str, NDArray[np.int64]]
    probabilities: dict[str, Probabilities]
    logits: dict[str, Probabilities]


def _answer_all(answering: keras.Model, data: Splits, recipe: Recipe) -> _Answers:
    answers = _Answers({}, {}, {}, {})
    for name, part in data.items():
        rows = _evaluated_rows(name, len(part), recipe)
        answers.rows[name], answers.labels[name] = rows, part.labels[rows]
        answers.probabilities[name], answers.logits[name] = answer(answering, part.images, rows)
    return answers


@dataclass(frozen=True, eq=False)
class _OodResult:
    """The OOD score, its values on val and test, and how well it detects other images."""

    ood_score: OodScore
    ordinary: tuple[float, ...]
    of_test: NDArray[np.float64]
    scores: tuple[OodScores, ...]


def _score_ood(answering: keras.Model, test: Dataset, answers: _Answers) -> _OodResult | None:
    """Fit the OOD score and evaluate it; None without a val split to set its quantiles."""
    if "val" not in answers.logits:
        return None
    ood_score = out_of_distribution.fit(
        answers.logits["train"], answers.labels["train"], answers.logits["val"]
    )
    if ood_score is None:
        return None
    ordinary = out_of_distribution.quantiles(ood_score.of(answers.logits["val"]))
    of_test = ood_score.of(answers.logits["test"])
    scores = []
    for name, images in out_of_distribution.ood(test.images, test.class_names):
        _, logits = answer(answering, images, np.arange(len(images)))
        scores.append(out_of_distribution.evaluate(name, ood_score.of(logits), of_test, ordinary))
    return _OodResult(ood_score, ordinary, of_test, tuple(scores))


def _report_missing_ood_score(recipe: Recipe, info: RunInfo, reporter: ProgressReporter) -> None:
    note = (
        "the model has no OOD score: its answers are all alike, or the exported file gives another "
        "score than was computed"
    )
    if recipe.answer.refused:
        note += f"; answer.refused {recipe.answer.refused:g} is not kept, and nothing is refused"
    info.notes.append(note)
    reporter.say(note)


def _evaluated_rows(name: str, count: int, recipe: Recipe) -> NDArray[np.int64]:
    """Return the images of a part to judge, in order: all, or of train as many as asked for."""
    wanted = recipe.train.score_train
    if name != "train" or not 0 < wanted < count:
        return np.arange(count, dtype=np.int64)
    drawn = np.random.default_rng([recipe.data.split_seed, 0x5C0]).choice(count, wanted, False)
    return np.sort(drawn).astype(np.int64)


def _notes(data: Splits, recipe: Recipe) -> list[str]:
    """Return what a reader of the figures must know of how they were made."""
    notes = []
    if 0 < recipe.train.score_train < len(data.train):
        notes.append(
            f"train is judged on {recipe.train.score_train:,} of its {len(data.train):,} images, "
            "drawn by data.split_seed"
        )
    if recipe.model.tta_views > 1:
        notes.append(
            f"every answer is the mean over {recipe.model.tta_views} views of the image "
            "(test-time augmentation)"
        )
    return notes


def calibrate(network: keras.Model, val: Dataset | None, tta_views: int = 1) -> Calibration:
    """Return what calibrates a network best on val; without a val split nothing does."""
    if val is None:
        return Calibration(temperature=1.0, chosen_on="none")
    return calibration_of(predict(ship(network, tta_views=tta_views), val.images), val)


def calibration_of(before: Probabilities, val: Dataset) -> Calibration:
    """Return what calibrates probabilities for val, float32, shape (n, classes), best.

    A temperature (Guo et al. 2017), and a bend where that makes the log loss smaller by more than
    one more parameter would by chance (a likelihood ratio test at 5 %).
    """
    logits = np.log(np.maximum(before, 1e-30))
    temperature, curvature = metrics.fit_temperature(logits, val.labels), 0.0
    after = metrics.calibrated(logits, temperature)
    with_curvature = metrics.fit_curvature(logits, val.labels)
    curved = metrics.calibrated(logits, *with_curvature)
    gained = metrics.log_loss(after, val.labels) - metrics.log_loss(curved, val.labels)
    if 2 * len(val) * gained > LIKELIHOOD_RATIO:
        (temperature, curvature), after = with_curvature, curved
    return Calibration(
        temperature=temperature,
        curvature=curvature,
        chosen_on="val",
        log_loss_before=metrics.log_loss(before, val.labels),
        log_loss_after=metrics.log_loss(after, val.labels),
        brier_before=float(metrics.brier_scores(before, val.labels).mean()),
        brier_after=float(metrics.brier_scores(after, val.labels).mean()),
        ece_before=metrics.expected_calibration_error(before, val.labels),
        ece_after=metrics.expected_calibration_error(after, val.labels),
    )


def predict(shipped: keras.Model, images: Images) -> Probabilities:
    """Return Keras's probabilities, float32, shape (n, classes), for uint8 images.

    Args:
        shipped: from uint8 images to probabilities.
        images: uint8, shape (n, height, width, channels).
    """
    stretch, batch = _stretch(images), batch_for(shipped, PREDICT_BATCH)
    stretches = [
        shipped.predict(**in_batches(images[start : start + stretch], batch_size=batch), verbose=0)
        for start in range(0, len(images), stretch)
    ]
    return np.concatenate(stretches)


def _stretch(images: Images) -> int:
    """Return how many images go into a call: whole batches, as many as STRETCH_BYTES allow."""
    affordable = STRETCH_BYTES // (4 * math.prod(images.shape[1:]))
    return max(min(affordable, MOST_STRETCHED) // PREDICT_BATCH, 1) * PREDICT_BATCH


def with_logits(shipped: keras.Model) -> keras.Model:
    """Return a model of the same layers that gives probabilities and logits."""
    names = [layer.name for layer in shipped.layers]
    last = LOG_PROBABILITIES if LOG_PROBABILITIES in names else "probabilities"
    return keras.Model(shipped.input, [shipped.output, shipped.get_layer(last).input])


def answer(
    answering: keras.Model, images: Images, rows: NDArray[np.int64]
) -> tuple[Probabilities, Probabilities]:
    """Return Keras's probabilities and logits, both float32, shape (n, classes).

    Args:
        answering: of `with_logits`.
        images: uint8, shape (n, height, width, channels).
        rows: which of them, in order.
    """
    stretch, batch = _stretch(images), batch_for(answering, PREDICT_BATCH)
    stretches = [
        answering.predict(
            **in_batches(images[rows[start : start + stretch]], batch_size=batch), verbose=0
        )
        for start in range(0, len(rows), stretch)
    ]
    probabilities, logits = (np.concatenate(parts) for parts in zip(*stretches, strict=True))
    return probabilities, logits


def open_shipped(run: Run) -> keras.Model:
    """Return what a finished run ships, as Keras has it: uint8 images to probabilities.

    Raises:
        ModelError: it cannot be opened.
    """
    try:
        return keras.saving.load_model(run.keras_model, compile=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"{run.keras_model} cannot be opened by Keras: {error}") from None


def _decide(
    answers: _Answers, recipe: Recipe, info: RunInfo, reporter: ProgressReporter
) -> SelectivePrediction:
    """Return when not to answer, going by val; say so where what was asked for cannot be kept."""
    if "val" not in answers.labels:
        return SelectivePrediction()
    labels = answers.labels["val"]
    wanted = recipe.answer.max_error or None
    known = decide(answers.probabilities["val"], labels, wanted)
    if wanted is not None and known.max_error is None:
        note = (
            f"no confidence was found that keeps the error at {100 * wanted:g} %: among the "
            f"{LEAST_ANSWERED:.0%} of val that the network is surest of too many are wrong to "
            f"promise that, or val, {len(labels):,} images, is too small to tell; the "
            "model answers always"
        )
        info.notes.append(note)
        reporter.say(note)
    return known


def _reference(data: Splits, answers: _Answers) -> drift.Reference:
    """Return what images of val look like, of train where there is no val: what is ordinary."""
    part = data.val if data.val is not None else data.train
    name = "train" if data.val is None else "val"
    confidence = answers.probabilities[name].max(axis=1)
    return drift.reference(part.images, answers.rows[name], confidence, name)


def _card(
    data: Splits,
    recipe: Recipe,
    calibration: Calibration,
    known: SelectivePrediction,
    reference: drift.Reference,
) -> ModelCard:
    return ModelCard(
        class_names=data.class_names,
        rule=rule_of(data.train),
        network=recipe.model.name,
        dataset=PurePath(data.source).name or data.source,  # a path would tell of its owner
        fingerprint=data.fingerprint,
        created=now(),
        tinylens=tinylens_version(),
        temperature=calibration.temperature,
        curvature=calibration.curvature,
        chosen_on="" if calibration.chosen_on == "none" else calibration.chosen_on,
        selective=known,
        input_checks=study(data.train.images),
        reference=reference,
    )


def _predictions(data: Splits, answers: _Answers) -> Arrays:
    arrays: Arrays = {}
    for name in answers.rows:
        arrays[f"{name}_probabilities"] = answers.probabilities[name]
        arrays[f"{name}_labels"] = answers.labels[name]
        arrays[f"{name}_indices"] = answers.rows[name]
    test, given = data.test, answers.probabilities["test"]
    chosen = {
        "worst": worst_mistakes(given, test.labels),
        "confused": confused(given, test.labels, test.image_shape),
    }
    for name, picked in chosen.items():
        arrays[f"{name}_indices"] = picked
        arrays[f"{name}_images"] = np.array(test.images[picked])
    return arrays
