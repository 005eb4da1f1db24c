"""How fast a folder of 50,000 small JPEGs becomes an array: tinylens against Keras.

The images of train.parquet are written out as they are, one file each in a folder a class. Each
contender reads the folder in a process of its own, round by round in turn: once to warm up, then
timed from the call to arrays of pixels and labels. Imports are not counted; the start of tinylens's
own decoding processes is. tinylens starts with an empty cache each time; how long its second start
takes, which reads no image, is reported apart. Every pixel is compared to Pillow's.

Data: a parquet folder with train.parquet in the Hugging Face layout.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import machine

DATA = machine.ROOT.parent / "shared" / "data" / "cifar10"
TARGET = 4.0  # times Keras
BATCH = 1_000
ROUNDS = 7


def write_folder(parquet: Path, folder: Path) -> int:
    """Write each image of `parquet` to folder/CLASS/ROW.jpg, byte for byte; return how many."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(parquet)
    names = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    for name in names:
        (folder / name).mkdir(parents=True)
    column = "img" if "img" in table.column_names else "image"
    images, labels = table.column(column).to_pylist(), table.column("label").to_pylist()
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / names[label] / f"{row:06}.jpg").write_bytes(image["bytes"])
    return len(images)


# --- the contenders: each reads `folder` and prints what it took


def tinylens(folder: str) -> dict[str, Any]:
    """Time tinylens's first and second load, and a copy of its mapped images into memory."""
    from tinylens.data.cache import settle
    from tinylens.data.encoded import Options
    from tinylens.data.readers.folder import read

    def load(data_dir: str) -> Any:
        return read(folder, Options(data_dir=Path(data_dir)))

    with tempfile.TemporaryDirectory() as warm, tempfile.TemporaryDirectory() as empty:
        load(warm)
        settle()
        before = os.times()
        first, data = timed(lambda: load(empty))
        copying, _ = timed(lambda: np.array(data.images))
        writing, _ = timed(settle)
        after = os.times()
        second, _ = timed(lambda: load(empty))
    processes = after.children_user + after.children_system
    processes -= before.children_user + before.children_system
    return {
        "images": len(data),
        "seconds": first,
        "copy_seconds": copying,
        "seconds_until_it_is_on_the_disk": writing,
        "cached_seconds": second,
        "processor_seconds_of_the_processes": processes,
    }


def keras(folder: str) -> dict[str, Any]:
    """Time keras.utils.image_dataset_from_directory, and its batches put into two arrays."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow  # noqa: F401 - imports are not counted
    from keras.utils import image_dataset_from_directory

    def load() -> tuple[np.ndarray, np.ndarray]:
        batches = image_dataset_from_directory(
            folder, image_size=(32, 32), batch_size=BATCH, shuffle=False, verbose=False
        )
        pairs = [(pixels.numpy(), labels.numpy()) for pixels, labels in batches]
        pixels, labels = zip(*pairs, strict=True)
        return np.concatenate(pixels), np.concatenate(labels)

    load()
    seconds, (pixels, _) = timed(load)
    return {"images": len(pixels), "seconds": seconds}


def check(folder: str) -> dict[str, Any]:
    """Compare the pixels of every image with Pillow's own, by `PIL.Image.open`."""
    from PIL import Image

    from tinylens.data.encoded import Options
    from tinylens.data.readers.folder import read

    with tempfile.TemporaryDirectory() as empty:
        data = read(folder, Options(data_dir=Path(empty)))
        unequal = 0
        for path, image in zip(data.paths, data.images, strict=True):
            with Image.open(path) as opened:
                unequal += not np.array_equal(np.asarray(opened), image)
    return {"images": len(data), "unequal": unequal}


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that `work` takes, and what it returns."""
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


CONTENDERS = {"tinylens": tinylens, "keras": keras, "check": check}


# --- the comparison


def main() -> None:
    """Time the contenders, check the pixels, print the ratio and write results/load.json."""
    parser = machine.parser(__doc__)
    parser.add_argument("data", nargs="?", type=Path, default=DATA)
    arguments = parser.parse_args()
    described = machine.describe()
    with tempfile.TemporaryDirectory(prefix="tinylens-load-") as folder:
        write_folder(arguments.data / "train.parquet", Path(folder))
        contenders = [contender(name, folder) for name in ("tinylens", "keras")]
        rows = machine.take_turns(contenders, 3 if arguments.quick else ROUNDS)
        checked = machine.run_contender(contender("check", folder))
    ratio = machine.ratio(*([row["seconds"] for row in rows[n]] for n in ("keras", "tinylens")))
    rates = {name: rates_of(rows[name], "seconds") for name in rows}
    rates["tinylens, and a copy"] = rates_of(rows["tinylens"], "seconds", "copy_seconds")
    rates["tinylens, second start"] = rates_of(rows["tinylens"], "cached_seconds")
    machine.print_table(
        ["contender", "img/s (median)", "least", "most"],
        [[name, *(f"{rate:,.0f}" for rate in found)] for name, found in rates.items()],
    )
    print(f"tinylens / keras: {ratio}; at least {TARGET} is wanted")
    print(f"images that differ from Pillow's: {checked['unequal']} of {checked['images']:,}")
    results = {"machine": described, "ratio": ratio, "target": TARGET, "images_per_second": rates}
    print(machine.write_results("load", {**results, "pixels": checked, "rounds": rows}))


def contender(name: str, folder: str) -> machine.Contender:
    """Return the command that runs this file's function `name` on `folder`."""
    return machine.Contender(name, [sys.executable, __file__, "--contender", name, folder])


def rates_of(rows: list[dict[str, Any]], *names: str) -> tuple[float, float, float]:
    """Return images a second, median, least and most, over the sum of the named seconds."""
    rates = [row["images"] / sum(row[name] for name in names) for row in rows]
    return statistics.median(rates), min(rates), max(rates)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--contender"]:
        print(json.dumps(CONTENDERS[sys.argv[2]](sys.argv[3])))
    else:
        main()
