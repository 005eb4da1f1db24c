"""How arrays reach Keras's loops, batch by batch."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

PREFETCHED = 2  # batches that are cut while the step before them runs


def in_batches(*columns: Any, batch_size: int) -> dict[str, Any]:
    """Return what `fit`, `evaluate` and `predict` take for inputs, targets and weights.

    With TensorFlow Keras would put a pipeline behind arrays that tf.data tunes as it goes. On one
    core the thread that tunes it does not hear of the end, and sleeps on: a pass of 20 seconds
    took 28. There are no choices to tune in cutting arrays, so here nothing is.

    Args:
        columns: inputs, an array or a tuple of them; then targets and weights, where there are any.
        batch_size: rows at a time; the last batch may have fewer.
    """
    given = [column for column in columns if column is not None]
    if keras.backend.backend() != "tensorflow":
        names = ("x", "y", "sample_weight")
        named = dict(zip(names, given, strict=False))
        return {**named, "batch_size": batch_size}
    return {"x": _batches(tuple(given) if len(given) > 1 else (given[0],), batch_size)}


def _batches(columns: tuple[Any, ...], batch_size: int) -> Any:
    import tensorflow as tf

    count = len(np.asarray(keras.tree.flatten(columns)[0]))
    tensors = keras.tree.map_structure(tf.convert_to_tensor, columns)
    starts = tf.data.Dataset.range(0, count, batch_size)
    if count % batch_size == 0:  # then each has the same known size
        whole = keras.tree.map_structure(
            lambda rows: tf.reshape(rows, (-1, batch_size, *rows.shape[1:])), tensors
        )
        starts = tf.data.Dataset.range(count // batch_size)
        cut = starts.map(lambda at: keras.tree.map_structure(lambda rows: rows[at], whole))
    else:
        cut = starts.map(
            lambda at: keras.tree.map_structure(lambda rows: rows[at : at + batch_size], tensors)
        )
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return cut.prefetch(PREFETCHED).with_options(options)
