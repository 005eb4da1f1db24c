"""Steps down the gradient with Nesterov momentum: plain, or orthogonal on convolution kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

PACKAGE = "tinylens"
STEEP = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024: the quintic's coefficients
ROUNDS = 3  # of the iteration; more change nothing that was measured (Jordan 2024, airbench)


@keras.saving.register_keras_serializable(package=PACKAGE)
class NesterovSGD(keras.optimizers.Optimizer):
    """Gradient descent with Nesterov momentum and a learning rate for each kind of weight.

    The buffer holds gradients, not steps: b ← momentum · b + g, w ← w - rate · (g + momentum · b).
    Keras's own SGD keeps the rate inside its buffer, so under a falling rate its old steps go on
    at the old rate (Sutskever et al. 2013 against the form used since PyTorch).

    Args:
        learning_rate: of convolution kernels; a number or a schedule.
        momentum: share of the buffer that stays from step to step.
        head_rate: the rate of dense kernels, as a multiple of `learning_rate`.
        bias_rate: the rate of biases, norm scales and norm offsets, likewise.
    """

    def __init__(
        self,
        learning_rate: Any = 0.1,
        momentum: float = 0.9,
        *,
        head_rate: float = 1.0,
        bias_rate: float = 1.0,
        name: str = "nesterov_sgd",
        **options: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name, **options)
        self.momentum = momentum
        self.head_rate = head_rate
        self.bias_rate = bias_rate

    def build(self, variables: Sequence[Any]) -> None:
        """Make a buffer a variable."""
        if self.built:
            return
        super().build(variables)
        self.buffers = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Move `variable` by one step."""
        rate = ops.cast(learning_rate, variable.dtype)
        step = self._averaged(gradient, variable, self.momentum)
        self.assign_sub(variable, step * rate * self._relative_rate(variable))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this optimizer again."""
        own = {
            "momentum": self.momentum,
            "head_rate": self.head_rate,
            "bias_rate": self.bias_rate,
        }
        return {**super().get_config(), **own}

    def _averaged(self, gradient: Any, variable: Any, momentum: float) -> Any:
        """Put the gradient into the buffer; return Nesterov's look ahead."""
        buffer = self.buffers[self._get_variable_index(variable)]
        gradient = ops.cast(gradient, variable.dtype)
        moved = buffer * momentum + gradient
        self.assign(buffer, moved)
        return gradient + moved * momentum

    def _relative_rate(self, variable: Any) -> float:
        if is_kernel(variable):
            return 1.0
        return self.head_rate if len(variable.shape) == 2 else self.bias_rate


@keras.saving.register_keras_serializable(package=PACKAGE)
class Muon(NesterovSGD):
    """Orthogonal steps on convolution kernels, Nesterov SGD on everything else.

    A kernel's averaged gradient, as a matrix of shape (outputs, inputs · height · width), is
    replaced by one with the same singular vectors and singular values near 1 (Jordan et al. 2024,
    "Muon"); the kernel is first brought to the norm √outputs, as in airbench94_muon (Jordan 2024),
    so the learning rate alone says by how much it turns. Keras's own Muon gives kernels of rank 4
    to AdamW.

    Args:
        learning_rate: of convolution kernels; a number or a schedule.
        momentum: of convolution kernels.
        vector_momentum: of everything else.
        arithmetic: of the iteration, "float32" or "bfloat16": it need not be exact (Jordan 2024).
        head_rate: the rate of dense kernels, as a multiple of `learning_rate`.
        bias_rate: the rate of biases, norm scales and norm offsets, likewise.
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
        """Move `variable` by one step."""
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
        """Return the arguments that make this optimizer again."""
        own = {"vector_momentum": self.vector_momentum, "arithmetic": self.arithmetic}
        return {**super().get_config(), **own}


def is_kernel(variable: Any) -> bool:
    """Return whether `variable` is the kernel of a convolution over all channels."""
    return len(variable.shape) == 4 and variable.shape[-1] > 1


def orthogonal(gradient: Any, arithmetic: str = "float32") -> Any:
    """Return a kernel of shape (height, width, inputs, outputs) with singular values near 1.

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
