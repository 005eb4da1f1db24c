"""The search itself: Optuna says what to try, jobs try it, val says how good it was.

With `--budget` trials are shorter than the run that they are for, so that there are many; the best
of them are trained again, for twice as long, beside the default.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from tinylens.errors import RecipeError, RunError
from tinylens.progress import ProgressReporter
from tinylens.training.tuning.folder import Folder, Search
from tinylens.training.tuning.jobs import Job, Outcome, Places
from tinylens.training.tuning.pruning import DEFAULT, finished_trials, storage_of
from tinylens.training.tuning.space import borrowed, parameters_of, recipe_with, suggest

AGAIN = "again"  # marks a trial that takes the place of a lost one, which goes before the others
RANDOM_TRIALS = 4  # before the estimator says what to try, beside what is borrowed
KEPT_SHARE = 0.5  # of the default's values in those: far from it all, hardly a draw is any good
MOST_REFUSED = 50  # draws in a row that make no recipe
MOST_TRIES = 2  # of one recipe, whose process died
HEARTBEAT = 0.5  # seconds between two looks at the clock
NOTED_EVERY = 5.0  # seconds; what was spent

RUN_SHARE = 0.16  # of the budget, for the training of the run
TRIAL_SHARE = 1 / 5  # of the run's time, for a trial on all processors
AGAIN_SHARE = 1 / 3  # likewise for a second look
CONFIRMED = 3  # of the best trials; the default is looked at again beside them
RESERVE = 0.05  # of the budget, for a machine that others use too


@dataclass(frozen=True)
class Lengths:
    """Seconds of a budget. None stands for the recipe's own number of epochs.

    Attributes:
        trial: a trial may take.
        again: a second look at one of the best may take.
        search_until: no trial is begun that would not be done by then, on the clock of
            `time.monotonic`.
        again_until: no second look is begun that would not be done by then.
        end: of the whole, on the same clock.
    """

    trial: float | None = None
    again: float | None = None
    search_until: float | None = None
    again_until: float | None = None
    end: float | None = None


def share_out(now: float, budget: float, spent: float, jobs: int, finish: float) -> Lengths:
    """Return how long everything may take.

    Args:
        now: on the clock of `time.monotonic`.
        budget: seconds in all, those that were spent before included.
        spent: seconds that are gone.
        jobs: trainings at a time, each of which has its share of the processors.
        finish: seconds for judging, export and report of the run.

    >>> lengths = share_out(0.0, 1200.0, 0.0, jobs=1, finish=20.0)
    >>> round(lengths.trial), round(lengths.again), round(lengths.search_until)
    (38, 63, 679)
    """
    run = RUN_SHARE * (budget - finish)
    again, rounds = jobs * AGAIN_SHARE * run, -(-(CONFIRMED + 1) // jobs)
    end = now + budget * (1 - RESERVE) - spent
    return Lengths(
        trial=jobs * TRIAL_SHARE * run,
        again=again,
        search_until=end - finish - run - rounds * again,
        again_until=end - finish - run,
        end=end,
    )


@dataclass
class Going:
    """A search at work, as both of its stages need it."""

    search: Search
    study: optuna.Study
    places: Places
    lengths: Lengths
    should_stop: Callable[[], bool]
    reporter: ProgressReporter
    noted: float = 0.0

    def next(self) -> tuple[Job, Outcome] | None:
        """Wait a little for a job to end; write down every while what was spent.

        Raises:
            KeyboardInterrupt: there is a wish to stop; the search can go on.
        """
        if self.should_stop():
            raise KeyboardInterrupt
        if time.monotonic() - self.noted > NOTED_EVERY:
            self.noted = time.monotonic()
            self.search.note_time()
        return self.places.next(HEARTBEAT)


# --- the study


def open_study(folder: Folder, seed: int) -> optuna.Study:
    """Return the folder's study; a trial in flight is ended by its record, or asked again."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        storage=storage_of(folder), study_name="tune", direction="maximize", load_if_exists=True
    )
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        record = folder.read(f"trials/trial-{trial.number}")
        if record is not None:
            study.tell(trial.number, record["value"])
            continue
        study.tell(trial.number, state=TrialState.FAIL)
        _ask_again(study, trial.params, trial.user_attrs)
    with warnings.catch_warnings():
        # `group`, for trials that do not all have the same keys, and the liar are experimental
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.sampler = optuna.samplers.TPESampler(
            seed=seed + len(study.trials),  # else a search that goes on would draw the same again
            n_startup_trials=RANDOM_TRIALS,
            multivariate=True,
            group=True,
            constant_liar=True,  # so that those at work at a time are not all alike
        )
    return study


def count(study: optuna.Study) -> dict[str, int]:
    """Return how many trials of a study are "done", "pruned", "failed" and "running"."""
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    return {
        "done": states.count(TrialState.COMPLETE),
        "pruned": states.count(TrialState.PRUNED),
        "failed": states.count(TrialState.FAIL),
        "running": states.count(TrialState.RUNNING),
    }


def ranked(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that were finished, the best one first, the earlier of equals."""
    return sorted(finished_trials(study), key=lambda trial: (-(trial.value or 0.0), trial.number))


def default_trial(study: optuna.Study) -> FrozenTrial:
    """Return the trial of the recipe as it stands.

    Raises:
        RunError: it was not finished.
    """
    found = [trial for trial in finished_trials(study) if trial.user_attrs.get(DEFAULT)]
    if not found:
        raise RunError("the default recipe's own trial was not finished; give more time")
    return found[-1]


def _ask_again(
    study: optuna.Study, parameters: Mapping[str, Any], notes: Mapping[str, Any]
) -> None:
    """Put what a lost trial tried into the line, with what has to be known of it."""
    kept = {key: notes[key] for key in (DEFAULT, "deaths") if key in notes}
    study.enqueue_trial(dict(parameters), user_attrs={**kept, AGAIN: True})


def next_trial(study: optuna.Study) -> optuna.Trial:
    """Return the trial to try next: one that was lost, or what Optuna says.

    Optuna's line is served from its front; at its end the default would come after the last of
    the trials that were asked for.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        if trial.user_attrs.get(AGAIN):
            study._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
            return optuna.Trial(study, trial._trial_id)
    return study.ask()


# --- trials


def try_recipes(going: Going) -> None:
    """Try recipes until there were as many as asked for, or the time is up.

    Raises:
        RecipeError: the default recipe itself cannot be trained, or hardly any draw makes a recipe.
        RunError: the processes die.
        KeyboardInterrupt: there is a wish to stop; the study can go on.
    """
    study, recipe, space = going.study, going.search.recipe, going.search.space
    if not study.trials:
        default = parameters_of(recipe, space)
        study.enqueue_trial(default, user_attrs={DEFAULT: True})
        for tried in (*borrowed(recipe, space), *near(default, recipe.train.seed)):
            study.enqueue_trial(tried)
    under_way: dict[str, tuple[optuna.Trial, float]] = {}
    while True:
        while going.places.idle and _room(going):
            job, trial = _ask(going)
            under_way[job.name] = (trial, time.monotonic())
            going.places.start(job)
        if not under_way:
            return
        _show(going)
        heard = going.next()
        if heard is not None:
            job, outcome = heard
            trial, begun = under_way.pop(job.name)
            trial.set_user_attr("seconds", round(time.monotonic() - begun, 2))
            _record_outcome(going, trial, outcome)


def near(default: Mapping[str, Any], seed: int) -> list[dict[str, Any]]:
    """Return what the first trials keep of the default's values; the rest is drawn.

    A default is good in most respects, so that what is better lies near it (Wu, Wang & Huang 2021,
    arXiv:2005.01571, start there, too).

    >>> default = {"optimizer.learning_rate": 1e-3, "augment.shift": 0, "augment.flip": "none"}
    >>> [len(kept) for kept in near(default, seed=0)]
    [2, 2, 2, 2]
    """
    random = np.random.default_rng([seed, len(default)])
    size = round(KEPT_SHARE * len(default))
    return [
        {key: default[key] for key in random.permutation(sorted(default))[:size]}
        for _ in range(RANDOM_TRIALS)
    ]


def _room(going: Going) -> bool:
    """Return whether one more trial may begin."""
    counted, lengths = count(going.study), going.lengths
    begun = counted["done"] + counted["pruned"] + counted["running"]
    if going.search.requested.trials is not None:
        return begun < going.search.requested.trials
    if lengths.search_until is None or lengths.trial is None or begun == 0:
        return True  # the default is tried, however short the time
    finished = finished_trials(going.study)[-4:]
    latest: list[float] = [trial.user_attrs.get("seconds", 0.0) for trial in finished]
    return time.monotonic() + max([lengths.trial, *latest]) <= lengths.search_until


def _ask(going: Going) -> tuple[Job, optuna.Trial]:
    """Draw what to try next."""
    study, start, space = going.study, going.search.recipe, going.search.space
    why = ""
    for _ in range(MOST_REFUSED):
        trial = next_trial(study)
        keys = parameters_of(start, space) if trial.user_attrs.get(DEFAULT) else space
        drawn = {key: suggest(trial, key, space[key]) for key in keys}
        try:
            recipe = recipe_with(start, space, drawn)
        except RecipeError as error:
            why = str(error)
            trial.set_user_attr("why", why)
            study.tell(trial, state=TrialState.FAIL)
            continue
        name = f"trial-{trial.number}"
        return Job(name, recipe, going.lengths.trial, trial._trial_id), trial
    raise RecipeError(
        f"{MOST_REFUSED} draws from the search space made no recipe, the last one: {why}"
    )


def _record_outcome(going: Going, trial: optuna.Trial, outcome: Outcome) -> None:
    """Tell Optuna what came of a trial; one whose process died is asked again."""
    study, event = going.study, outcome["event"]
    if event == "done":
        study.tell(trial, outcome["value"])
        return
    if event == "pruned":
        study.tell(trial, state=TrialState.PRUNED)
        return
    default, died = bool(trial.user_attrs.get(DEFAULT)), event == "died"
    if default and not died:
        raise RecipeError(
            f"recipe {going.search.recipe.name} itself cannot be trained: {outcome['message']}"
        )
    trial.set_user_attr("why", outcome["message"])
    if outcome.get("kind") == "TrainingDiverged":
        study.tell(trial, state=TrialState.PRUNED)  # worse than all that were finished
        return
    study.tell(trial, state=TrialState.FAIL)
    deaths = trial.user_attrs.get("deaths", 0) + 1
    if died and (deaths < MOST_TRIES or default):
        _ask_again(study, trial.params, {**trial.user_attrs, "deaths": deaths})


def _show(going: Going) -> None:
    """Tell whoever watches how many trials there were, and how good the best one was."""
    counted, requested = count(going.study), going.search.requested
    ended = counted["done"] + counted["pruned"]
    phase = f"searching: {counted['done']} trials finished, {counted['pruned']} given up"
    if counted["failed"]:
        phase += f", {counted['failed']} failed"
    best = ranked(going.study)[:1]
    if best:
        phase += f", best {100 * (best[0].value or 0.0):.2f} % of val"
    going.reporter.phase(phase)
    if requested.trials is not None:
        going.reporter.loading(ended, requested.trials)
    elif going.lengths.search_until is not None:
        spent = going.search.spent + time.monotonic() - requested.started
        left = max(going.lengths.search_until - time.monotonic(), 0.0)
        going.reporter.loading(round(spent), round(spent + left))
