"""How good the weights in hand are on val, in the midst of training."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from tinylens import augment, balance
from tinylens.compiling import Trainer
from tinylens.feeding import in_batches

VAL_BATCH = 500  # pictures a step when nothing is kept for a gradient


def judge_on_val(trainer: Trainer) -> dict[str, float]:
    """Return "val_loss" and "val_accuracy" of the (averaged) weights.

    Where uneven classes are made up for also "val_macro_f1" and "val_macro_f1_error", of
    `balance.even_macro_f1`: accuracy hardly asks for the rare ones.
    """
    trained = trainer.network.get_weights()
    trainer.network.set_weights(averaged_weights(trainer))
    n_train = len(trainer.labels) - trainer.n_val
    indices = np.arange(n_train, len(trainer.labels), dtype=np.int32)
    seen = (indices, np.zeros((trainer.n_val, augment.NUM_DRAWS), np.float32))
    labels = trainer.labels[n_train:]
    with trainer.reading_ahead(indices, VAL_BATCH):
        if trainer.recipe.train.balance == "none":
            found = _plain(trainer, seen, labels)
        else:
            logits = trainer.model.predict(**in_batches(seen, batch_size=VAL_BATCH), verbose=0)
            found = _with_macro_f1(trainer, logits, labels)
    trainer.network.set_weights(trained)
    return found


def _plain(
    trainer: Trainer, seen: tuple[Any, Any], labels: NDArray[np.float32]
) -> dict[str, float]:
    batches = in_batches(seen, labels, batch_size=VAL_BATCH)
    figures = trainer.model.evaluate(**batches, verbose=0, return_dict=True)
    return {"val_loss": float(figures["loss"]), "val_accuracy": float(figures["accuracy"])}


def _with_macro_f1(
    trainer: Trainer, logits: NDArray[np.float32], labels: NDArray[np.float32]
) -> dict[str, float]:
    answers, truth = logits.argmax(axis=1), labels.argmax(axis=1)
    score, error = balance.even_macro_f1(answers, truth, logits.shape[1])
    return {
        "val_loss": float(keras.ops.convert_to_numpy(trainer.model.loss(labels, logits))),
        "val_accuracy": float((answers == truth).mean()),
        "val_macro_f1": score,
        "val_macro_f1_error": error,
    }


def averaged_weights(trainer: Trainer) -> list[NDArray[Any]]:
    """Return the network's weights, with the running means in place where the recipe has them."""
    weights: list[NDArray[Any]] = trainer.network.get_weights()
    if not trainer.recipe.train.ema:
        return weights
    optimizer = trainer.model.optimizer
    means = dict(
        zip(
            (variable.path for variable in trainer.network.trainable_variables),
            optimizer._model_variables_moving_average,
            strict=True,
        )
    )
    return [
        np.array(means[variable.path]) if variable.path in means else values
        for variable, values in zip(trainer.network.weights, weights, strict=True)
    ]
