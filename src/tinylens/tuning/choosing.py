"""Which recipe is chosen: the best trials are trained again, since the best of many was lucky, too.

The luck of a seed goes by a second look with another seed; it is taken with the default beside it,
for the same time. That of the pictures of val stays, and the interval says how large it is.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray

from tinylens.comparison import paired_difference
from tinylens.errors import RunError
from tinylens.recipe import Recipe
from tinylens.results import Difference
from tinylens.tuning import study as studies
from tinylens.tuning.crew import Crew, Task
from tinylens.tuning.folder import Folder
from tinylens.tuning.lengths import CONFIRMED, Lengths
from tinylens.tuning.space import Space, recipe_with


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
        pictures: of val.
        looks: all second looks, the default's first.
        words: what was gained, in a sentence.
    """

    tuned: bool
    trial: int
    parameters: Mapping[str, Any]
    gain: Difference
    pictures: int
    looks: tuple[Again, ...]
    words: str

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers."""
        return asdict(self)

    @staticmethod
    def from_json(tree: Mapping[str, Any]) -> Choice:
        """Return what `to_json` was called on, as JSON gives it back."""
        gain = tree["gain"]
        low, high = gain["ci95"]
        looks = tuple(Again(**look) for look in tree["looks"])
        known = {**tree, "gain": Difference(gain["value"], (low, high)), "looks": looks}
        return Choice(**known)


def look_again(
    study: optuna.Study, recipe: Recipe, space: Space, crew: Crew, searching: studies.Searching
) -> list[Again]:
    """Train the default and the best trials with a seed that the search has not used.

    Raises:
        RunError: processes die, or the default's own trial was not finished.
        KeyboardInterrupt: a wish to stop; what was finished is kept.
    """
    default = studies.default_trial(study)
    others = [trial for trial in studies.ranked(study) if trial.number != default.number]
    seed = recipe.train.seed + 1
    looked = [default, *others[: _room(searching.lengths, len(crew.members))]]
    tasks = [
        Task(
            f"again-{trial.number}",
            recipe_with(recipe, space, trial.params).override({"train.seed": seed}),
            searching.lengths.again,
        )
        for trial in looked
    ]
    records = _train_all(tasks, crew, searching)
    if tasks[0].name not in records:
        raise RunError("the default recipe could not be trained again; see the log of the search")
    return [
        Again(trial.number, trial.params, trial.value or 0.0, record["value"], record["seconds"])
        for trial, task in zip(looked, tasks, strict=True)
        if (record := records.get(task.name)) is not None
    ]


def choose(folder: Folder, looks: Sequence[Again], pictures: int) -> Choice:
    """Return the best recipe of a second look: the default, unless another one is really better.

    Args:
        folder: with the records of the second looks.
        looks: the default's first.
        pictures: of val.
    """
    default = looks[0]
    best = max(looks[1:] or looks, key=lambda look: look.value)
    before, after = (_right(folder, look.trial, pictures) for look in (default, best))
    gain = paired_difference(int((before & ~after).sum()), int((after & ~before).sum()), pictures)
    tuned = best is not default and gain.ci95[0] > 0
    chosen = best if tuned else default
    return Choice(
        tuned=tuned,
        trial=chosen.trial,
        parameters=chosen.parameters if tuned else {},
        gain=gain,
        pictures=pictures,
        looks=tuple(looks),
        words=_words(default, best, gain, pictures, tuned=tuned),
    )


def _words(default: Again, best: Again, gain: Difference, pictures: int, *, tuned: bool) -> str:
    low, high = (100 * end for end in gain.ci95)
    points = f"{100 * gain.value:+.2f} points ({low:+.2f} to {high:+.2f})"
    judged = f"on {pictures:,} pictures of val"
    if tuned:
        return (
            f"{points} {judged} over the default recipe, {100 * default.value:.2f} → "
            f"{100 * best.value:.2f} %, trained for {best.seconds:.0f} s where the default took "
            f"{default.seconds:.0f} s, with a seed that the search had not used; val was chosen "
            "on, so expect a little less of other pictures"
        )
    if best is default:
        return "no other recipe was finished to compare: best.toml is the default"
    return (
        f"nothing was gained that is more than chance: the best other recipe has {points} {judged} "
        "over the default; best.toml is the default"
    )


def _room(lengths: Lengths, jobs: int) -> int:
    """Return of how many trials beside the default there is time for a second look."""
    if lengths.again is None or lengths.again_until is None:
        return CONFIRMED
    rounds = int((lengths.again_until - time.monotonic()) / lengths.again)
    return min(max(rounds * jobs - 1, 1), CONFIRMED)


def _right(folder: Folder, trial: int, pictures: int) -> NDArray[np.bool_]:
    record = folder.record(f"again-{trial}")
    if record is None:
        raise RunError(f"{folder.path} lacks the second look at trial {trial}; start anew")
    packed = np.frombuffer(base64.b64decode(record["right"]), np.uint8)
    return np.unpackbits(packed, count=pictures).astype(bool)


def _train_all(
    tasks: Sequence[Task], crew: Crew, searching: studies.Searching
) -> dict[str, Mapping[str, Any]]:
    """Return the records of trainings, by name; those that cannot be trained have none."""
    folder, standing = searching.folder, searching.standing
    records: dict[str, Mapping[str, Any]] = {
        task.name: record for task in tasks if (record := folder.record(task.name))
    }
    waiting = [task for task in tasks if task.name not in records]
    tries: dict[str, int] = {}
    standing.stage, standing.ends, standing.running = "looking again at the best", None, {}
    while waiting or crew.busy:
        if searching.asked_to_stop():
            raise KeyboardInterrupt
        for member in crew.idle[: len(waiting)]:
            crew.give(member, waiting.pop(0))
        heard = crew.next(studies.HEARTBEAT)
        if heard is not None:
            task, message = heard
            if message["event"] == "epoch":
                told = (int(message["epoch"]), int(message["epochs"]), message["value"])
                standing.running[task.name] = told
            else:
                standing.running.pop(task.name, None)
            if message["event"] == "done":
                folder.write_record(task.name, message)
                records[task.name] = message
            elif message["event"] == "died" and tries.get(task.name, 0) < studies.MOST_TRIES:
                tries[task.name] = tries.get(task.name, 0) + 1
                waiting.append(task)
        searching.watch(standing)
    return records
