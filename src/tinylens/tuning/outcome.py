"""What came of a search: its summary and its plots."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import optuna

from tinylens import files
from tinylens.recipe import Recipe
from tinylens.reporting import charts
from tinylens.run import Run
from tinylens.tuning import study as studies
from tinylens.tuning.choosing import Choice
from tinylens.tuning.searching import Search

IMPORTANCE_FROM = 8  # finished trials


def summarize(search: Search, choice: Choice, run: Run) -> dict[str, Any]:
    """Draw the plots, and return all that summary.json holds."""
    study = studies.open_study(search.folder, search.recipe.train.seed)
    counted, importance = studies.count(study), importances(study)
    rows = history(study)
    plots = {"importance": charts.importance(importance)} if importance else {}
    if any(row["state"] == "complete" for row in rows):
        plots["history"] = charts.trials(rows)
    for name, figure in plots.items():
        files.write_bytes(search.folder.plots / f"{name}.png", charts.as_png(figure))
    on_val = run.evaluation.splits["val"].accuracy
    return {
        "folder": str(search.folder.path),
        "best": str(search.folder.best),
        "run": str(run.path),
        "report": str(run.report),
        "words": choice.words,
        "choice": choice.to_json(),
        "run_val_accuracy": {"value": on_val.value, "ci95": on_val.ci95},
        "epochs": {
            "run": _passes(Recipe.load(search.folder.best)),
            "recipe": _passes(search.recipe),
        },
        "trials": {"done": counted.done, "pruned": counted.pruned, "failed": counted.failed},
        "history": rows,
        "importance": importance,
        "space": {key: each.words for key, each in search.space.items()},
        "jobs": search.jobs,
        "seconds": round(search.note_time(), 1),
    }


def _passes(recipe: Recipe) -> float:
    return round(recipe.train.epochs * recipe.train.epoch_share, 2)


def importances(study: optuna.Study) -> dict[str, float]:
    """Return how much each key decides of val accuracy, largest first, together 1.

    By PED-ANOVA (Watanabe, Bansal & Hutter 2023, arXiv:2304.10255); empty where fewer than
    IMPORTANCE_FROM trials were finished, of which it would say little, or all were as good.
    """
    finished = studies.ranked(study)
    if len(finished) < IMPORTANCE_FROM or len({trial.value for trial in finished}) < 2:
        return {}
    with contextlib.suppress(ValueError, RuntimeError), warnings.catch_warnings():
        # a key that hardly varied among the good ones gets a warning of its own
        warnings.simplefilter("ignore", UserWarning)
        found = optuna.importance.get_param_importances(study)
        return {key: round(float(value), 4) for key, value in found.items()}
    return {}


def history(study: optuna.Study) -> list[dict[str, Any]]:
    """Return a row a trial: number, how it ended, val accuracy or the last seen, parameters."""
    rows = []
    for trial in study.get_trials(deepcopy=False):
        seen = trial.intermediate_values
        last = seen[max(seen)] if seen else None
        rows.append(
            {
                "number": trial.number,
                "state": trial.state.name.lower(),
                "value": trial.value if trial.value is not None else last,
                "seconds": trial.user_attrs.get("seconds"),
                "parameters": trial.params,
            }
        )
    return rows
