"""A learning rate for each variable, whatever the optimizer and the backend."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import keras
from keras import ops


def set_apart(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[Any], rates: Sequence[float]
) -> None:
    """Let an optimizer move each variable at a rate of its own, weight decay included.

    On torch Keras's optimizers move all variables in one call, so the rate cannot be changed
    within a step of one variable; here a call is made for each rate.

    Args:
        optimizer: changed; not built yet, or built for these variables.
        variables: all that it trains.
        rates: of each, as a multiple of the optimizer's learning rate.
    """
    rate_of = {id(variable): rate for variable, rate in zip(variables, rates, strict=True)}
    move = optimizer._backend_update_step

    def move_apart(gradients: Any, moved: Any, learning_rate: Any) -> None:
        pairs = zip(gradients, moved, strict=True)
        for rate, group in groupby(pairs, key=lambda pair: rate_of[id(pair[1])]):
            of_group = list(group)
            move(
                [pair[0] for pair in of_group],
                [pair[1] for pair in of_group],
                ops.multiply(learning_rate, rate),
            )

    def decay_apart(decayed: Any) -> None:
        if optimizer.weight_decay is None:
            return
        for variable in decayed:
            if optimizer._use_weight_decay(variable):
                share = optimizer.weight_decay * rate_of[id(variable)]
                factor = ops.cast(optimizer.learning_rate * share, variable.dtype)
                variable.assign(variable - variable * factor)

    optimizer._backend_update_step = move_apart
    optimizer._apply_weight_decay = decay_apart
