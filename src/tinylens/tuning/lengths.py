"""How the time of `--budget` is shared out between trials, a second look at the best, and the run.

Trials are shorter than the run that they are for, so that there are many; the best of them are
trained again, for twice as long, with a seed that the search has not used, beside the default.
"""

from __future__ import annotations

from dataclasses import dataclass

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
