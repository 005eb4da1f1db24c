"""Whether the same images are the same data set, whatever they come in: fingerprint and weights.

The images of CIFAR-10 (JPEG) are written as a folder, a .zip, a .tar, a .tar.gz, a CSV, Parquet
files, a WebDataset and a Hugging Face folder, each time in another order and, where files have
names, under other names. Each is then trained on once by the command line, with one seed. This
writes by itself and not by `tinylens data convert`, whose order is always the same.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import machine

CIFAR = machine.ROOT.parent / "shared" / "data" / "cifar10"
QUICK = 2_000  # images to train on, and a fifth of it to test


class Row(NamedTuple):
    """An image: its part, the number of its class, its bytes."""

    part: str
    label: int
    content: bytes


def main() -> None:
    """Write every form, train on each, and tell whether all are the same."""
    parser = machine.parser(__doc__)
    parser.add_argument("--cifar", type=Path, default=CIFAR, help="the folder of Parquet files")
    parser.add_argument("--scratch", type=Path, help="where the forms are written; else temporary")
    parser.add_argument("--set", dest="changes", action="append", default=["train.epochs=1"])
    requested = parser.parse_args()
    described = machine.describe()
    names, rows = read(requested.cifar, QUICK if requested.quick else None)
    with tempfile.TemporaryDirectory(dir=requested.scratch) as scratch:
        found = [measure(Path(scratch), name, names, rows, requested) for name in FORMS]
    show(found)
    content = {
        "machine": described,
        "images": len(rows),
        "changes": requested.changes,
        "rows": found,
    }
    path = machine.write_results("same_from_every_format", content)
    print(f"\nwritten: benchmarks/results/{path.name}")
    if len({(each["fingerprint"], each["weights"]) for each in found}) > 1:
        sys.exit("they differ")


def read(folder: Path, most: int | None) -> tuple[list[str], list[Row]]:
    """Return the class names and all images."""
    import pyarrow.parquet

    rows: list[Row] = []
    for part in ("train", "test"):
        table = pyarrow.parquet.read_table(folder / f"{part}.parquet")
        wanted = most if part == "train" or most is None else most // 5
        cells = table.slice(0, wanted).to_pylist()
        rows += [Row(part, cell["label"], cell["img"]["bytes"]) for cell in cells]
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    return features["label"]["names"], rows


def measure(
    scratch: Path, form: str, names: list[str], rows: list[Row], requested: argparse.Namespace
) -> dict[str, Any]:
    """Write a form, train on it, and return what came of it."""
    shuffled = random.Random(form).sample(rows, len(rows))
    path = FORMS[form](scratch / form, names, shuffled)
    changes = [word for change in requested.changes for word in ("--set", change)]
    words = ["train", str(path), "--recipe", "fast", *changes, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "tinylens", *words, "--out", str(scratch / f"{form}-run")],
        env={**os.environ, "TINYLENS_CACHE": str(scratch / "cache")},
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"tinylens {' '.join(words)}: {done.stderr[-2000:]}")
    run = scratch / f"{form}-run"
    info = json.loads((run / "run.json").read_text("utf-8"))
    test = json.loads(done.stdout)["evaluation"]["splits"]["test"]["accuracy"]["value"]
    row = {
        "form": form,
        "fingerprint": info["fingerprint"],
        "weights": weights_of(run / "model.keras"),
        "accuracy": test,
    }
    print(row, file=sys.stderr)
    return row


def weights_of(model: Path) -> str:
    """Return the SHA-256 over the arrays in a .keras file, in the order of their names."""
    import h5py

    found: dict[str, bytes] = {}

    def note(name: str, entry: Any) -> None:
        if isinstance(entry, h5py.Dataset):
            found[name] = entry[()].tobytes()

    with zipfile.ZipFile(model) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content) as file:
        file.visititems(note)
    digest = hashlib.sha256()
    for name in sorted(found):
        digest.update(found[name])
    return digest.hexdigest()


# --- the forms


def named(names: list[str], rows: list[Row]) -> list[tuple[str, bytes]]:
    """Return the files of a folder of classes."""
    return [
        (f"{row.part}/{names[row.label]}/{number}.jpg", row.content)
        for number, row in enumerate(rows)
    ]


def folder(path: Path, names: list[str], rows: list[Row]) -> Path:
    for name, content in named(names, rows):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def packed_zip(path: Path, names: list[str], rows: list[Row]) -> Path:
    with zipfile.ZipFile(path.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in named(names, rows):
            archive.writestr(f"around/{name}", content)
    return path.with_suffix(".zip")


def tar(path: Path, entries: list[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def plain_tar(path: Path, names: list[str], rows: list[Row]) -> Path:
    return tar(path.with_suffix(".tar"), named(names, rows))


def packed_tar(path: Path, names: list[str], rows: list[Row]) -> Path:
    return tar(path.with_suffix(".tar.gz"), named(names, rows), "w:gz")


def manifest(path: Path, names: list[str], rows: list[Row]) -> Path:
    (path / "files").mkdir(parents=True)
    with (path / "all.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "category", "split"])
        for number, row in enumerate(rows):
            (path / "files" / f"{number}.jpg").write_bytes(row.content)
            writer.writerow([f"files/{number}.jpg", names[row.label], row.part])
    return path / "all.csv"


def parquet(path: Path, names: list[str], rows: list[Row]) -> Path:
    for part in ("train", "test"):
        write_table(path / f"{part}.parquet", names, [row for row in rows if row.part == part])
    return path


def write_table(path: Path, names: list[str], rows: list[Row], *, described: bool = True) -> None:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [{"bytes": row.content, "path": None} for row in rows]
    table = pyarrow.table({"image": cells, "label": [row.label for row in rows]})
    if described:
        feature = {"names": names, "_type": "ClassLabel"}
        described = json.dumps({"info": {"features": {"label": feature}}})
        table = table.replace_schema_metadata({"huggingface": described})
    pyarrow.parquet.write_table(table, path)


def web_dataset(path: Path, names: list[str], rows: list[Row]) -> Path:
    path.mkdir()
    (path / "classnames.txt").write_text("\n".join(names))
    for part in ("train", "test"):
        mine = [row for row in rows if row.part == part]
        for start in range(0, len(mine), 7_000):
            entries = []
            for number, row in enumerate(mine[start : start + 7_000], start):
                entries += [(f"{number}.jpg", row.content), (f"{number}.cls", b"%d" % row.label)]
            tar(path / f"{part}-{start // 7_000:04}.tar", entries)
    return path


def hugging_face(path: Path, names: list[str], rows: list[Row]) -> Path:
    """The class names are in README.md alone."""
    for part in ("train", "test"):
        mine = [row for row in rows if row.part == part]
        half = len(mine) // 2
        for number, some in enumerate((mine[:half], mine[half:])):
            name = f"{part}-{number:05}-of-00002.parquet"
            write_table(path / "data" / name, names, some, described=False)
    numbered = "".join(f"          '{number}': {name}\n" for number, name in enumerate(names))
    (path / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: image\n    dtype: image\n  - name: label\n"
        f"    dtype:\n      class_label:\n        names:\n{numbered}---\n"
    )
    return path


FORMS: dict[str, Callable[[Path, list[str], list[Row]], Path]] = {
    "folder": folder,
    "zip": packed_zip,
    "tar": plain_tar,
    "tar.gz": packed_tar,
    "csv": manifest,
    "parquet": parquet,
    "webdataset": web_dataset,
    "huggingface": hugging_face,
}


def show(rows: list[dict[str, Any]]) -> None:
    """Print a row a form."""
    table = [
        [
            row["form"],
            row["fingerprint"][:16],
            row["weights"][:16],
            f"{row['accuracy']:.4f}",
        ]
        for row in rows
    ]
    machine.print_table(["form", "fingerprint", "weights", "test"], table)


if __name__ == "__main__":
    main()
