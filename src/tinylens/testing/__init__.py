"""Conformance checks that every network, reader and recipe passes, yours as well as ours.

Each battery is a tuple of small functions named after what they check, so a test runner can show
them one by one; `check_model`, `check_reader` and `check_recipe` run them all. After the pattern of
scikit-learn's `check_estimator` (Buitinck et al. 2013, "API design for machine learning software").

    from tinylens import testing

    def test_my_network_conforms():
        testing.check_model(my_builder, image_shape=(32, 32, 3))
"""

from tinylens.testing.battery import CheckFailed
from tinylens.testing.datasets import tiny_dataset, tiny_splits
from tinylens.testing.networks import MODEL_CHECKS, ModelCase, check_model
from tinylens.testing.readers import READER_CHECKS, ReaderCase, check_reader
from tinylens.testing.recipes import RECIPE_CHECKS, check_recipe

__all__ = [
    "MODEL_CHECKS",
    "READER_CHECKS",
    "RECIPE_CHECKS",
    "CheckFailed",
    "ModelCase",
    "ReaderCase",
    "check_model",
    "check_reader",
    "check_recipe",
    "tiny_dataset",
    "tiny_splits",
]
