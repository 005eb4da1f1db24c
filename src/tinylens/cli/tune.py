"""`tinylens tune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinylens.cli import frame
from tinylens.cli.frame import DataDirOption, DatasetArgument, JsonFlag, StrictOption
from tinylens.cli.train import (
    BudgetOption,
    ChangesOption,
    GroupsOption,
    continuable,
    parse_changes,
    parse_seconds,
)
from tinylens.errors import RecipeError

if TYPE_CHECKING:
    from tinylens.data.dataset import Splits
    from tinylens.recipe import Recipe
    from tinylens.training.tuning.folder import PredictOptions, Search

SearchOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUES",
        help="Values to search: KEY=LOW..HIGH, KEY=LOW..HIGH:log or KEY=a,b,c (repeatable).",
    ),
]


def tune(
    dataset: DatasetArgument,
    recipe: Annotated[
        str, typer.Option(help="Recipe to start from: a built-in one or a .toml file.")
    ] = "classic",
    budget: BudgetOption = None,
    trials: Annotated[int | None, typer.Option(help="Number of recipes to try.")] = None,
    search: SearchOption = None,
    changes: ChangesOption = None,
    seed: Annotated[
        int | None, typer.Option(help="Random seed (short for --set train.seed=N).")
    ] = None,
    val: Annotated[
        float | None, typer.Option(help="Share of the training images held out for validation.")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Image height and width in pixels, for folders (default: chosen)."),
    ] = None,
    groups: GroupsOption = None,
    jobs: Annotated[
        int | None, typer.Option(help="Number of trainings at a time; they share the CPU cores.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Output folder (default: runs/NAME-tune-N).")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="Keras backend: tensorflow, jax or torch.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Number of CPU cores to use (default: all).")
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Start a new search instead of continuing a stopped one."),
    ] = False,
    strict: StrictOption = False,
    data_dir: DataDirOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Search for a better recipe on val. Writes best.toml and a run trained with it."""
    from tinylens.backend import use_threads
    from tinylens.recipe import Recipe

    data = {"val": val, "size": size, "groups": groups}
    given = {f"data.{key}": value for key, value in data.items() if value is not None}
    given |= {} if seed is None else {"train.seed": seed}
    resolved = Recipe.load(recipe).override(parse_changes(changes or []) | given)
    requested = _requested(budget, trials, jobs, backend, search or [])
    if threads is not None:
        use_threads(threads)
    with continuable():
        splits = _load(dataset, resolved, strict, data_dir)
        summary = _tuned(splits, resolved, requested, out, fresh=fresh)
    if as_json:
        frame.print_json(summary)
    else:
        _show(summary)


def _requested(
    budget: str | None, trials: int | None, jobs: int | None, backend: str | None, search: list[str]
) -> PredictOptions:
    if (budget is None) == (trials is None):
        raise RecipeError("expected --budget, such as 30m, or --trials, such as 50, one of them")
    seconds = None if budget is None else parse_seconds(budget)
    from tinylens.training.tuning import space
    from tinylens.training.tuning.folder import PredictOptions

    return PredictOptions(trials, seconds, frame.STARTED, jobs, backend, space.parse(search))


def _load(dataset: str, recipe: Recipe, strict: bool, data_dir: Path | None) -> Splits:
    from tinylens.data.load import load_by
    from tinylens.progress import on_terminal

    with on_terminal() as reporter:
        reporter.phase(f"loading {dataset}")
        return load_by(
            recipe.data, dataset, strict=strict, data_dir=data_dir, progress=reporter.loading
        )


def _tuned(
    data: Splits, recipe: Recipe, requested: PredictOptions, out: Path | None, *, fresh: bool
) -> dict[str, Any]:
    from tinylens.progress import on_terminal
    from tinylens.training.tuning import tune as tuning

    with tuning.opened(data, recipe, requested, out=out, fresh=fresh) as search:
        _headline(search)
        with on_terminal() as reporter:
            choice = tuning.find(search, reporter)
            reporter.say(choice.words)
            return tuning.finish(search, choice, frame.command_line(), reporter)


def _headline(search: Search) -> None:
    """Say on a terminal what is searched, and where."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        return
    console.print(
        f"searching from recipe {search.recipe.name} in {search.folder.path}, {search.jobs} at a "
        "time",
        highlight=False,
        markup=False,
    )
    for key, searched in search.space.items():
        console.print(f"  {key:28} {searched.words}", highlight=False, markup=False)


def _show(summary: dict[str, Any]) -> None:
    from rich.console import Console

    from tinylens.reporting import tables

    console, choice = Console(), summary["choice"]
    console.print(tables.second_looks(choice["looks"], choice["parameters"]), "")
    counted = summary["trials"]
    on_val = summary["run_val_accuracy"]
    low, high = on_val["ci95"]
    console.print(
        f"{counted['done']} trials finished, {counted['pruned']} given up, {counted['failed']} "
        f"failed, in {summary['seconds']:.0f} s; the run has {100 * on_val['value']:.2f} % of val "
        f"({100 * low:.2f} to {100 * high:.2f}), after {summary['epochs']['run']:g} epochs where "
        f"the recipe has {summary['epochs']['recipe']:g}",
        highlight=False,
    )
    for name in ("best", "run", "report"):
        line = f"{name:8} {summary[name]}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"\n{summary['words']}", highlight=False, markup=False)
