"""`tinylens train` and `tinylens recipes`."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinylens.cli import frame
from tinylens.cli.ensemble import check_ensemble, sizes_of, train_networks
from tinylens.cli.evaluate import explanation_json, print_advice, print_figures
from tinylens.cli.frame import (
    DataDirOption,
    DatasetArgument,
    ImageColumnOption,
    JsonFlag,
    LabelColumnOption,
    MaxErrorOption,
    RefuseOption,
    StrictOption,
)
from tinylens.cli.learning_curve import add_curve, check_curve
from tinylens.errors import RecipeError

if TYPE_CHECKING:
    from tinylens.data.dataset import Splits
    from tinylens.progress import ProgressReporter
    from tinylens.recipe import Recipe
    from tinylens.results import LevelScores, NetworkSize, Summary
    from tinylens.run import Run

RecipeOption = Annotated[
    str | None,
    typer.Option(help="Built-in recipe or .toml file (default: classic; fast with --budget)."),
]
ChangesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a recipe value, e.g. train.epochs=5 (repeatable).",
    ),
]
SeedsOption = Annotated[
    int | None, typer.Option(help="Train with this many seeds; report mean, spread and interval.")
]
FoldsOption = Annotated[
    int | None,
    typer.Option(help="Cross-validate with this many folds; the test split is not used."),
]
GroupsOption = Annotated[
    str | None,
    typer.Option(
        help="Keep images of one product together in one split: a column, an array, or a "
        "path pattern."
    ),
]
AspectOption = Annotated[
    str | None,
    typer.Option(help="How images of another aspect ratio are fitted: stretch, pad, crop or auto."),
]
BudgetOption = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Time limit for the whole command, e.g. 90s, 5m or 1h."),
]
BalanceOption = Annotated[
    str | None,
    typer.Option(help="Method for class imbalance: none, weights, sampling, logits or auto."),
]
EnsembleOption = Annotated[
    int | None,
    typer.Option(help="Train this many networks and average their predictions in one model file."),
]
DistilOption = Annotated[
    Path | None,
    typer.Option(metavar="RUN", help="Distil from this run or model.onnx (the teacher)."),
]
FromOption = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="RUN",
        help="Transfer learning: start from this run's network with a new head.",
    ),
]
BackboneOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Transfer learning: start from this keras.applications network."
    ),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Weights for --backbone (default: download those of ImageNet)."
    ),
]
ProbeOption = Annotated[
    bool, typer.Option("--probe", help="Freeze the body and fit only the head, in seconds.")
]
CurveOption = Annotated[
    bool,
    typer.Option(
        "--learning-curve", help="Also estimate the accuracy gain from doubling the training set."
    ),
]
NoDeterministicOption = Annotated[
    bool,
    typer.Option(
        "--no-deterministic", help="Train faster, without bit-for-bit reproducible weights."
    ),
]


Show = partial[None]  # takes as_json


def train(
    dataset: DatasetArgument,
    recipe: RecipeOption = None,
    changes: ChangesOption = None,
    epochs: Annotated[
        int | None, typer.Option(help="Number of epochs (short for --set train.epochs=N).")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Random seed (short for --set train.seed=N).")
    ] = None,
    val: Annotated[
        float | None,
        typer.Option(help="Share of the training images held out for validation (0 = none)."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Image height and width in pixels, for folders (default: chosen)."),
    ] = None,
    aspect: AspectOption = None,
    groups: GroupsOption = None,
    balance: BalanceOption = None,
    image_column: ImageColumnOption = None,
    label_column: LabelColumnOption = None,
    max_error: MaxErrorOption = None,
    refused: RefuseOption = None,
    seeds: SeedsOption = None,
    folds: FoldsOption = None,
    ensemble: EnsembleOption = None,
    distil: DistilOption = None,
    source: FromOption = None,
    backbone: BackboneOption = None,
    weights: WeightsOption = None,
    probe: ProbeOption = False,
    learning_curve: CurveOption = False,
    out: Annotated[Path | None, typer.Option(help="Run folder (default: runs/NAME-N).")] = None,
    backend: Annotated[
        str | None, typer.Option(help="Keras backend: tensorflow, jax or torch.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Number of CPU cores to use (default: all).")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Arithmetic of the training: float32, bfloat16 or auto.")
    ] = None,
    budget: BudgetOption = None,
    no_deterministic: NoDeterministicOption = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start a new run instead of continuing a stopped one.")
    ] = False,
    strict: StrictOption = False,
    data_dir: DataDirOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Train a network. Writes a run folder with model.onnx, metrics and a report."""
    from tinylens.progress import on_terminal
    from tinylens.training.transfer import requested

    training_of = {"epochs": epochs, "seed": seed, "precision": precision, "balance": balance}
    data = {"val": val, "size": size, "groups": groups, "aspect": aspect}
    data |= {"image_column": image_column, "label_column": label_column}
    answer = frame.when_to_answer(max_error, refused)
    overrides = _overrides(changes or [], train=training_of, data=data, answer=answer)
    _check_series(seeds, folds, ensemble, budget, fresh=fresh, curve=learning_curve)
    body = requested(source, backbone, weights, probe=probe, curve=learning_curve)
    how: dict[str, Any] = {"backend": backend, "teacher": distil, "budget": budget, "fresh": fresh}
    how |= {"deterministic": not no_deterministic, **body}
    resolved = _resolved(recipe or _usual(budget, backbone), overrides)
    with continuable(), on_terminal() as reporter:
        reporter.say(_headline(resolved, backend, threads))
        read = (strict, data_dir, learning_curve, source)
        splits, how["load_seconds"] = _load(dataset, resolved, reporter, read)
        train_into = partial(_train_into, reporter=reporter, **how)
        if seeds or folds:
            show = _series(splits, resolved, (seeds, folds), out, train_into)
        else:
            run = train_networks(splits, resolved, ensemble, out, train_into, reporter)
            show = partial(_show_run, run, sizes_of(run, distil))
    if learning_curve:
        add_curve(run, splits, backend)
    show(as_json=as_json)


def _usual(budget: str | None, backbone: str | None) -> str:
    """Return the name of the recipe that is meant where none is named."""
    return "backbone" if backbone else "fast" if budget else "classic"


def _train_into(
    data: Splits, recipe: Recipe, folder: Path | None, *, budget: str | None, **how: Any
) -> Run:
    """Train once into a folder, in what is left of the budget by now."""
    from tinylens.training import train as training

    left, command = _seconds_left(budget), frame.command_line()
    return training.train(data, recipe, out=folder, budget=left, command=command, **how)


def _seconds_left(budget: str | None) -> float | None:
    """Return what is left of a budget, whose clock runs from the start of the process."""
    if budget is None:
        return None
    return frame.STARTED + parse_seconds(budget) - time.monotonic()


def _resolved(name: str, overrides: dict[str, Any]) -> Recipe:
    from tinylens.recipe import Recipe

    return Recipe.load(name).override(overrides).without_search()


def _overrides(changes: list[str], **sections: dict[str, Any]) -> dict[str, Any]:
    """Return the changes of --set, and over them those options that were given."""
    given = {
        f"{section}.{name}": value
        for section, values in sections.items()
        for name, value in values.items()
        if value is not None
    }
    return parse_changes(changes) | given


def _check_series(
    seeds: int | None,
    folds: int | None,
    ensemble: int | None,
    budget: str | None,
    *,
    fresh: bool,
    curve: bool,
) -> None:
    others = {"--seeds": seeds, "--folds": folds, "--budget": budget, "--fresh": fresh}
    check_ensemble(ensemble, others | {"--learning-curve": curve})
    if curve and (seeds or folds):
        raise RecipeError(
            "--learning-curve is made of one training's data; leave out --seeds and --folds"
        )
    if fresh and (seeds or folds):
        raise RecipeError("--fresh is for one training; give a series another --out instead")
    if seeds and folds:
        raise RecipeError("--seeds and --folds: expected one of them; a fold has one seed")
    if budget and (seeds or folds):
        raise RecipeError("--budget plans for one training; leave it out with --seeds or --folds")
    _seconds_left(budget)  # so that what is no time is refused before anything is loaded


def _series(
    data: Splits,
    recipe: Recipe,
    counts: tuple[int | None, int | None],
    out: Path | None,
    train_into: Callable[[Splits, Recipe, Path], Run],
) -> Show:
    """Train with so many seeds or folds; return what shows what they came to."""
    from tinylens import files
    from tinylens.training import series
    from tinylens.training.train import RUNS

    seeds, folds = counts
    stem = f"{files.slug(data.source)}-{recipe.name}-{'seeds' if seeds else 'folds'}"
    folder = out or series.next_folder(RUNS, stem)
    if seeds:
        summary = series.train_seeds(data, recipe, seeds, folder, train_into)
    else:
        pool = series.pool_of(data.train, data.val)
        summary = series.train_folds(pool, recipe, folds or 0, folder, train_into)
    return partial(_show_series, folder, summary)


def _show_series(folder: Path, summary: Summary, *, as_json: bool) -> None:
    if as_json:
        frame.print_json({"folder": str(folder), **summary.to_json()})
        return
    from rich.console import Console

    from tinylens.reporting import tables

    console = Console()
    console.print(tables.spread(summary), "")
    console.print(summary.words, highlight=False, markup=False)
    console.print(f"\nruns  {folder}", highlight=False, markup=False, soft_wrap=True)


def _headline(recipe: Recipe, backend: str | None, threads: int | None) -> str:
    """Say what was chosen without being asked: backend, arithmetic, cores, batch."""
    from tinylens import backend as backends

    if threads is not None:
        backends.use_threads(threads)
    choice = backends.choose(backend)
    precision = backends.precision(recipe.train.precision, choice.name)
    cores = backends.processor_count()
    return (
        f"{choice.name} ({choice.reason}) · {precision} · {cores} cores · recipe {recipe.name}, "
        f"{recipe.train.batch_size} images a step"
    )


def _load(
    dataset: str,
    recipe: Recipe,
    reporter: ProgressReporter,
    options: tuple[bool, Path | None, bool, Path | None],
) -> tuple[Splits, float]:
    """Return the data and the seconds that it took to load them.

    `options` are those of the verb: strict, data_dir, learning_curve and from. Images
    become what those of the run to start from were.
    """
    from tinylens.data.load import load_by
    from tinylens.training.transfer import source_of

    reporter.phase(f"loading {dataset}")
    started = time.monotonic()
    strict, data_dir, curve, source = options
    rule = None if source is None else source_of(source).rule
    splits = load_by(
        recipe.data, dataset, rule=rule, strict=strict, data_dir=data_dir, progress=reporter.loading
    )
    for note in splits.notes:
        reporter.say(note)
    if curve:
        check_curve(splits)
    return splits, time.monotonic() - started


@contextlib.contextmanager
def continuable() -> Generator[None]:
    """Say on Ctrl-C that nothing is lost; exit with 130."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from the saved state", err=True)
        raise typer.Exit(130) from None


def parse_changes(changes: list[str]) -> dict[str, str]:
    """Return ["train.epochs=5"] as {"train.epochs": "5"}."""
    pairs = [change.partition("=") for change in changes]
    wrong = [key for key, equals, _ in pairs if not equals]
    if wrong:
        raise RecipeError(f"--set {wrong[0]}: expected KEY=VALUE, for example train.epochs=5")
    return {key.strip(): value.strip() for key, _, value in pairs}


def parse_seconds(text: str) -> float:
    """Return "90s", "5m" or "1.5h" as a number of seconds."""
    try:
        seconds = float(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1:]]
    except (KeyError, ValueError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise RecipeError(f"--budget {text}: expected a time such as 90s, 5m or 1h")
    return seconds


def _show_run(run: Run, sizes: list[NetworkSize], *, as_json: bool) -> None:
    from tinylens.evaluation.diagnosis import diagnose

    if as_json:
        paths = {"run": run.path, "model": run.model, "report": run.report}
        figures = run.evaluation.to_json()
        frame.print_json(
            {name: str(path) for name, path in paths.items()}
            | {"evaluation": figures, "balance": run.info.balance or None}
            | explanation_json(diagnose(run))
            | ({"sizes": [each.to_json() for each in sizes]} if sizes else {})
        )
        return
    from rich.console import Console

    from tinylens.reporting import tables

    console, info = Console(), run.info
    print_figures(run.evaluation)
    print_advice(diagnose(run))
    wanted = run.recipe.answer.max_error
    for level in run.evaluation.calibration.levels:
        if level.max_error == wanted:
            console.print(f"\n{_kept(level)}", highlight=False)
    if sizes:
        console.print("", tables.sizes(sizes))
    if info.balance:
        console.print(f"\n{info.balance['words']}", highlight=False, markup=False)
    seconds = " · ".join(f"{name} {value:.0f} s" for name, value in info.seconds.items())
    console.print(f"\nseconds  {seconds}", highlight=False)
    for name, path in (("report", run.report), ("model", run.model), ("run", run.path)):
        console.print(f"{name:8} {path}", highlight=False, markup=False, soft_wrap=True)


def _kept(level: LevelScores) -> str:
    wrong = "none" if level.error.value is None else f"{100 * level.error.value:.2f} %"
    return (
        f"answered with a confidence of {level.threshold:.3f} or more: "
        f"{100 * (level.answered.value or 0.0):.1f} % of test, of which {wrong} wrong; wanted at "
        f"most {100 * level.max_error:g} %"
    )


def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe in full, as TOML.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List the built-in recipes, or print one as TOML."""
    from tinylens.recipe import Recipe, builtin_recipes

    chosen = builtin_recipes() if name is None else {name: Recipe.load(name)}
    if as_json:
        frame.print_json({key: recipe.model_dump() for key, recipe in chosen.items()})
    elif name is not None:
        typer.echo(chosen[name].to_toml(), nl=False)
    else:
        for key, recipe in chosen.items():
            typer.echo(f"{key:20} {recipe.summary}")
