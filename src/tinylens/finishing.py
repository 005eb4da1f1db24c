"""What comes after the last step: calibrate, ship, check, judge, and write it all into the run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import keras
import numpy as np
import scipy.special
from numpy.typing import NDArray

from tinylens import evaluation, exporting, files, metrics, mistakes, models
from tinylens.data.dataset import Dataset, Images, Splits
from tinylens.data.images import ImageRule
from tinylens.deciding import LEAST_ANSWERED, Deciding, decide
from tinylens.environment import now, tinylens_version
from tinylens.modelfile import ModelCard
from tinylens.recipe import Recipe
from tinylens.run import Arrays, Run
from tinylens.run_info import RunInfo
from tinylens.scores import Calibration

if TYPE_CHECKING:
    from tinylens.fitting import Watcher

Probabilities = NDArray[np.float32]

PREDICT_BATCH = 500  # pictures a step
PREDICT_STRETCH = 20 * PREDICT_BATCH  # and a call


def finish(
    run: Run, data: Splits, network: keras.Model, recipe: Recipe, info: RunInfo, watcher: Watcher
) -> None:
    """Turn a trained network into what a run leaves, all but the report.

    Args:
        run: locked; gets model.keras, model.onnx, predictions.npz and evaluation.json.
        data: what it was trained on.
        network: trained, pixels to logits.
        recipe: resolved.
        info: of the run; "evaluate" and "export" seconds and the opening of test are added.
        watcher: told of each phase.

    Raises:
        ModelError: the exported file does not answer as Keras does; it is not kept.
    """
    watcher.phase("calibrating on val" if data.val else "shipping")
    views = recipe.model.views
    calibration = calibrate(network, data.val, views)
    shipped = models.ship(network, calibration.temperature, views)
    _save_keras(run, shipped)

    watcher.phase("judging on train, val and test")
    begun = time.monotonic()
    info.test_opened.append({"time": now(), "command": info.command})
    info.notes += _notes(data, recipe)
    run.write_info(info)  # before the look, so that none goes unrecorded
    rows = {name: _judged_rows(name, len(part), recipe) for name, part in data.items()}
    labels = {name: part.labels[rows[name]] for name, part in data.items()}
    answers = {name: predict(shipped, part.images, rows[name]) for name, part in data.items()}
    known = _decide(answers, labels, recipe, info, watcher)
    judged = evaluation.assemble(
        {name: (answers[name], labels[name]) for name in answers},
        data.class_names,
        calibration,
        known,
    )
    info.seconds["evaluate"] = round(time.monotonic() - begun, 3)

    watcher.phase("exporting, and checking the file on every test picture")
    begun = time.monotonic()
    exporting.export_onnx(
        shipped,
        run.model,
        card=_card(data, recipe, calibration, known),
        check_images=data.test.images,
        check_probabilities=answers["test"],
    )
    info.seconds["export"] = round(time.monotonic() - begun, 3)
    run.write_predictions(_predictions(data, answers, rows))
    run.write_evaluation(judged)


def _judged_rows(name: str, count: int, recipe: Recipe) -> NDArray[np.int64]:
    """Return the pictures of a part to judge, in order: all, or of train as many as asked for."""
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
            f"train is judged on {recipe.train.score_train:,} of its {len(data.train):,} pictures, "
            "drawn by data.split_seed"
        )
    if recipe.model.views > 1:
        notes.append(
            f"every answer is the mean over {recipe.model.views} views of the picture "
            "(test-time augmentation)"
        )
    return notes


def calibrate(network: keras.Model, val: Dataset | None, views: int = 1) -> Calibration:
    """Return the temperature that fits val best (Guo et al. 2017), or 1 without a val part."""
    if val is None:
        return Calibration(temperature=1.0, chosen_on="none")
    before = predict(models.ship(network, views=views), val.images)
    logits = np.log(np.maximum(before, 1e-30))
    temperature = metrics.fit_temperature(logits, val.labels)
    after = scipy.special.softmax(logits / temperature, axis=1)
    return Calibration(
        temperature=temperature,
        chosen_on="val",
        log_loss_before=metrics.log_loss(before, val.labels),
        log_loss_after=metrics.log_loss(after, val.labels),
    )


def predict(
    shipped: keras.Model, images: Images, rows: NDArray[np.int64] | None = None
) -> Probabilities:
    """Return Keras's probabilities, float32, shape (n, classes), for uint8 pictures.

    Args:
        shipped: from uint8 pictures to probabilities.
        images: uint8, shape (n, height, width, channels).
        rows: which of them, in order; None takes all.
    """
    count = len(images) if rows is None else len(rows)
    stretches = []
    for start in range(0, count, PREDICT_STRETCH):  # Keras copies what it is given, in float32
        chosen = slice(start, start + PREDICT_STRETCH)
        pictures = images[chosen] if rows is None else images[rows[chosen]]
        stretches.append(shipped.predict(pictures, batch_size=PREDICT_BATCH, verbose=0))
    return np.concatenate(stretches)


def _save_keras(run: Run, shipped: keras.Model) -> None:
    # Keras writes in place, so a kill would leave half a file under the name
    temporary = files.temporary_beside(run.keras_model)
    try:
        shipped.save(temporary)
        files.fsync_file(temporary)
        temporary.replace(run.keras_model)
    finally:
        temporary.unlink(missing_ok=True)
    files.fsync_folder(run.path)


def _decide(
    answers: dict[str, Probabilities],
    labels: dict[str, NDArray[np.int64]],
    recipe: Recipe,
    info: RunInfo,
    watcher: Watcher,
) -> Deciding:
    """Return when not to answer, going by val; say so where what was asked for cannot be kept."""
    if "val" not in answers:
        return Deciding()
    wanted = recipe.answer.max_error or None
    known = decide(answers["val"], labels["val"], wanted)
    if wanted is not None and known.max_error is None:
        note = (
            f"no confidence was found that keeps the error at {100 * wanted:g} %: among the "
            f"{LEAST_ANSWERED:.0%} of val that the network is surest of too many are wrong to "
            f"promise that, or val, {len(labels['val']):,} pictures, is too small to tell; the "
            "model answers always"
        )
        info.notes.append(note)
        watcher.say(note)
    return known


def _card(data: Splits, recipe: Recipe, calibration: Calibration, known: Deciding) -> ModelCard:
    height, width, channels = data.train.image_shape
    return ModelCard(
        class_names=data.class_names,
        rule=ImageRule(height=height, width=width, channels=1 if channels == 1 else 3),
        network=recipe.model.name,
        dataset=data.source,
        fingerprint=data.fingerprint,
        created=now(),
        tinylens=tinylens_version(),
        temperature=calibration.temperature,
        chosen_on="" if calibration.chosen_on == "none" else calibration.chosen_on,
        deciding=known,
    )


def _predictions(
    data: Splits, answers: dict[str, Probabilities], rows: dict[str, NDArray[np.int64]]
) -> Arrays:
    arrays: Arrays = {}
    for name, part in data.items():
        arrays[f"{name}_probabilities"] = answers[name]
        arrays[f"{name}_labels"] = part.labels[rows[name]]
        arrays[f"{name}_indices"] = rows[name]
    test = data.test
    chosen = {
        "worst": evaluation.worst_mistakes(answers["test"], test.labels),
        "confused": mistakes.confused(answers["test"], test.labels, test.image_shape),
    }
    for name, picked in chosen.items():
        arrays[f"{name}_indices"] = picked
        arrays[f"{name}_images"] = np.array(test.images[picked])
    return arrays
