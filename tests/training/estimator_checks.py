"""Run scikit-learn's checks of estimators, and print one JSON object: status by check, and reasons.

    python estimator_checks.py BACKEND

A program of its own, since the backend is chosen once a process: torch, which compiles nothing, is
through with some sixty trainings of tiny networks in half a minute.
"""

from __future__ import annotations

import json
import sys
import warnings

from sklearn.utils.estimator_checks import check_estimator

from tinylens import SmallImageClassifier
from tinylens.recipe import Recipe

RECIPE = Recipe.load("classic").override(
    {
        "model.options": {"widths": [8], "dense": [], "dropout": 0.0},
        "optimizer.learning_rate": 0.03,
        "train.precision": "float32",
        "train.batch_size": 16,
        "data.val": 0,  # the checks give some classes a single row, of which no part can be carved
    }
)


def main() -> None:
    warnings.simplefilter("ignore")  # of libraries; what a check asks for is raised by it
    classifier = SmallImageClassifier(RECIPE, epochs=4, backend=sys.argv[1])
    results = check_estimator(classifier, on_skip=None, on_fail=None)
    found: dict[str, list[list[str]]] = {}
    for result in results:
        row = [result["check_name"], str(result["exception"])]
        found.setdefault(result["status"], []).append(row)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
