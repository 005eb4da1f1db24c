"""Ensembles: networks of several seeds averaged in one model.onnx.

The networks differ in nothing but their seed, which is enough for them to make different mistakes
(Lakshminarayanan et al. 2017, arXiv:1612.01474). Each is trained as a run of its own, so a stopped
ensemble loses one training at most; the mean of their probabilities is calibrated anew, since it is
less sure than each of them (Rahaman & Thiery 2021, arXiv:2007.08792).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinylens import files
from tinylens.data.dataset import Splits
from tinylens.errors import RunError
from tinylens.recipe import Recipe
from tinylens.results import Calibration
from tinylens.run import Run
from tinylens.training import series
from tinylens.training.series import Train
from tinylens.training.train import Setting, end, first_info, outcome_recorded

if TYPE_CHECKING:
    from tinylens.progress import ProgressReporter

MEMBERS = "members"  # the folder of the trainings, a series of seeds, within the ensemble's run


def train_ensemble(
    data: Splits,
    recipe: Recipe,
    count: int,
    folder: Path,
    train: Train,
    reporter: ProgressReporter,
) -> Run:
    """Train networks of several seeds and leave a run whose model.onnx answers by their mean.

    Args:
        data: the parts.
        recipe: its `train.seed` is the first one.
        count: how many networks.
        folder: of the run; finished trainings in it are kept, so a stopped ensemble goes on.
        train: trains one run into a folder, as `tinylens.train` does.
        reporter: told of each phase after the trainings.

    Raises:
        RecipeError: fewer than 2 or more than 100.
        RunError: the folder holds something else.
    """
    series.check_count("--ensemble", count)
    if Run(folder).started and not Run(folder).info.members:
        raise RunError(f"{folder} holds the run of a single network; give another --out")
    series.train_seeds(data, recipe, count, folder / MEMBERS, train)
    run = Run(folder)
    members = [
        Run(folder / MEMBERS / f"seed-{recipe.train.seed + number}") for number in range(count)
    ]
    if not (run.started and run.info.state == "done"):
        with run.lock():
            _join(run, members, data, recipe, reporter)
            end(run, reporter, report=True)
    return run


def next_folder(root: Path, stem: str) -> Path:
    """Return the newest folder `root/stem-N` whose ensemble is not finished, or the next free."""
    return files.next_numbered(root, stem, _done)


def _done(path: Path) -> bool:
    run = Run(path)
    return run.started and run.info.state == "done"


def _join(
    run: Run, members: list[Run], data: Splits, recipe: Recipe, reporter: ProgressReporter
) -> None:
    """Write what the members are together into the locked run, all but the report."""
    from tinylens.models.build import ship_ensemble
    from tinylens.training import finalize

    reporter.phase("joining the networks")
    infos = [member.info for member in members]
    first = infos[0]
    setting = Setting(
        first.backend, first.precision, first.deterministic, first.command, first.seconds["load"]
    )
    run.write_recipe(members[0].recipe)
    info = first_info(data, members[0].recipe, setting)
    info.notes.append(
        f"the mean of {len(members)} networks, which differ in their seeds: {recipe.train.seed} to "
        f"{recipe.train.seed + len(members) - 1}"
    )
    info.members = [
        {"name": each.path.name, "sha256": hashlib.sha256(each.model.read_bytes()).hexdigest()}
        for each in members
    ]
    info.seconds = {"train": round(sum(each.seconds["train"] for each in infos), 3)}
    run.write_info(info)
    with outcome_recorded(run, info):
        calibration = _calibration(members, data)
        networks = [finalize.open_shipped(member) for member in members]
        shipped = ship_ensemble(networks, calibration.temperature, calibration.curvature)
        finalize.deliver(run, data, (shipped, calibration), recipe, info, reporter)


def _calibration(members: list[Run], data: Splits) -> Calibration:
    """Return what calibrates the mean of what the members answered on val."""
    from tinylens.training import finalize

    if data.val is None:
        return Calibration(temperature=1.0, chosen_on="none")
    answers = [member.predictions["val_probabilities"] for member in members]
    return finalize.calibration_of(np.mean(answers, axis=0, dtype=np.float32), data.val)
