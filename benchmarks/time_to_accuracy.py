"""How long it takes to train to an accuracy on test: tinylens's recipes, a tutorial, a record.

The tutorial network is written the way Keras's own examples are: a few convolutions and pools,
Adam, `fit` on arrays. Its accuracy on test is looked at after every epoch with the clock stopped,
and the time of its best epoch is what the recipes are compared with. A recipe is trained once for
each number of epochs, to the end of its schedule. The clock of both runs from before the first step
is compiled to the last step, for a recipe also over its one evaluation on test; imports and loading
are not counted. On CIFAR-10 airbench94_muon (benchmarks/airbench94_muon.py) runs beside them. All
training images are used: nothing is chosen here, so no val split is needed.

With --plot the results of earlier runs are drawn as docs/accuracy-by-seconds.png.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

import machine
from tinylens.data.dataset import Splits
from tinylens.data.load import load

CIFAR = machine.ROOT.parent / "shared" / "data" / "cifar10"
PLOT = machine.ROOT / "docs" / "accuracy-by-seconds.png"
SETS = {"fashion-mnist": "Fashion-MNIST", "cifar10": "CIFAR-10 (JPEG)"}
TUTORIAL_EPOCHS = {"fashion-mnist": 15, "cifar10": 10}  # as the examples have them
VIEWS = (1, 6)
NARROW = {"model.options": {"widths": [32, 64, 128], "grey_widths": [16, 32, 64]}}
SHARES = (0.6, 0.7)  # of an epoch: on val 0.6 reaches 0.677, 0.5 does not reach the tutorial
ONE = {"train.epochs": 1}
TUTORIAL, RECORD = "Keras tutorial", "airbench94_muon"  # the second in PyTorch, on CIFAR-10 alone
BESIDE = {  # where a name stands from its points, where below them is no room
    "fast, 1 epochs": ((24, -3), "left"),
    "accurate, 20 epochs": ((0, 20), "center"),
    "fast, narrow, 0.6 epochs": ((14, -14), "left"),
    "fast, narrow, 0.7 epochs": ((52, 4), "left"),
    TUTORIAL: ((0, -26), "center"),
    RECORD: ((6, -24), "center"),
}
RECIPES: dict[str, list[tuple[str, str, dict[str, Any]]]] = {  # by set: a name, a recipe, changes
    "fashion-mnist": [
        ("fast, 0.8 epochs", "fast", {"train.epoch_share": 0.8, **ONE}),
        *((f"fast, {n} epochs", "fast", {"train.epochs": n}) for n in (1, 6, 10)),
        ("accurate, 20 epochs", "accurate", {}),
    ],
    "cifar10": [
        *(
            (f"fast, narrow, {share} epochs", "fast", {"train.epoch_share": share, **ONE, **NARROW})
            for share in SHARES
        ),
        *((f"fast, narrow, {n} epochs", "fast", {"train.epochs": n, **NARROW}) for n in (2, 5)),
        ("fast, 10 epochs", "fast", {"train.epochs": 10}),
        ("accurate, 20 epochs", "accurate", {}),
    ],
}


def main() -> None:
    """Let every contender train once a seed, in turns, and compare."""
    parser = machine.parser(__doc__)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--record-seeds", type=int, default=1, help="0 leaves airbench94_muon out")
    parser.add_argument("--cifar", type=Path, default=CIFAR, help="the folder of Parquet files")
    parser.add_argument("--only", nargs="+", help="contenders whose name contains one of these")
    parser.add_argument("--plot", action="store_true", help="only draw what was measured before")
    parser.add_argument("--measure", nargs=3, metavar=("SET", "NAME", "SEED"))
    requested = parser.parse_args()
    if requested.measure:
        name, contender, seed = requested.measure
        print(json.dumps(measure(name, contender, int(seed), requested)))
    elif requested.plot:
        print(draw())
    else:
        compare(requested)


def compare(requested: argparse.Namespace) -> None:
    """Run all contenders and write and print what they reached."""
    described = machine.describe()
    seeds = 1 if requested.quick else requested.seeds
    found = {} if requested.quick else _kept()
    stamp = {name: described[name] for name in ("commit", "dirty", "load_average", "time")}
    for name in requested.sets:
        wanted = requested.only or [""]
        names = [each for each in _contenders(name) if any(part in each for part in wanted)]
        found[name] = {**found.get(name, {}), **{each: [] for each in names}}
        for seed in range(seeds):
            for each in names if seed % 2 == 0 else names[::-1]:
                if each == RECORD and seed >= requested.record_seeds:
                    continue
                found[name][each].append({**_in_a_process(name, each, seed, requested), **stamp})
                row = found[name][each][-1]
                print(f"{SETS[name]}, {each}, seed {seed}: {row['best']}", file=sys.stderr)
        _print(SETS[name], found[name])
    path = machine.write_results("time_to_accuracy", {"machine": described, "sets": found})
    print(f"\nwritten: benchmarks/results/{path.name}")


def _contenders(name: str) -> list[str]:
    """Return who trains on a set."""
    names = [TUTORIAL, *(each for each, _, _ in RECIPES[name])]
    return [*names, RECORD] if name == "cifar10" else names


def _kept() -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Return what was measured before, each row with its commit: a part may be measured anew.

    Contenders that are no longer there are left out.
    """
    path = machine.RESULTS / "time_to_accuracy.json"
    found = json.loads(path.read_text("utf-8"))["sets"] if path.is_file() else {}
    return {
        name: {each: runs for each, runs in rows.items() if each in _contenders(name)}
        for name, rows in found.items()
    }


def _in_a_process(
    name: str, contender: str, seed: int, requested: argparse.Namespace
) -> dict[str, Any]:
    words = ["--measure", name, contender, str(seed), "--cifar", str(requested.cifar)]
    quick = ["--quick"] if requested.quick else []
    command = [sys.executable, __file__, *words, *quick]
    return machine.run_contender(machine.Contender(contender, command))


def measure(name: str, contender: str, seed: int, requested: argparse.Namespace) -> dict[str, Any]:
    """Train one contender and return its "curve" of seconds and accuracies, and its "best"."""
    data = load(str(requested.cifar) if name == "cifar10" else name, val=0)
    if requested.quick:
        data = Splits(data.train.subset(np.arange(5_000)), None, data.test)
    if contender == TUTORIAL:
        return _tutorial(data, 2 if requested.quick else TUTORIAL_EPOCHS[name], seed)
    if contender == RECORD:
        import airbench94_muon

        return airbench94_muon.train(data, seed, epochs=1 if requested.quick else 8)
    _, recipe, changes = next(each for each in RECIPES[name] if each[0] == contender)
    return _recipe(data, recipe, {**changes, "train.seed": seed})


# --- tinylens


def _recipe(data: Splits, name: str, changes: dict[str, Any]) -> dict[str, Any]:
    from tinylens.backend import activate, precision

    choice = activate()
    from tinylens.models.averaging import averaged
    from tinylens.models.batching import in_batches
    from tinylens.progress import ProgressReporter
    from tinylens.recipe import Recipe
    from tinylens.run import Run
    from tinylens.training import trainer as compiling
    from tinylens.training.loop import fit
    from tinylens.training.train import make_deterministic

    recipe = Recipe.load(name).override(changes)
    make_deterministic(choice.name)
    begun = time.perf_counter()
    trainer = compiling.build(data, recipe, precision("auto", choice.name))
    with tempfile.TemporaryDirectory() as folder:
        fit(trainer, Run(folder), ProgressReporter(), lambda: False)
    trained = time.perf_counter() - begun
    curve = []
    for tta_views in VIEWS:
        looked = time.perf_counter()
        network = trainer.network if tta_views == 1 else averaged(trainer.network, tta_views)
        logits = network.predict(**in_batches(data.test.images, batch_size=500), verbose=0)
        seconds = trained + time.perf_counter() - looked
        accuracy = float((logits.argmax(axis=1) == data.test.labels).mean())
        curve.append({"seconds": round(seconds, 2), "accuracy": accuracy, "views": tta_views})
    return {"curve": curve, "best": curve[0], "trained_seconds": round(trained, 2)}


# --- the tutorial


def _tutorial(data: Splits, epochs: int, seed: int) -> dict[str, Any]:
    import keras

    keras.utils.set_random_seed(seed)
    x_train, x_test = (part.images.astype("float32") / 255 for part in (data.train, data.test))
    grey = data.train.image_shape[2] == 1
    if grey:  # keras.io/examples/vision/mnist_convnet
        model = keras.Sequential(
            [
                keras.Input(shape=data.train.image_shape),
                keras.layers.Conv2D(32, kernel_size=(3, 3), activation="relu"),
                keras.layers.MaxPooling2D(pool_size=(2, 2)),
                keras.layers.Conv2D(64, kernel_size=(3, 3), activation="relu"),
                keras.layers.MaxPooling2D(pool_size=(2, 2)),
                keras.layers.Flatten(),
                keras.layers.Dropout(0.5),
                keras.layers.Dense(len(data.class_names), activation="softmax"),
            ]
        )
    else:  # the same style on colour: tensorflow.org/tutorials/images/cnn
        model = keras.Sequential(
            [
                keras.Input(shape=data.train.image_shape),
                keras.layers.Conv2D(32, (3, 3), activation="relu"),
                keras.layers.MaxPooling2D((2, 2)),
                keras.layers.Conv2D(64, (3, 3), activation="relu"),
                keras.layers.MaxPooling2D((2, 2)),
                keras.layers.Conv2D(64, (3, 3), activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(64, activation="relu"),
                keras.layers.Dense(len(data.class_names), activation="softmax"),
            ]
        )
    model.compile(loss="sparse_categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    batch_size = 128 if grey else 32  # what the two examples use
    curve: list[dict[str, float]] = []
    seconds = 0.0
    for _ in range(epochs):
        begun = time.perf_counter()
        model.fit(x_train, data.train.labels, batch_size=batch_size, epochs=1, verbose=0)
        seconds += time.perf_counter() - begun
        _, accuracy = model.evaluate(x_test, data.test.labels, batch_size=500, verbose=0)
        curve.append({"seconds": round(seconds, 2), "accuracy": round(accuracy, 4), "views": 1})
    return {"curve": curve, "best": max(curve, key=lambda row: row["accuracy"])}


# --- tables and the image


def _print(title: str, found: dict[str, list[dict[str, Any]]]) -> None:
    rows = []
    goal, patience = _goal(found.get(TUTORIAL, []))
    for name, runs in found.items():
        for tta_views in VIEWS:
            points = [p for run in runs for p in _last(run, tta_views)]
            if points:
                seconds = statistics.mean(p["seconds"] for p in points)
                faster = patience / seconds if patience else 0.0
                reached = all(p["accuracy"] >= goal for p in points)
                ratio = f"{faster:.1f}×" if reached and name != TUTORIAL else ""
                accuracy = _mean_sd([p["accuracy"] for p in points])
                rows.append([name, len(points), tta_views, f"{seconds:.1f}", accuracy, ratio])
    print(f"\n{title}")
    headings = ["trained by", "seeds", "views", "seconds", "accuracy on test", "faster"]
    machine.print_table(headings, rows)


def _last(run: dict[str, Any], tta_views: int) -> Iterable[dict[str, Any]]:
    """Return the best point of a run with so many views; none where it has none."""
    points = [point for point in run["curve"] if point["views"] == tta_views]
    return [max(points, key=lambda point: point["accuracy"])] if points else []


def _goal(tutorial: list[dict[str, Any]]) -> tuple[float, float]:
    """Return the tutorial's mean best accuracy, and the mean seconds that it took."""
    if not tutorial:
        return 0.0, 0.0
    best = [run["best"] for run in tutorial]
    return (
        statistics.mean(point["accuracy"] for point in best),
        statistics.mean(point["seconds"] for point in best),
    )


def _mean_sd(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


def draw() -> Path:
    """Draw accuracy against seconds from results/time_to_accuracy.json and return the image."""
    from matplotlib.figure import Figure

    results = _kept()
    figure = Figure(figsize=(11, 4.6), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(results), squeeze=False)[0]
    for axes, (name, found) in zip(panels, results.items(), strict=True):
        for contender, runs in found.items():
            _draw_contender(axes, contender, runs)
        axes.set(title=SETS[name], xlabel="seconds of training on 4 cores", xscale="log")
        axes.set_ylabel("accuracy on test")
        axes.set_xticks([10, 30, 100, 300, 1000], ["10", "30", "100", "300", "1,000"])
        axes.minorticks_off()
        axes.set_xlim(right=1.3 * axes.get_xlim()[1])
        axes.grid(alpha=0.3)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    panels[0].legend(loc="lower right", frameon=False, fontsize=8)
    figure.savefig(PLOT)
    return PLOT.relative_to(machine.ROOT)


def _draw_contender(axes: Any, contender: str, runs: list[dict[str, Any]]) -> None:
    """Draw every seed, and the contender's name at their mean."""
    tutorial = contender == TUTORIAL
    colour = "#8a8f98" if tutorial else "#D55E00" if contender == RECORD else "#0072B2"
    if tutorial:
        for run in runs:
            seconds, accuracies = _columns(run["curve"])
            axes.plot(seconds, accuracies, color=colour, marker=".", markersize=3, linewidth=0.7)
    for tta_views, fill in zip(VIEWS, (colour, "white"), strict=True):
        points = [point for run in runs for point in _last(run, tta_views)]
        if not points:
            continue
        label = None
        if contender == "fast, 10 epochs":
            label = "one view" if tta_views == 1 else f"mean of {tta_views} views"
        seconds, accuracies = _columns(points)
        axes.plot(
            seconds, accuracies, "o", color=colour, markerfacecolor=fill, markersize=5, label=label
        )
        if tta_views == 1:
            place = statistics.mean(seconds), statistics.mean(accuracies)
            words = contender.removeprefix("fast, ").replace("1 epochs", "1 epoch")
            away, side = BESIDE.get(contender, ((0, -15), "center"))
            axes.annotate(
                words, place, xytext=away, textcoords="offset points", ha=side, fontsize=7.5
            )


def _columns(points: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    return [point["seconds"] for point in points], [point["accuracy"] for point in points]


if __name__ == "__main__":
    main()
