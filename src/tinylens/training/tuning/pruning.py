"""Pruning of trials: which are given up, by what all of them reported to Optuna's storage."""

from __future__ import annotations

import math
import statistics

import optuna
from optuna.trial import FrozenTrial, TrialState

from tinylens.training.tuning.folder import Folder

DEFAULT = "default"  # marks the trial of the recipe as it stands, which is never given up
SPARED_TRIALS = 4  # that are not given up, so that there are some to fall behind
SPARED_LOOKS = 1  # of each trial: whoever learns images that are changed is late at first
SLACK = 3.0  # standard errors below the median: by less a trial is not known to be the worse one


def storage_of(folder: Folder) -> optuna.storages.RDBStorage:
    """Return Optuna's storage in a search's folder."""
    # several processes report: SQLite's own wait for its lock is 5 s
    return optuna.storages.RDBStorage(
        folder.storage, engine_kwargs={"connect_args": {"timeout": 60}}
    )


def finished_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that were trained to their end."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def reporting_trial(folder: Folder, identity: int, images: int) -> optuna.Trial:
    """Return a trial that another process has asked for, to report to it whether it falls behind.

    Args:
        folder: of the search.
        identity: of the trial in the storage.
        images: of val.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(
        storage=storage_of(folder),
        study_name="tune",
        sampler=optuna.samplers.RandomSampler(),  # the default one would draw for it once more
        pruner=Behind(images),
    )
    return optuna.Trial(study, identity)


class Behind(optuna.pruners.BasePruner):
    """Gives a trial up that is by more than chance below the median of those that were finished.

    Median pruning as in Golovin et al. 2017 ("Google Vizier"), with a slack: trials that were let
    through to their end are good ones, and half of what is as good lies below their median.
    """

    def __init__(self, images: int) -> None:
        """Set how many images of val trials are judged on."""
        self.images = images

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether a trial is to be given up by its last look at val."""
        look = trial.last_step
        if look is None or look <= SPARED_LOOKS or trial.user_attrs.get(DEFAULT):
            return False
        others = [
            other.intermediate_values[look]
            for other in finished_trials(study)
            if look in other.intermediate_values
        ]
        if len(others) < SPARED_TRIALS:
            return False
        median = statistics.median(others)
        slack = SLACK * math.sqrt(median * (1 - median) / self.images)
        return trial.intermediate_values[look] < median - slack
