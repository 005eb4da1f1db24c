"""The optimizer and its learning rate from a recipe."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from tinylens.optim.descent import Muon, NesterovSGD
from tinylens.recipe_sections import OptimizerSection

__all__ = ["Muon", "NesterovSGD", "Schedule", "build"]

FIRST_RATE = 0.1  # share of the highest learning rate at which a warm-up starts


@keras.saving.register_keras_serializable(package="tinylens")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of every step: a linear warm-up, then what the recipe says.

    Args:
        spec: the recipe's optimizer section.
        steps: of the whole training.
    """

    def __init__(self, spec: OptimizerSection, steps: int) -> None:
        self.spec = spec
        self.steps = steps

    def __call__(self, step: Any) -> Any:
        """Return the learning rate of `step`, a scalar tensor from 0."""
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
        """Return the arguments that make this schedule again."""
        return {"spec": self.spec.model_dump(), "steps": self.steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Schedule:
        """Return the schedule of `get_config`."""
        return cls(OptimizerSection(**config["spec"]), config["steps"])


def build(
    spec: OptimizerSection, steps: int, ema: float = 0.0, precision: str = "float32"
) -> keras.optimizers.Optimizer:
    """Return the optimizer for a training of `steps` steps.

    Args:
        spec: the recipe's optimizer section.
        steps: of the whole training; the schedule ends there.
        ema: momentum of a running mean of the weights, kept beside them; 0 keeps none.
        precision: "float32" or "bfloat16", of what need not be exact; weights are float32.
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
    common |= {"head_rate": spec.head_rate, "bias_rate": spec.bias_rate}
    if spec.name == "sgd":
        return NesterovSGD(momentum=spec.momentum, **common)
    common |= {"momentum": spec.momentum, "vector_momentum": spec.vector_momentum}
    return Muon(arithmetic=precision, **common)
