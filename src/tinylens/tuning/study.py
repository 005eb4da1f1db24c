"""The search itself: Optuna says what to try, processes try it, val says how good it was."""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from tinylens.errors import RecipeError, RunError
from tinylens.recipe import Recipe
from tinylens.tuning.crew import Crew, Task
from tinylens.tuning.folder import Folder
from tinylens.tuning.lengths import Lengths
from tinylens.tuning.space import Space, borrowed, parameters_of, recipe_with, suggest
from tinylens.tuning.worker import LOOKS

DEFAULT = "default"  # marks the trial of the recipe as it stands, which is never given up
RANDOM_TRIALS = 4  # before the estimator says what to try, beside what is borrowed
KEPT_SHARE = 0.5  # of the default's values in those: far from it all, hardly a draw is any good
SPARED_TRIALS = 4  # that are not given up, so that there are some to fall behind
SPARED_LOOKS = 1  # of each trial: whoever learns pictures that are changed is late at first
SLACK = 3.0  # standard errors below the median: by less a trial is not known to be the worse one
MOST_REFUSED = 50  # draws in a row that make no recipe
MOST_TRIES = 2  # of one recipe, whose process died
HEARTBEAT = 0.5  # seconds between two looks at the clock


@dataclass
class Standing:
    """How far a search is, for whoever watches.

    Attributes:
        stage: in words.
        done: trials that were finished.
        pruned: trials that were given up.
        failed: trials of which nothing came.
        wanted: trials that were asked for, or None with a budget.
        ends: when the stage is to end on the clock of `time.monotonic`; None where not known.
        best: value and parameters of the best trial.
        running: how far the trainings under way are, by name: epoch, epochs, latest value.
    """

    stage: str = "starting"
    done: int = 0
    pruned: int = 0
    failed: int = 0
    wanted: int | None = None
    ends: float | None = None
    best: tuple[float, Mapping[str, Any]] | None = None
    running: dict[str, tuple[int, int, float | None]] = field(default_factory=dict)


Watch = Callable[[Standing], None]


def open_study(folder: Folder, seed: int) -> optuna.Study:
    """Return the folder's study; what was in flight is marked as failed and asked again."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(folder.storage)
    study = optuna.create_study(
        storage=storage, study_name="tune", direction="maximize", load_if_exists=True
    )
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        ask_again(study, trial.params, trial.user_attrs)
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


def search(
    study: optuna.Study,
    recipe: Recipe,
    space: Space,
    crew: Crew,
    searching: Searching,
) -> None:
    """Try recipes until there were as many as asked for, or the time is up.

    Raises:
        RecipeError: the default recipe itself cannot be trained, or hardly any draw makes a recipe.
        RunError: the processes die.
        KeyboardInterrupt: `searching.asked_to_stop` turned true; the study can go on.
    """
    if not study.trials:
        default = parameters_of(recipe, space)
        study.enqueue_trial(default, user_attrs={DEFAULT: True})
        for tried in (*borrowed(recipe, space), *near(default, recipe.train.seed)):
            study.enqueue_trial(tried)
    going = _Search(study, recipe, space, crew, searching)
    while going.step():
        pass


def near(default: Mapping[str, Any], seed: int) -> list[dict[str, Any]]:
    """Return what the first trials keep of the default's values; the rest is drawn.

    A default is good in most respects, so that what is better lies near it (Wu, Wang & Huang 2021,
    arXiv:2005.01571, start there, too).

    >>> default = {"optimizer.learning_rate": 1e-3, "augment.shift": 0, "augment.flip": "none"}
    >>> [len(kept) for kept in near(default, seed=0)]
    [2, 2, 2, 2]
    """
    random = np.random.default_rng([seed, len(default)])
    count = round(KEPT_SHARE * len(default))
    return [
        {key: default[key] for key in random.permutation(sorted(default))[:count]}
        for _ in range(RANDOM_TRIALS)
    ]


@dataclass(frozen=True)
class Searching:
    """How long is searched, and who is told.

    Attributes:
        folder: gets the records.
        trials: finished or given up, after which the search ends; None with a budget.
        lengths: of trials.
        asked_to_stop: asked again and again.
        standing: kept up to date.
        watch: told of it.
        pictures: of val.
    """

    folder: Folder
    trials: int | None
    lengths: Lengths
    asked_to_stop: Callable[[], bool]
    standing: Standing
    watch: Watch
    pictures: int


@dataclass
class _Flight:
    """A trial that a process is training."""

    trial: optuna.Trial
    default: bool
    begun: float
    looks: int = 0


class _Search:
    def __init__(
        self, study: optuna.Study, recipe: Recipe, space: Space, crew: Crew, searching: Searching
    ) -> None:
        self.study, self.recipe, self.space, self.crew = study, recipe, space, crew
        self.searching = searching
        self.flights: dict[str, _Flight] = {}
        self.show()

    def step(self) -> bool:
        """Give out work and hear one message; return whether there is more to come."""
        if self.searching.asked_to_stop():
            raise KeyboardInterrupt
        for member in self.crew.idle:
            if self.room():
                self.crew.give(member, self.ask())
        if not self.crew.busy:
            return False
        heard = self.crew.next(HEARTBEAT)
        if heard is not None:
            self.hear(*heard)
        self.show()
        return True

    def room(self) -> bool:
        """Return whether one more trial may begin."""
        counted, lengths = count(self.study), self.searching.lengths
        begun = counted.done + counted.pruned + len(self.flights)
        if self.searching.trials is not None:
            return begun < self.searching.trials
        if lengths.search_until is None or lengths.trial is None or begun == 0:
            return True  # the default is tried, however short the time
        latest: list[float] = [trial.user_attrs["seconds"] for trial in _finished(self.study)][-4:]
        return time.monotonic() + max([lengths.trial, *latest]) <= lengths.search_until

    def ask(self) -> Task:
        """Draw what to try next."""
        why = ""
        for _ in range(MOST_REFUSED):
            trial = self.study.ask()
            default = bool(trial.user_attrs.get(DEFAULT))
            keys = parameters_of(self.recipe, self.space) if default else self.space
            drawn = {key: suggest(trial, key, self.space[key]) for key in keys}
            try:
                recipe = recipe_with(self.recipe, self.space, drawn)
            except RecipeError as error:
                why = str(error)
                trial.set_user_attr("why", why)
                self.study.tell(trial, state=TrialState.FAIL)
                continue
            name = f"trial-{trial.number}"
            self.flights[name] = _Flight(trial, default, time.monotonic())
            self.searching.standing.running[name] = (0, recipe.train.epochs, None)
            return Task(name, recipe, self.searching.lengths.trial)
        raise RecipeError(
            f"{MOST_REFUSED} draws from the search space made no recipe, the last one: {why}"
        )

    def hear(self, task: Task, message: Mapping[str, Any]) -> None:
        """Take in what a process says of a trial."""
        if message["event"] == "epoch":
            self.on_the_way(task, message)
            return
        flight = self.flights.pop(task.name)
        self.searching.standing.running.pop(task.name, None)
        trial = flight.trial
        trial.set_user_attr("seconds", round(time.monotonic() - flight.begun, 2))
        if message["event"] == "done":
            self.searching.folder.write_record(task.name, {"parameters": trial.params, **message})
            self.study.tell(trial, message["value"])
        elif message["event"] == "pruned":
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.lose(flight, message)

    def on_the_way(self, task: Task, message: Mapping[str, Any]) -> None:
        """Note how good a trial is so far; give it up where others were better by then."""
        flight, value = self.flights[task.name], message["value"]
        epoch, epochs = int(message["epoch"]), int(message["epochs"])
        self.searching.standing.running[task.name] = (epoch, epochs, value)
        look = LOOKS * epoch // epochs  # trials of different lengths are compared by shares
        if value is None or not flight.looks < look < LOOKS:
            return
        flight.looks = look
        flight.trial.report(value, look)
        if not flight.default and behind(self.study, value, look, self.searching.pictures):
            self.crew.give_up(task)

    def lose(self, flight: _Flight, message: Mapping[str, Any]) -> None:
        """Note that nothing came of a trial."""
        died, trial = message["event"] == "died", flight.trial
        if flight.default and not died:
            raise RecipeError(
                f"recipe {self.recipe.name} itself cannot be trained: {message['message']}"
            )
        trial.set_user_attr("why", message.get("message", "its process died"))
        if message.get("kind") == "TrainingDiverged":
            self.study.tell(trial, state=TrialState.PRUNED)  # worse than all that were finished
            return
        self.study.tell(trial, state=TrialState.FAIL)
        deaths = trial.user_attrs.get("deaths", 0) + 1
        if died and (deaths < MOST_TRIES or flight.default):
            ask_again(self.study, trial.params, {**trial.user_attrs, "deaths": deaths})

    def show(self) -> None:
        """Tell whoever watches."""
        standing, counted = self.searching.standing, count(self.study)
        standing.stage = "searching"
        standing.done, standing.pruned, standing.failed = (
            counted.done,
            counted.pruned,
            counted.failed,
        )
        standing.wanted, standing.ends = self.searching.trials, self.searching.lengths.search_until
        best = ranked(self.study)[:1]
        standing.best = (best[0].value or 0.0, best[0].params) if best else None
        self.searching.watch(standing)


@dataclass(frozen=True)
class Counted:
    """How many trials ended in what way."""

    done: int
    pruned: int
    failed: int


def count(study: optuna.Study) -> Counted:
    """Return how many trials of a study ended in what way."""
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    return Counted(
        states.count(TrialState.COMPLETE),
        states.count(TrialState.PRUNED),
        states.count(TrialState.FAIL),
    )


def ranked(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that were finished, the best one first, the earlier of equals."""
    return sorted(_finished(study), key=lambda trial: (-(trial.value or 0.0), trial.number))


def default_trial(study: optuna.Study) -> FrozenTrial:
    """Return the trial of the recipe as it stands.

    Raises:
        RunError: it was not finished.
    """
    found = [trial for trial in _finished(study) if trial.user_attrs.get(DEFAULT)]
    if not found:
        raise RunError("the default recipe's own trial was not finished; give more time")
    return found[-1]


def behind(study: optuna.Study, value: float, look: int, pictures: int) -> bool:
    """Return whether a trial is to be given up: by more than chance below the median of the others.

    Median pruning as in Golovin et al. 2017 ("Google Vizier"), with a slack: trials that were let
    through to their end are good ones, and half of what is as good lies below their median.

    Args:
        study: whose finished trials are the others.
        value: val accuracy of the trial.
        look: at which it was so.
        pictures: of val.
    """
    others = [
        trial.intermediate_values[look]
        for trial in _finished(study)
        if look in trial.intermediate_values
    ]
    if len(others) < SPARED_TRIALS or look <= SPARED_LOOKS:
        return False
    median = statistics.median(others)
    return value < median - SLACK * math.sqrt(median * (1 - median) / pictures)


def ask_again(study: optuna.Study, parameters: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
    """Put what a lost trial tried into the line, with what has to be known of it."""
    kept = {key: notes[key] for key in (DEFAULT, "deaths") if key in notes}
    study.enqueue_trial(dict(parameters), user_attrs=kept)


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
