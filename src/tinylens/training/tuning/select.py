"""Select the recipe: the best trials are trained again, since the best of many was lucky, too.

The luck of a seed goes by a second look with another seed; it is taken with the default beside it,
for the same time. That of the images of val stays, and the interval says how large it is.
"""

from __future__ import annotations

import base64
import contextlib
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from pydantic import TypeAdapter

from tinylens import files
from tinylens.errors import RunError
from tinylens.evaluation.compare import paired_difference
from tinylens.recipe import Recipe
from tinylens.reporting import charts
from tinylens.results import Difference
from tinylens.run import Run
from tinylens.training.tuning import study as studies
from tinylens.training.tuning.folder import Folder, Search
from tinylens.training.tuning.jobs import Job
from tinylens.training.tuning.space import recipe_with

IMPORTANCE_FROM = 8  # finished trials


@dataclass(frozen=True)
class Again:
    """A recipe's second look.

    Attributes:
        trial: the number of its trial.
        parameters: what it changes of the default.
        first: val accuracy in the search.
        value: val accuracy now.
        seconds: that it took.
    """

    trial: int
    parameters: Mapping[str, Any]
    first: float
    value: float
    seconds: float


@dataclass(frozen=True)
class Choice:
    """What was chosen, and why.

    Attributes:
        tuned: whether it is another recipe than the default.
        trial: the number of its trial.
        parameters: what it changes.
        gain: val accuracy of the best one less that of the default, in the second look.
        images: of val.
        looks: all second looks, the default's first.
        words: what was gained, in a sentence.
    """

    tuned: bool
    trial: int
    parameters: Mapping[str, Any]
    gain: Difference
    images: int
    looks: tuple[Again, ...]
    words: str

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers."""
        return asdict(self)

    @staticmethod
    def from_json(tree: Mapping[str, Any]) -> Choice:
        """Return what `to_json` was called on, as JSON gives it back."""
        return TypeAdapter(Choice).validate_python(tree)


def look_again(going: studies.Going) -> list[Again]:
    """Train the default and the best trials with a seed that the search has not used.

    Raises:
        RunError: processes die, or the default's own trial was not finished.
        KeyboardInterrupt: a wish to stop; what was finished is kept.
    """
    recipe, lengths = going.search.recipe, going.lengths
    default = studies.default_trial(going.study)
    others = [trial for trial in studies.ranked(going.study) if trial.number != default.number]
    looked = [default, *others[: _room(lengths, going.search.jobs)]]
    jobs = []
    for trial in looked:
        tried = recipe_with(recipe, going.search.space, trial.params)
        again = tried.override({"train.seed": recipe.train.seed + 1})
        jobs.append(Job(f"again-{trial.number}", again, lengths.again))
    records = _train_all(jobs, going)
    if jobs[0].name not in records:
        raise RunError("the default recipe could not be trained again; see the log of the search")
    return [
        Again(trial.number, trial.params, trial.value or 0.0, record["value"], record["seconds"])
        for trial, job in zip(looked, jobs, strict=True)
        if (record := records.get(job.name)) is not None
    ]


def choose(folder: Folder, looks: Sequence[Again], images: int) -> Choice:
    """Return the best recipe of a second look: the default, unless another one is really better.

    Args:
        folder: with the records of the second looks.
        looks: the default's first.
        images: of val.
    """
    default = looks[0]
    best = max(looks[1:] or looks, key=lambda look: look.value)
    before, after = (_right(folder, look.trial, images) for look in (default, best))
    gain = paired_difference(int((before & ~after).sum()), int((after & ~before).sum()), images)
    tuned = best is not default and gain.ci95[0] > 0
    chosen = best if tuned else default
    return Choice(
        tuned=tuned,
        trial=chosen.trial,
        parameters=chosen.parameters if tuned else {},
        gain=gain,
        images=images,
        looks=tuple(looks),
        words=_words(default, best, gain, images, tuned=tuned),
    )


def _words(default: Again, best: Again, gain: Difference, images: int, *, tuned: bool) -> str:
    low, high = (100 * end for end in gain.ci95)
    points = f"{100 * gain.value:+.2f} points ({low:+.2f} to {high:+.2f})"
    evaluated = f"on {images:,} images of val"
    if tuned:
        return (
            f"{points} {evaluated} over the default recipe, {100 * default.value:.2f} → "
            f"{100 * best.value:.2f} %, trained for {best.seconds:.0f} s where the default took "
            f"{default.seconds:.0f} s, with a seed that the search had not used; val was chosen "
            "on, so expect a little less of other images"
        )
    if best is default:
        return "no other recipe was finished to compare: best.toml is the default"
    return (
        f"nothing was gained that is more than chance: the best other recipe has {points} "
        f"{evaluated} over the default; best.toml is the default"
    )


def _room(lengths: studies.Lengths, jobs: int) -> int:
    """Return of how many trials beside the default there is time for a second look."""
    if lengths.again is None or lengths.again_until is None:
        return studies.CONFIRMED
    rounds = int((lengths.again_until - time.monotonic()) / lengths.again)
    return min(max(rounds * jobs - 1, 1), studies.CONFIRMED)


def _right(folder: Folder, trial: int, images: int) -> NDArray[np.bool_]:
    record = folder.read(f"trials/again-{trial}")
    if record is None:
        raise RunError(f"{folder.path} lacks the second look at trial {trial}; start anew")
    packed = np.frombuffer(base64.b64decode(record["right"]), np.uint8)
    return np.unpackbits(packed, count=images).astype(bool)


def _train_all(jobs: Sequence[Job], going: studies.Going) -> dict[str, Mapping[str, Any]]:
    """Return the records of trainings, by name; those that cannot be trained have none."""
    folder = going.search.folder
    waiting = [job for job in jobs if folder.read(f"trials/{job.name}") is None]
    tries = dict.fromkeys((job.name for job in jobs), 0)
    under_way = 0
    going.reporter.phase("looking again at the best")
    while waiting or under_way:
        for job in waiting[: len(going.places.idle)]:
            going.places.start(job)
            waiting.remove(job)
            under_way += 1
        going.reporter.loading(len(jobs) - len(waiting) - under_way, len(jobs))
        heard = going.next()
        if heard is not None:
            job, outcome = heard
            under_way -= 1
            tries[job.name] += 1
            if outcome["event"] == "died" and tries[job.name] <= studies.MOST_TRIES:
                waiting.append(job)
    return {job.name: record for job in jobs if (record := folder.read(f"trials/{job.name}"))}


# --- what came of it


def summarize(search: Search, choice: Choice, run: Run) -> dict[str, Any]:
    """Draw the plots, and return all that summary.json holds."""
    study = studies.open_study(search.folder, search.recipe.train.seed)
    counted, importance = studies.count(study), importances(study)
    rows = history(study)
    plots = {"importance": charts.importance(importance)} if importance else {}
    if any(row["state"] == "complete" for row in rows):
        plots["history"] = charts.trials(rows)
    for name, figure in plots.items():
        files.write_bytes(search.folder.path / "plots" / f"{name}.png", charts.as_png(figure))
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
        "trials": {key: counted[key] for key in ("done", "pruned", "failed")},
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
