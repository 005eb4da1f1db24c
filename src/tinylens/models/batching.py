"""Array batching for Keras `fit`, `evaluate` and `predict`."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

PREFETCHED = 2  # batches that are cut while the step before them runs


def in_batches(*columns: Any, batch_size: int) -> dict[str, Any]:
    """Batch inputs, targets and weights for `fit`, `evaluate` and `predict`.

    Avoids the autotuning tf.data pipeline that Keras builds for arrays on TensorFlow: on one core
    its tuning thread outlives the data, and a pass of 20 seconds took 28.

    Args:
        columns: Inputs, an array or a tuple of arrays; then optional targets and weights.
        batch_size: Rows per batch; the last batch may be smaller.
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
