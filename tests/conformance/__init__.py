"""Conformance checks that every network, reader and recipe passes."""

from conformance.datasets import tiny_dataset, tiny_splits
from conformance.networks import MODEL_CHECKS, ModelCase
from conformance.readers import READER_CHECKS, ReaderCase
from conformance.recipes import RECIPE_CHECKS

__all__ = [
    "MODEL_CHECKS",
    "READER_CHECKS",
    "RECIPE_CHECKS",
    "ModelCase",
    "ReaderCase",
    "tiny_dataset",
    "tiny_splits",
]
