"""How fast model.onnx answers: tinylens against Keras on the same network, and bare onnxruntime.

    cold    from the start of a process to the answer for one PNG file
    one     a call for one image that is in memory: median and 95th percentile
    many    1,000 images in one call: images a second

The network is the `classic` recipe's, trained on `shapes` for one epoch, unless --run names a run.
Bare onnxruntime is what the answer costs at least: no card is read, nothing is checked.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import machine

MANY = 1000
WARM_UP = 20  # calls that are not timed
LEAST_CALLS = 20
TOLERANCE = 1e-3  # between the probabilities of contenders; they answer with one network

Answer = Callable[[NDArray[np.uint8]], Any]

COLD_KERAS = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, numpy
from PIL import Image
model = keras.models.load_model(sys.argv[1] + "/model.keras")
image = numpy.asarray(Image.open(sys.argv[2])).reshape(1, *model.input_shape[1:])
print(model.predict(image, verbose=0)[0].max())
"""
COLD_ONNXRUNTIME = """
import sys
import numpy, onnxruntime
from PIL import Image
session = onnxruntime.InferenceSession(sys.argv[1] + "/model.onnx")
shape = session.get_inputs()[0].shape[1:]
image = numpy.asarray(Image.open(sys.argv[2])).reshape(1, *shape)
print(session.run(None, {"image": image})[0].max())
"""


# --- what is timed, each in a process of its own


def tinylens_predict(run: Path) -> Answer:
    """Return labels, confidences and the likeliest classes, as a user asks for them."""
    from tinylens.inference.classifier import Classifier

    classifier = Classifier.open(run)
    return classifier.predict


def tinylens_probabilities(run: Path) -> Answer:
    from tinylens.inference.classifier import Classifier

    return Classifier.open(run).probabilities


def onnxruntime_run(run: Path) -> Answer:
    import onnxruntime

    session = onnxruntime.InferenceSession(run / "model.onnx")
    return lambda images: session.run(None, {"image": images})[0]


def keras_predict(run: Path) -> Answer:
    model = _keras_model(run)
    return lambda images: model.predict(images, batch_size=len(images), verbose=0)


def keras_call(run: Path) -> Answer:
    """Return what Keras advises for few images: the model called as a function."""
    model = _keras_model(run)
    return lambda images: np.asarray(model(images, training=False))


def _keras_model(run: Path) -> Any:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras

    return keras.models.load_model(run / "model.keras")


WARM: dict[str, Callable[[Path], Answer]] = {
    "tinylens predict": tinylens_predict,
    "tinylens probabilities": tinylens_probabilities,
    "onnxruntime": onnxruntime_run,
    "Keras predict": keras_predict,
    "Keras call": keras_call,
}


def measure(name: str, run: Path, seconds: float) -> dict[str, Any]:
    """Return milliseconds for one image, images a second for many, and the first answer."""
    shape = json.loads((run / "shape.json").read_text())
    images = np.random.default_rng(0).integers(0, 256, (MANY, *shape), np.uint8)
    answer = WARM[name](run)
    one = np.array(_timed(answer, images[:1], seconds)) * 1e3
    many = np.array(_timed(answer, images, seconds))
    return {
        "one_p50_ms": float(np.percentile(one, 50)),
        "one_p95_ms": float(np.percentile(one, 95)),
        "many_per_second": MANY / float(np.median(many)),
        "highest": _highest(answer(images[:1])),
    }


def _timed(answer: Answer, images: NDArray[np.uint8], seconds: float) -> list[float]:
    for _ in range(WARM_UP if len(images) == 1 else 2):
        answer(images)
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken) < LEAST_CALLS:
        begun = time.perf_counter()
        answer(images)
        taken.append(time.perf_counter() - begun)
    return taken


def _highest(answer: Any) -> float:
    """Return the highest probability of the first image."""
    return float(answer[0].confidence if isinstance(answer, list) else answer[0].max())


# --- what is compared


def compare(run: Path, image: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """Run all contenders in turn; return the rows of each round, and ratios to tinylens."""
    python = sys.executable
    cold = [
        machine.Contender(
            "tinylens",
            (python, "-m", "tinylens", "predict", "--json", str(run / "model.onnx"), str(image)),
        ),
        machine.Contender("onnxruntime", (python, "-c", COLD_ONNXRUNTIME, str(run), str(image))),
        machine.Contender("Keras", (python, "-c", COLD_KERAS, str(run), str(image))),
    ]
    warm = [
        machine.Contender(name, (python, __file__, "--measure", name, str(run), str(seconds)))
        for name in WARM
    ]
    for contender in cold:  # file caches and bytecode are warm for all
        _wall_seconds(contender)
    cold_rows = machine.take_turns(cold, 2 * rounds, _wall_seconds)
    warm_rows = machine.take_turns(warm, rounds)
    _check_they_agree(warm_rows)
    return {
        "cold": _against("tinylens", cold_rows, "wall_seconds", slower_is_larger=True),
        "one p50": _against("tinylens predict", warm_rows, "one_p50_ms", slower_is_larger=True),
        "one p95": _against("tinylens predict", warm_rows, "one_p95_ms", slower_is_larger=True),
        "many": _against("tinylens predict", warm_rows, "many_per_second", slower_is_larger=False),
    }


def _wall_seconds(contender: machine.Contender) -> dict[str, Any]:
    begun = time.perf_counter()
    subprocess.run(list(contender.command), check=True, capture_output=True)
    return {"wall_seconds": time.perf_counter() - begun}


def _check_they_agree(rows: dict[str, list[dict[str, Any]]]) -> None:
    highest = {name: mine[0]["highest"] for name, mine in rows.items()}
    if max(highest.values()) - min(highest.values()) > TOLERANCE:
        raise RuntimeError(f"the contenders do not answer alike: {highest}")


def _against(
    ours: str, rows: dict[str, list[dict[str, Any]]], key: str, *, slower_is_larger: bool
) -> dict[str, Any]:
    """Return, by contender, its median figure and how many times faster ours is."""
    figures = {name: [row[key] for row in mine] for name, mine in rows.items()}
    return {
        name: {
            "median": float(np.median(mine)),
            "each": mine,
            "tinylens_is_faster": machine.ratio(mine, figures[ours])
            if slower_is_larger
            else machine.ratio(figures[ours], mine),
        }
        for name, mine in figures.items()
    }


# --- the model


@contextlib.contextmanager
def a_run(given: Path | None) -> Generator[tuple[Path, Path]]:
    """Yield a folder with both model files and the shape of their images, and a PNG file."""
    from PIL import Image

    from tinylens.inference.classifier import Classifier

    with tempfile.TemporaryDirectory(prefix="tinylens-predict-") as folder:
        run = Path(folder) / "run"
        if given is None:
            train = ("-m", "tinylens", "train", "shapes", "--epochs", "1", "--out", str(run))
            subprocess.run([sys.executable, *train], check=True, stdout=subprocess.DEVNULL)
        else:
            run.mkdir()
            for name in ("model.onnx", "model.keras"):
                (run / name).symlink_to((given / name).resolve())
        shape = Classifier.open(run / "model.onnx").rule.shape
        (run / "shape.json").write_text(json.dumps(shape))
        pixels = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
        image = Path(folder) / "image.png"
        Image.fromarray(pixels[..., 0] if shape[2] == 1 else pixels).save(image)
        yield run, image


def show(results: dict[str, Any]) -> None:
    units = {"cold": "s", "one p50": "ms", "one p95": "ms", "many": "img/s"}
    for what, unit in units.items():
        rows = [
            (
                name,
                f"{row['median']:,.0f}" if unit == "img/s" else f"{row['median']:,.3f}",
                "" if name.startswith("tinylens") and what == "cold" else row["tinylens_is_faster"],
            )
            for name, row in results[what].items()
        ]
        machine.print_table((what, unit, "tinylens is faster by"), rows)
        print()


def main() -> None:
    parser = machine.parser(__doc__)
    parser.add_argument("--run", type=Path, help="a run's folder with model.onnx and model.keras")
    parser.add_argument("--measure", nargs=3, help="for its own use: NAME RUN SECONDS")
    arguments = parser.parse_args()
    if arguments.measure:
        name, run, seconds = arguments.measure
        print(json.dumps(measure(name, Path(run), float(seconds))))
        return
    described = machine.describe()
    rounds, seconds = (2, 1.0) if arguments.quick else (5, 4.0)
    with a_run(arguments.run) as (run, image):
        results = compare(run, image, rounds, seconds)
    show(results)
    path = machine.write_results("predict", {"machine": described, **results})
    print(path.relative_to(machine.ROOT))


if __name__ == "__main__":
    main()
