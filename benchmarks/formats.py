"""Every format of a network on its own test images: same answers, accuracy, size, time.

On Fashion-MNIST and on CIFAR-10 (JPEG): trains recipe `fast`, exports all formats, and compares
each with what Keras answered. Files are timed in turns within one process, A B B A, and the ratio
of throughputs is that of integers to floats of the same runtime. --run takes trained runs instead.

    python benchmarks/formats.py --cifar FOLDER
    python benchmarks/formats.py --run runs/fashion-mnist-fast-1 --run runs/cifar10-fast-1
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import machine
from tinylens.backend import activate
from tinylens.data.dataset import Splits
from tinylens.data.load import reopen
from tinylens.errors import ModelError
from tinylens.exporting.formats import FORMATS
from tinylens.exporting.runtimes import open_model
from tinylens.exporting.verify import Limits, Row, reference, verify
from tinylens.run import Run
from tinylens.system import core_count

CIFAR = machine.ROOT.parent / "shared" / "data" / "cifar10"
SETS = {"fashion-mnist": "Fashion-MNIST", "cifar10": "CIFAR-10 (JPEG)"}
RECIPE = "fast"
PAIRS = {"onnx-int8": "onnx", "litert-int8": "litert"}  # integers, and the floats beside them
QUICK = {"train.epochs": 1, "model.options": {"widths": [32, 64, 64], "grey_widths": [16, 32, 32]}}
QUICK_IMAGES = 1_000
TARGET = 1.5  # times the throughput of floats


def main() -> None:
    parser = machine.parser(__doc__)
    parser.add_argument("--cifar", type=Path, default=CIFAR, help="the folder of Parquet files")
    parser.add_argument("--run", type=Path, action="append", help="a trained run; may be repeated")
    requested = parser.parse_args()
    described = machine.describe()
    activate("tensorflow")  # it writes some of the formats
    with tempfile.TemporaryDirectory() as folder:
        runs = _given(requested.run) if requested.run else _trained(requested, Path(folder))
        results = {
            name: measure(name, *each, requested, Path(folder)) for name, each in runs.items()
        }
    path = machine.write_results("formats", {"machine": described, "sets": results})
    print(f"\n{path.relative_to(machine.ROOT)}")


def _given(folders: list[Path]) -> dict[str, tuple[Run, Splits]]:
    found = {}
    for run in map(Run, folders):
        name = Path(run.info.dataset).name  # a path would tell of this machine
        found[f"{SETS.get(name, name)}, {run.recipe.name}"] = (run, reopen(run))
    return found


def _trained(requested: argparse.Namespace, folder: Path) -> dict[str, tuple[Run, Splits]]:
    from tinylens.data.load import load
    from tinylens.training.train import train

    found = {}
    for name, title in SETS.items():
        data = load(str(requested.cifar.resolve()) if name == "cifar10" else name)
        print(f"training {RECIPE} on {title}", flush=True)
        run = train(
            data, RECIPE, out=folder / f"run-{name}", overrides=QUICK if requested.quick else None
        )
        found[f"{title}, {RECIPE}"] = (run, data)
    return found


def measure(
    name: str, run: Run, data: Splits, requested: argparse.Namespace, folder: Path
) -> dict[str, Any]:
    """Export and judge all formats of a run; return a row a format and the ratios."""
    from tinylens.exporting.export import export

    out = folder / name.replace(" ", "-")
    exported, _ = export(run, ["all"], out=out, data=data)
    lost = [each.error for each in exported if each.path is None]
    if lost:
        raise ModelError("; ".join(lost))
    threads = core_count()
    models = [open_model(out / each.file, threads) for each in FORMATS.values()]
    images = QUICK_IMAGES if requested.quick else None
    keras = reference(run, data, "test", labels=True, images=images)
    found = verify(
        models, keras, Limits(), threads=threads, seconds=1.0 if requested.quick else 10.0
    )
    rows = [replace(row, path=FORMATS[row.format].file) for row in found.rows]
    right = (keras.probabilities.argmax(axis=1) == keras.labels).mean()
    ratios = _ratios(rows)
    _show(name, rows, ratios, float(right))
    return {
        "images": len(keras.images),
        "keras_accuracy": float(right),
        "threads": threads,
        "batch": found.batch,
        "rows": rows,
        "integers_to_floats": ratios,
        "failures": [f"{row.path}: {words}" for row in rows for words in row.failures],
    }


def _ratios(rows: list[Row]) -> dict[str, float]:
    rates = {row.format: row.speed.many_per_second for row in rows if row.speed is not None}
    return {name: rates[name] / rates[floats] for name, floats in PAIRS.items()}


def _show(name: str, rows: list[Row], ratios: dict[str, float], right: float) -> None:
    print(f"\n{name}: {rows[0].images:,} test images, Keras is right on {100 * right:.2f} %")
    cells = [_cells(row) for row in rows]
    headings = ("format", "same %", "apart", "points", "MB", "p50 ms", "p95 ms", "a second", "kept")
    machine.print_table(headings, cells)
    for integers, ratio in ratios.items():
        verdict = "reached" if ratio >= TARGET else "not reached"
        print(f"{integers}: {ratio:.2f} times its floats ({TARGET} {verdict})")


def _cells(row: Row) -> list[str]:
    assert row.accuracy_difference is not None and row.speed is not None
    low, high = row.accuracy_difference.ci95
    return [
        row.format,
        f"{100 * row.agreement:.2f}",
        f"{row.largest_difference:.1e}",
        f"{100 * row.accuracy_difference.value:+.2f} ({100 * low:+.2f} {100 * high:+.2f})",
        f"{row.size / 1e6:.2f}",
        f"{row.speed.one_p50_ms:.2f}",
        f"{row.speed.one_p95_ms:.2f}",
        f"{row.speed.many_per_second:,.0f}",
        "no" if row.failures else "yes",
    ]


if __name__ == "__main__":
    main()
