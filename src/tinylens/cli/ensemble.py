"""What `tinylens train` does with --ensemble, and the table of sizes at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tinylens.errors import RecipeError

if TYPE_CHECKING:
    from tinylens.data.dataset import Splits
    from tinylens.progress import ProgressReporter
    from tinylens.recipe import Recipe
    from tinylens.results import NetworkSize
    from tinylens.run import Run


def check_ensemble(ensemble: int | None, others: Mapping[str, object]) -> None:
    """Refuse options that an ensemble has no use for.

    Args:
        ensemble: how many networks; None where there is no ensemble.
        others: the values of options that exclude one, by their names.
    """
    given = [name for name, value in others.items() if value]
    if ensemble and given:
        raise RecipeError(
            f"--ensemble and {given[0]}: expected one of them; an ensemble is made of trainings "
            "that are whole, on the same parts, with seeds of their own"
        )


def train_networks(
    data: Splits,
    recipe: Recipe,
    count: int | None,
    out: Path | None,
    train_into: Callable[[Splits, Recipe, Path | None], Run],
    reporter: ProgressReporter,
) -> Run:
    """Train one network, or an ensemble of `count`, into `out` or a folder of its own."""
    if count is None:
        return train_into(data, recipe, out)
    from tinylens import files
    from tinylens.training import ensemble as ensembles
    from tinylens.training.train import RUNS

    stem = f"{files.slug(data.source)}-{recipe.name}-ensemble"
    folder = out or ensembles.next_folder(RUNS, stem)
    return ensembles.train_ensemble(data, recipe, count, folder, train_into, reporter)


def sizes_of(run: Run, teacher: Path | None) -> list[NetworkSize]:
    """Return the sizes that belong together: a student and its teacher, an ensemble's members."""
    from tinylens.exporting import verify
    from tinylens.training import ensemble as ensembles

    paths: dict[str, Path] = {}
    members = run.info.members
    if members:
        paths["ensemble"] = run.path
        paths |= {each["name"]: run.path / ensembles.MEMBERS / each["name"] for each in members}
    elif teacher is not None:
        paths = {"teacher": teacher, "student": run.path}
        alone = verify.alone(run)
        if alone is not None:
            paths["student alone"] = alone.path
    return verify.compare(paths, run) if paths else []
