"""Optimizers and learning-rate schedules."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import keras
import numpy as np
from keras import ops

from tinylens.recipe import OptimizerSection


def set_apart(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[Any], rates: Sequence[float]
) -> None:
    """Give an optimizer per-variable learning rates, weight decay included.

    On torch, Keras updates all variables in one call, so one call is made per rate.

    Args:
        optimizer: Optimizer, modified in place; unbuilt, or built for these variables.
        variables: All trained variables.
        rates: Learning-rate multiplier per variable.
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


PACKAGE = "tinylens"
STEEP = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024: the quintic's coefficients
ROUNDS = 3  # of the iteration; more change nothing that was measured (Jordan 2024, airbench)


@keras.saving.register_keras_serializable(package=PACKAGE)
class NesterovSGD(keras.optimizers.Optimizer):
    """SGD with Nesterov momentum and per-kind learning rates.

    The buffer holds gradients, not steps: b ← momentum · b + g, w ← w - rate · (g + momentum · b),
    as in PyTorch. Keras's SGD (Sutskever et al. 2013) keeps the rate in its buffer, so old steps
    continue at the old rate while the rate decays.

    Args:
        learning_rate: Learning rate of convolution kernels, a number or a schedule.
        momentum: Momentum coefficient.
        head_lr_multiplier: Learning-rate multiplier of dense kernels.
        bias_lr_multiplier: Learning-rate multiplier of biases, norm scales and norm offsets.
    """

    def __init__(
        self,
        learning_rate: Any = 0.1,
        momentum: float = 0.9,
        *,
        head_lr_multiplier: float = 1.0,
        bias_lr_multiplier: float = 1.0,
        name: str = "nesterov_sgd",
        **options: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name, **options)
        self.momentum = momentum
        self.head_lr_multiplier = head_lr_multiplier
        self.bias_lr_multiplier = bias_lr_multiplier

    def build(self, variables: Sequence[Any]) -> None:
        """Create one momentum buffer per variable."""
        if self.built:
            return
        super().build(variables)
        self.buffers = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update `variable` by one step."""
        rate = ops.cast(learning_rate, variable.dtype)
        step = self._averaged(gradient, variable, self.momentum)
        self.assign_sub(variable, step * rate * self._relative_rate(variable))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments."""
        own = {
            "momentum": self.momentum,
            "head_lr_multiplier": self.head_lr_multiplier,
            "bias_lr_multiplier": self.bias_lr_multiplier,
        }
        return {**super().get_config(), **own}

    def _averaged(self, gradient: Any, variable: Any, momentum: float) -> Any:
        """Update the momentum buffer; return the Nesterov look-ahead."""
        buffer = self.buffers[self._get_variable_index(variable)]
        gradient = ops.cast(gradient, variable.dtype)
        moved = buffer * momentum + gradient
        self.assign(buffer, moved)
        return gradient + moved * momentum

    def _relative_rate(self, variable: Any) -> float:
        if is_kernel(variable):
            return 1.0
        return self.head_lr_multiplier if len(variable.shape) == 2 else self.bias_lr_multiplier


@keras.saving.register_keras_serializable(package=PACKAGE)
class Muon(NesterovSGD):
    """Muon (orthogonalized updates) for convolution kernels, Nesterov SGD for the rest.

    A kernel's averaged gradient, as a matrix of shape (outputs, inputs · height · width), is
    replaced by one with the same singular vectors and singular values near 1 (Jordan et al. 2024,
    "Muon"); the kernel is first brought to the norm √outputs, as in airbench94_muon (Jordan 2024),
    so the learning rate alone says by how much it turns. Keras's own Muon gives kernels of rank 4
    to AdamW.

    Args:
        learning_rate: Learning rate of convolution kernels, a number or a schedule.
        momentum: Momentum of convolution kernels.
        vector_momentum: Momentum of everything else.
        arithmetic: Dtype of the iteration, "float32" or "bfloat16" (Jordan 2024).
        head_lr_multiplier: Learning-rate multiplier of dense kernels.
        bias_lr_multiplier: Learning-rate multiplier of biases, norm scales and norm offsets.
    """

    def __init__(
        self,
        learning_rate: Any = 0.24,
        momentum: float = 0.6,
        *,
        vector_momentum: float = 0.85,
        arithmetic: str = "float32",
        name: str = "muon",
        **options: Any,
    ) -> None:
        super().__init__(learning_rate, momentum, name=name, **options)
        self.vector_momentum = vector_momentum
        self.arithmetic = arithmetic

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update `variable` by one step."""
        rate = ops.cast(learning_rate, variable.dtype)
        if is_kernel(variable):
            averaged = self._averaged(gradient, variable, self.momentum)
            turn = orthogonal(averaged, self.arithmetic)
            norm = ops.sqrt(ops.sum(ops.square(variable)))
            scaled = variable * (variable.shape[-1] ** 0.5 / (norm + 1e-7))
            self.assign(variable, scaled - rate * turn)
            return
        step = self._averaged(gradient, variable, self.vector_momentum)
        self.assign_sub(variable, step * rate * self._relative_rate(variable))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments."""
        own = {"vector_momentum": self.vector_momentum, "arithmetic": self.arithmetic}
        return {**super().get_config(), **own}


def is_kernel(variable: Any) -> bool:
    """Return whether `variable` is the kernel of a full (non-depthwise) convolution."""
    return len(variable.shape) == 4 and variable.shape[-1] > 1


def orthogonal(gradient: Any, arithmetic: str = "float32") -> Any:
    """Orthogonalize a kernel of shape (height, width, inputs, outputs).

    The Newton-Schulz iteration X ← aX + (bA + cA²)X, A = XXᵀ, with coefficients that are steep at 0
    (Jordan et al. 2024): it needs products only, no decomposition.
    """
    shape = gradient.shape
    matrix = ops.transpose(ops.reshape(gradient, (-1, shape[-1])))
    tall = matrix.shape[0] > matrix.shape[1]
    x = ops.transpose(matrix) if tall else matrix
    x = ops.cast(x / (ops.sqrt(ops.sum(ops.square(x))) + 1e-7), arithmetic)
    a, b, c = STEEP
    for _ in range(ROUNDS):
        square = ops.matmul(x, ops.transpose(x))
        x = a * x + ops.matmul(b * square + c * ops.matmul(square, square), x)
    matrix = ops.transpose(x) if tall else x
    return ops.cast(ops.reshape(ops.transpose(matrix), shape), gradient.dtype)


FIRST_RATE = 0.1  # share of the highest learning rate at which a warm-up starts


@keras.saving.register_keras_serializable(package="tinylens")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Learning-rate schedule: linear warm-up, then the recipe's decay.

    Args:
        spec: Optimizer section of the recipe.
        steps: Total training steps.
    """

    def __init__(self, spec: OptimizerSection, steps: int) -> None:
        self.spec = spec
        self.steps = steps

    def __call__(self, step: Any) -> Any:
        """Return the learning rate at `step`, a scalar tensor from 0."""
        spec = self.spec
        progress = ops.clip(ops.cast(step, "float32") / max(self.steps, 1), 0.0, 1.0)
        if spec.schedule == "cosine":
            share = 0.5 * (1 + ops.cos(np.pi * self._after_warmup(progress)))
            share = spec.final_rate + (1 - spec.final_rate) * share
        elif spec.schedule == "linear":
            share = 1 - (1 - spec.final_rate) * self._after_warmup(progress)
        else:
            share = ops.ones_like(progress)
        if spec.warmup:
            rising = FIRST_RATE + (1 - FIRST_RATE) * progress / spec.warmup
            share = ops.where(progress < spec.warmup, rising, share)
        return spec.learning_rate * share

    def _after_warmup(self, progress: Any) -> Any:
        return ops.clip((progress - self.spec.warmup) / (1 - self.spec.warmup), 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments."""
        return {"spec": self.spec.model_dump(), "steps": self.steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Schedule:
        """Build a schedule from `get_config`."""
        return cls(OptimizerSection(**config["spec"]), config["steps"])


def build(
    spec: OptimizerSection, steps: int, ema: float = 0.0, precision: str = "float32"
) -> keras.optimizers.Optimizer:
    """Build the optimizer for `steps` training steps.

    Args:
        spec: Optimizer section of the recipe.
        steps: Total training steps, the end of the schedule.
        ema: Momentum of the exponential moving average of the weights; 0 for none.
        precision: "float32" or "bfloat16" arithmetic; weights are float32.
    """
    common: dict[str, Any] = {
        "learning_rate": Schedule(spec, steps),
        "global_clipnorm": spec.clip_norm or None,
    }
    if spec.weight_decay or spec.name == "adamw":  # Keras's AdamW insists on a number
        common["weight_decay"] = spec.weight_decay
    if ema:
        common |= {"use_ema": True, "ema_momentum": ema}
    optimizer = _plain(spec, common, precision)
    # `fit` would put the mean into the weights at its end, which is each epoch's; fitting.py does
    optimizer.finalize_variable_values = lambda _: None
    return optimizer


def _plain(
    spec: OptimizerSection, common: dict[str, Any], precision: str
) -> keras.optimizers.Optimizer:
    if spec.name == "adamw":
        return keras.optimizers.AdamW(**common)
    if spec.name == "adam":
        return keras.optimizers.Adam(**common)
    common |= {
        "head_lr_multiplier": spec.head_lr_multiplier,
        "bias_lr_multiplier": spec.bias_lr_multiplier,
    }
    if spec.name == "sgd":
        return NesterovSGD(momentum=spec.momentum, **common)
    common |= {"momentum": spec.momentum, "vector_momentum": spec.vector_momentum}
    return Muon(arithmetic=precision, **common)
