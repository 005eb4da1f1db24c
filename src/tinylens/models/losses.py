"""Training losses: cross-entropy and knowledge distillation."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tinylens.recipe import Recipe


def build(recipe: Recipe, *, distilled: bool) -> keras.losses.Loss:
    """Build the recipe's loss on logits: cross-entropy, with distillation if configured."""
    labels = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=recipe.train.label_smoothing
    )
    if not distilled:
        return labels
    return LabelsAndTeacher(
        recipe.distil.temperature, recipe.distil.share, recipe.train.label_smoothing
    )


class LabelsAndTeacher(keras.losses.Loss):
    """Knowledge-distillation loss: cross-entropy against labels and soft teacher targets.

    The teacher term is scaled by temperature² to keep gradient magnitudes comparable (Hinton et
    al. 2015, arXiv:1503.02531, section 2).

    Args:
        temperature: Softening temperature.
        share: Weight of the teacher term.
        label_smoothing: Share of each label spread over all classes.
    """

    def __init__(self, temperature: float, share: float, label_smoothing: float) -> None:
        super().__init__(name="labels_and_teacher")
        self.temperature = temperature
        self.share = share
        self.label_smoothing = label_smoothing

    def call(self, targets: Any, logits: Any) -> Any:
        """Compute the loss per image, shape (batch,).

        Args:
            targets: shape (batch, 2 · classes): one-hot labels, then soft teacher targets, or zeros
                to use the labels alone.
            logits: shape (batch, classes).
        """
        classes = logits.shape[-1]
        labels, soft = targets[:, :classes], targets[:, classes:]
        against_labels = keras.losses.categorical_crossentropy(
            labels, logits, from_logits=True, label_smoothing=self.label_smoothing
        )
        scaled = logits / self.temperature
        against_teacher = self.temperature**2 * keras.losses.categorical_crossentropy(
            soft, scaled, from_logits=True
        )
        share = self.share * ops.sum(soft, axis=-1)
        return (1 - share) * against_labels + share * against_teacher
