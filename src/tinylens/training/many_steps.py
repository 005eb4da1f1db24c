"""JAX: many training steps in one compiled call.

On a GPU a step of a small network is over in a few milliseconds; what the host does between two of
them - the next batch, the call, the running means read back - is no longer little beside that.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

SECONDS_A_CALL = 0.5  # so long a wish to stop may have to wait

Batches = Mapping[str, NDArray[Any]]
State = tuple[list[Any], list[Any], list[Any]]  # trainable, other variables, the optimizer's


def pay() -> bool:
    """Return whether steps are faster in one call: on a GPU.

    On a processor steps take long, and XLA's convolutions within a loop use one thread.
    """
    import jax

    return bool(jax.default_backend() == "gpu")


def keep_compiled(folder: Path) -> None:
    """Let JAX keep what it compiles in `folder`, unless it was told of another place."""
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(folder))


class ManySteps:
    """Trains a compiled model, many steps at a time.

    Args:
        model: from indices and draws to logits, compiled with a loss and a built optimizer.
    """

    def __init__(self, model: keras.Model) -> None:
        import jax

        self.model = model
        self.seconds_a_step = math.inf  # the first call compiles too; the second sets that right
        self._advance = jax.jit(self._steps, donate_argnums=0)

    def run(
        self, batches: Batches, steps: range, describe: Callable[[int, float, float], None]
    ) -> None:
        """Take some steps of an epoch; the model's variables are right whenever `tell` is called.

        Args:
            batches: "indices", "draws" and "labels", and "weights" where the loss has them, each of
                shape (all steps, batch size, ...). One shape is compiled once.
            steps: which of them.
            describe: called after every call with the steps done, and their mean loss and accuracy.
        """
        placed = {name: ops.convert_to_tensor(rows) for name, rows in batches.items()}
        state = keras.tree.map_structure(lambda variable: variable.value, self._variables())
        sums, done = np.zeros(2), 0
        while done < len(steps):
            count = min(self._steps_a_call(), len(steps) - done)
            begun, first = time.monotonic(), steps.start + done
            state, found = self._advance(state, placed, first, first + count)
            sums += np.asarray(found, np.float64)  # waits for the device
            self.seconds_a_step = (time.monotonic() - begun) / count
            self._put_back(state)
            done += count
            describe(done, *(sums / done))

    def _steps_a_call(self) -> int:
        return max(int(SECONDS_A_CALL / self.seconds_a_step), 1)

    def _variables(self) -> State:
        model = self.model
        return model.trainable_variables, model.non_trainable_variables, model.optimizer.variables

    def _put_back(self, state: State) -> None:
        for variables, values in zip(self._variables(), state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)

    def _steps(self, state: State, batches: Any, first: Any, end: Any) -> tuple[State, Any]:
        """Return the state after the steps from `first` to before `end`, and sums of figures."""

        def one(number: Any, carried: tuple[State, Any]) -> tuple[State, Any]:
            state, sums = carried
            batch = {name: rows[number] for name, rows in batches.items()}
            state, figures = self._step(state, batch)
            return state, sums + figures

        result: tuple[State, Any] = ops.fori_loop(first, end, one, (state, ops.zeros(2)))
        return result

    def _step(self, state: State, batch: Mapping[str, Any]) -> tuple[State, Any]:
        import jax

        trainable, others, slots = state
        graded = jax.value_and_grad(self._loss, has_aux=True)
        (loss, (right, others)), gradients = graded(trainable, others, batch)
        trainable, slots = self.model.optimizer.stateless_apply(slots, gradients, trainable)
        return (trainable, others, slots), ops.stack([loss, right])

    def _loss(self, trainable: Any, others: Any, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        model, labels = self.model, batch["labels"]
        seen = [batch["indices"], batch["draws"]]
        logits, others = model.stateless_call(trainable, others, seen, training=True)
        loss = model.loss(labels, logits, sample_weight=batch.get("weights"))
        right = ops.mean(ops.cast(logits.argmax(axis=-1) == labels.argmax(axis=-1), "float32"))
        return loss, (right, others)
