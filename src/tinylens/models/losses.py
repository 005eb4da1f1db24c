"""What a training makes small."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tinylens.recipe import Recipe


def build(recipe: Recipe, *, distilled: bool) -> keras.losses.Loss:
    """Return the loss of a recipe: of logits against one-hot labels, or a teacher's answers too."""
    labels = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=recipe.train.label_smoothing
    )
    if not distilled:
        return labels
    return LabelsAndTeacher(
        recipe.distil.temperature, recipe.distil.share, recipe.train.label_smoothing
    )


class LabelsAndTeacher(keras.losses.Loss):
    """Cross-entropy against labels and against a teacher's softened answers, mixed.

    The latter is taken between softened answers on both sides, times temperature², so that its
    gradients are of the size of the former's (Hinton et al. 2015, arXiv:1503.02531, section 2).

    Args:
        temperature: that softens.
        share: of the teacher's part.
        label_smoothing: share of each label spread over all classes.
    """

    def __init__(self, temperature: float, share: float, label_smoothing: float) -> None:
        super().__init__(name="labels_and_teacher")
        self.temperature = temperature
        self.share = share
        self.label_smoothing = label_smoothing

    def call(self, targets: Any, logits: Any) -> Any:
        """Return the loss of each image, shape (batch,).

        Args:
            targets: shape (batch, 2 · classes): one-hot labels, then the teacher's softened
                answers, or zeros where it was not asked: there labels alone count.
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
