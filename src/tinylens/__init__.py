"""Train, check, explain and ship classifiers for small images.

The public names are loaded when they are first used, so `import tinylens` is instant and the Keras
backend is chosen only when something needs it. `__init__.pyi` tells type checkers of them.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Audit": "tinylens.results",
    "Classifier": "tinylens.inference.classifier",
    "Comparison": "tinylens.evaluation.compare",
    "Dataset": "tinylens.data.dataset",
    "Evaluation": "tinylens.results",
    "Recipe": "tinylens.recipe",
    "Run": "tinylens.run",
    "SmallImageClassifier": "tinylens.training.estimator",
    "Splits": "tinylens.data.dataset",
    "apply_fixes": "tinylens.data.corrections",
    "audit": "tinylens.auditing.audit",
    "compare": "tinylens.evaluation.compare",
    "convert": "tinylens.data.convert",
    "evaluate": "tinylens.evaluation.evaluate",
    "explain": "tinylens.explaining.explain",
    "export": "tinylens.exporting.export",
    "learning_curve": "tinylens.training.learning_curve",
    "load": "tinylens.data.load",
    "predict": "tinylens.inference.batch_predict",
    "report": "tinylens.reporting.write",
    "robustness": "tinylens.evaluation.robustness",
    "train": "tinylens.training.train",
    "verify": "tinylens.exporting.verify",
}

__all__ = [
    "Audit",
    "Classifier",
    "Comparison",
    "Dataset",
    "Evaluation",
    "Recipe",
    "Run",
    "SmallImageClassifier",
    "Splits",
    "apply_fixes",
    "audit",
    "compare",
    "convert",
    "evaluate",
    "explain",
    "export",
    "learning_curve",
    "load",
    "predict",
    "report",
    "robustness",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"tinylens has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
