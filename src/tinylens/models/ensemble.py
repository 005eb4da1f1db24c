"""Several networks as one: the mean of their probabilities (Hansen & Salamon 1990)."""

from __future__ import annotations

from collections.abc import Sequence

import keras

LEAST = 1e-30  # added to the mean: a probability of 0 has no logarithm


def mean_logits(members: Sequence[keras.Model]) -> keras.Model:
    """Return a model that gives the logarithms of the members' mean probabilities.

    Args:
        members: each from pictures of the same shape to probabilities of the same classes; their
            layers are used, not copied.
    """
    first = members[0]
    pictures = keras.Input(first.input_shape[1:], dtype=first.input.dtype, name="image")
    answers = [
        # a model is a layer here, and layers need names of their own
        keras.Model(member.input, member.output, name=f"member_{number}")(pictures)
        for number, member in enumerate(members, start=1)
    ]
    mean = keras.layers.Average(dtype="float32", name="mean")(answers)
    positive = keras.layers.Rescaling(1.0, offset=LEAST, dtype="float32", name="positive")(mean)
    return keras.Model(pictures, keras.ops.log(positive), name="mean_logits")
