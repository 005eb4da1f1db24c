"""`Run`, one training run's folder: the only module that knows the file names in it.

Every file appears whole or not at all: a process killed at any moment leaves the last good state.
"""

from __future__ import annotations

import contextlib
import csv
import html
import io
import json
import os
import socket
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tinylens import files
from tinylens.errors import RunError
from tinylens.recipe import Recipe
from tinylens.results import Audit, Evaluation, Explanations, LearningCurve, Robustness


@dataclass
class RunInfo:
    """What run.json holds: where a run came from and how far it is.

    Attributes:
        state: "running", "done" or "failed".
        command: what was typed.
        dataset: the data set's source in words.
        fingerprint: SHA-256 of the data set with its splits.
        splits: "size" and "sha256" by part.
        image: how any image becomes the network's input, as `ImageRule.to_json` gives it; empty
            in runs of earlier versions.
        notes: how the splits came about, and what the reader of the figures must know.
        seconds: "load", "balance" where it was tried out, "train", "evaluate", "export", "total".
        plan: with a budget in seconds, "budget" and what
            `tinylens.training.time_budget.Plan.to_json` gives.
        balance: with train.balance "auto", what `tinylens.training.choose_balance.Choice.to_json`
            gives.
        teacher: with a teacher, what `tinylens.training.distillation.Teacher.to_json` gives.
        source: with a body trained before, what `tinylens.training.transfer.Source.to_json` gives,
            "used", "probe" or "trained on", and of the probe its "strength" and "log_loss".
        members: of an ensemble, "name" and "sha256" (of model.onnx) of each network's run.
        test_opened: "time" (UTC) and "command" of each look at the test split.
    """

    state: str = "running"
    command: str = ""
    seed: int = 0
    backend: str = ""
    precision: str = ""
    deterministic: bool = False
    dataset: str = ""
    fingerprint: str = ""
    class_names: list[str] = field(default_factory=list[str])
    splits: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    image: dict[str, Any] = field(default_factory=dict[str, Any])
    notes: list[str] = field(default_factory=list[str])
    started: str = ""
    finished: str = ""
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    plan: dict[str, Any] = field(default_factory=dict[str, Any])
    balance: dict[str, Any] = field(default_factory=dict[str, Any])
    teacher: dict[str, str] = field(default_factory=dict[str, str])
    source: dict[str, Any] = field(default_factory=dict[str, Any])
    members: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    test_opened: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    versions: dict[str, str] = field(default_factory=dict[str, str])
    hardware: dict[str, Any] = field(default_factory=dict[str, Any])
    error: str = ""


Arrays = dict[str, NDArray[Any]]
Kept = TypeVar("Kept")

UNREADABLE = (  # what parsers raise on damaged content
    ValueError,  # JSON, UTF-8, numbers
    LookupError,
    TypeError,
    EOFError,
    OSError,  # a zip whose list points before its start
    RuntimeError,  # a zip that seems to be encrypted, or of another compression
    zipfile.BadZipFile,
)
KEPT_CHECKPOINTS = 2  # the newest, and the one before it should the newest prove unreadable


@dataclass(frozen=True)
class Run:
    """One training run's folder. Everything after training only reads this.

    Raises:
        RunError: from every reader, when the file is not there yet or cannot be understood.
    """

    path: Path

    def __init__(self, path: str | Path) -> None:
        object.__setattr__(self, "path", Path(path))

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}: {', '.join(self._facts())})"

    def _repr_html_(self) -> str:
        facts = html.escape(f"{self.path}: {', '.join(self._facts())}")
        with contextlib.suppress(RunError):
            return f"<p>{facts}</p>{self.evaluation._repr_html_()}"
        return f"<p>{facts}</p>"

    def _facts(self) -> list[str]:
        """Return how far the run is and how good, in words."""
        if not self.started:
            return ["not started"]
        try:
            info = self.info
            facts = [info.state, f"trained on {info.dataset}"]
        except RunError:
            return ["run.json cannot be read"]
        with contextlib.suppress(RunError):
            test = self.evaluation.splits.get("test")
            facts += [] if test is None else [f"test accuracy {test.accuracy}"]
        return facts

    @staticmethod
    def create(root: Path, stem: str) -> Run:
        """Make and return the next free folder `root/stem-N`, N from 1."""
        root.mkdir(parents=True, exist_ok=True)
        number = 1 + max((n for n, _ in files.numbered(root, stem)), default=0)
        while True:
            try:
                (root / f"{stem}-{number}").mkdir()
            except FileExistsError:  # another process was quicker
                number += 1
            else:
                return Run(root / f"{stem}-{number}")

    @staticmethod
    def existing(root: Path, stem: str) -> list[Run]:
        """Return the runs `root/stem-N` that were started, newest first."""
        numbered = sorted(files.numbered(root, stem), reverse=True)
        return [Run(path) for _, path in numbered if (path / "run.json").is_file()]

    # --- the files, by what they are

    @property
    def model(self) -> Path:
        """The shipped file, model.onnx."""
        return self.path / "model.onnx"

    @property
    def keras_model(self) -> Path:
        """The same network for Keras, model.keras."""
        return self.path / "model.keras"

    @property
    def report(self) -> Path:
        """The report, one self-contained HTML file."""
        return self.path / "report.html"

    @property
    def model_card(self) -> Path:
        """What the model is and how good it is, README.md, as Hugging Face wants it."""
        return self.path / "README.md"

    @property
    def exports(self) -> Path:
        """The folder of the network in other formats."""
        return self.path / "exports"

    @property
    def plots(self) -> Path:
        """The folder of PNG plots."""
        return self.path / "plots"

    @property
    def explanations(self) -> Path:
        """The page of `tinylens explain`, one self-contained HTML file."""
        return self.path / "explanations.html"

    @property
    def events(self) -> Path:
        """The folder of TensorBoard events."""
        return self.path / "events"

    @property
    def started(self) -> bool:
        """Whether training was ever started here."""
        return (self.path / "run.json").is_file()

    # --- recipe.toml

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe: training again from it gives the same run."""
        return Recipe.from_toml(self._read_text("recipe.toml"), where=str(self.path))

    def write_recipe(self, recipe: Recipe) -> None:
        """Write recipe.toml."""
        files.write_text(self.path / "recipe.toml", recipe.to_toml())

    # --- run.json

    @property
    def info(self) -> RunInfo:
        """Where the run came from and how far it is."""
        tree = self._read_json("run.json")
        unknown = sorted(tree.keys() - {item.name for item in fields(RunInfo)})
        if unknown:
            raise RunError(
                f"{self.path / 'run.json'} holds {', '.join(unknown)}, which this version of "
                "tinylens does not know; open it with the version that wrote it"
            )
        return RunInfo(**tree)

    def write_info(self, info: RunInfo) -> None:
        """Write run.json."""
        self._write_json("run.json", asdict(info))

    # --- history.csv

    @property
    def history(self) -> list[dict[str, float]]:
        """One row of figures an epoch, or none before the first."""
        path = self.path / "history.csv"
        if not path.is_file():
            return []
        with _understood(path), path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
            return [{key: float(text) for key, text in row.items() if text != ""} for row in rows]

    def write_history(self, rows: list[dict[str, float]]) -> None:
        """Write history.csv; a figure that a row lacks, as val's may be, is left empty."""
        text = io.StringIO()
        fullest: dict[str, float] = max(rows, key=len, default={})
        writer = csv.DictWriter(text, fieldnames=list(fullest), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        files.write_text(self.path / "history.csv", text.getvalue())

    # --- checkpoints/

    def write_checkpoint(self, arrays: Arrays, state: Mapping[str, Any]) -> None:
        """Write one checkpoint file; state holds "epoch" and "step", which name and order it."""
        folder = self.path / "checkpoints"
        path = folder / f"{state['epoch']:05d}-{state['step']:07d}.npz"
        header = json.dumps({"state": state, "arrays": sorted(arrays)})
        content: dict[str, Any] = {"header": np.array(header), **arrays}
        files.write_with(path, lambda file: np.savez(file, **content))
        for old in self._checkpoint_files()[KEPT_CHECKPOINTS:]:
            old.unlink(missing_ok=True)

    def read_checkpoint(
        self, describe: Callable[[str], object] | None = None
    ) -> tuple[Arrays, dict[str, Any]] | None:
        """Return the newest checkpoint that can be read whole, or None when there is none.

        Args:
            describe: is given a sentence for each newer one that cannot be read.

        Raises:
            RunError: there are some, and none can be read.
        """
        paths = self._checkpoint_files()
        for path in paths:
            try:
                return _read_whole(path)
            except RunError as error:  # torn by the disk, not by us: try the one before
                if describe:
                    describe(f"{error}; the checkpoint before it is tried")
        if paths:
            raise RunError(
                f"{paths[0].parent}: none of the {len(paths)} checkpoints can be read; remove that "
                "folder to train from the start"
            )
        return None

    def _checkpoint_files(self) -> list[Path]:
        return sorted((self.path / "checkpoints").glob("[0-9]*.npz"), reverse=True)

    def remove_checkpoints(self) -> None:
        """Remove all checkpoints: the run is done and its weights are in its models."""
        for path in self._checkpoint_files():
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            (self.path / "checkpoints").rmdir()

    # --- evaluation.json, predictions.npz

    @property
    def evaluation(self) -> Evaluation:
        """The figures of all parts."""
        with _understood(self.path / "evaluation.json"):
            return Evaluation.from_json(self._read_json("evaluation.json"))

    def write_evaluation(self, evaluation: Evaluation) -> None:
        """Write evaluation.json."""
        self._write_json("evaluation.json", evaluation.to_json())

    @property
    def robustness(self) -> Robustness | None:
        """Accuracy on changed test images; None before `tinylens robustness`."""
        return self._read_if_there("robustness.json", Robustness.from_json)

    def write_robustness(self, robustness: Robustness) -> None:
        """Write robustness.json."""
        self._write_json("robustness.json", robustness.to_json())

    @property
    def audit(self) -> Audit | None:
        """Faults found in the data set; None before `tinylens audit`."""
        return self._read_if_there("audit.json", Audit.from_json)

    def write_audit(self, audit: Audit) -> None:
        """Write audit.json."""
        self._write_json("audit.json", audit.to_json())

    def write_explanations(self, explanations: Explanations) -> None:
        """Write explanations.json and, by the numbers of its sheets, the maps: explanations.npz."""
        content: dict[str, Any] = explanations.maps()
        path = self.path / "explanations.npz"
        files.write_with(path, lambda file: np.savez_compressed(file, **content))
        self._write_json("explanations.json", explanations.to_json())

    @property
    def learning_curve(self) -> LearningCurve | None:
        """What more images would give; None before `tinylens learning-curve`."""
        return self._read_if_there("learning_curve.json", LearningCurve.from_json)

    def write_learning_curve(self, curve: LearningCurve) -> None:
        """Write learning_curve.json."""
        self._write_json("learning_curve.json", curve.to_json())

    def write_scorecard(self, tree: Mapping[str, Any]) -> None:
        """Write scorecard.json, how the exported files compare with Keras."""
        self._write_json("scorecard.json", tree)

    @property
    def curve_runs(self) -> Path:
        """The folder of the trainings for a learning curve, while it is made."""
        return self.path / "learning-curve"

    @property
    def predictions(self) -> Arrays:
        """Arrays by name.

        For each part P: "P_probabilities" float32 (n, classes), "P_labels" int64 (n,), "P_indices"
        int64 (n,), the image's row in its part. And "worst_images" uint8 (m, height, width,
        channels) with "worst_indices" int64 (m,): the most confident mistakes on test, worst first.
        Likewise "confused_images" and "confused_indices": some of every confusion on test; a
        run of an earlier version may lack them.
        """
        path = self.path / "predictions.npz"
        if not path.is_file():
            raise RunError(self._not_there("predictions.npz"))
        with _understood(path):
            return _read_arrays(path)

    def write_predictions(self, arrays: Arrays) -> None:
        """Write predictions.npz."""
        content: dict[str, Any] = arrays
        path = self.path / "predictions.npz"
        files.write_with(path, lambda file: np.savez_compressed(file, **content))

    # --- one writer at a time

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for writing; the lock goes with the process, however that ends.

        Raises:
            RunError: another process holds it; the message names that process.
        """
        path = self.path / ".lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not files.lock_descriptor(descriptor):
                holder = path.read_text(encoding="utf-8", errors="replace").strip()
                raise RunError(
                    f"{self.path} is being written by {holder or 'another process'}; wait for it, "
                    "or give this run a folder of its own with --out"
                )
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            os.ftruncate(descriptor, 0)
            holder = f"process {os.getpid()} on {socket.gethostname()}, started {now}\n"
            os.write(descriptor, holder.encode())
            files.remove_leftovers(self.path, self.path / "checkpoints", self.plots, self.exports)
            yield
        finally:
            os.close(descriptor)

    def locked(self) -> bool:
        """Whether a live process is writing this run."""
        with contextlib.ExitStack() as stack:
            try:
                descriptor = os.open(self.path / ".lock", os.O_RDWR)
            except FileNotFoundError:
                return False
            stack.callback(os.close, descriptor)
            return not files.lock_descriptor(descriptor)

    # --- plain files

    def _read_text(self, name: str) -> str:
        try:
            with _understood(self.path / name):
                return (self.path / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise RunError(self._not_there(name)) from None

    def _read_json(self, name: str) -> dict[str, Any]:
        with _understood(self.path / name):
            return dict(json.loads(self._read_text(name)))

    def _read_if_there(self, name: str, parse: Callable[[Mapping[str, Any]], Kept]) -> Kept | None:
        if not (self.path / name).is_file():
            return None
        with _understood(self.path / name):
            return parse(self._read_json(name))

    def _write_json(self, name: str, tree: Mapping[str, Any]) -> None:
        files.write_text(self.path / name, json.dumps(tree, indent=1, ensure_ascii=False) + "\n")

    def _not_there(self, name: str) -> str:
        if not self.path.is_dir():
            return f"no run folder {self.path}; `tinylens train DATASET` makes one"
        return (
            f"{self.path} has no {name}: training has not come that far; "
            "the command that started the run continues it"
        )


def _read_whole(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Return the arrays and the state of a checkpoint; every member is checked by its CRC."""
    with _understood(path):
        arrays = _read_arrays(path)
        header = json.loads(str(arrays.pop("header")))
        if sorted(arrays) != header["arrays"]:  # the list of members lies outside any CRC
            raise RunError(f"{path} is damaged: it does not hold the arrays that it lists")
        return arrays, header["state"]


def _read_arrays(path: Path) -> Arrays:
    # given a path, np.load would leave a damaged file open
    with path.open("rb") as file, np.load(file) as content:
        return {name: content[name] for name in content.files}


@contextlib.contextmanager
def _understood(path: Path) -> Iterator[None]:
    """Turn what a parser raises on damaged content into a RunError that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        raise RunError(f"{path} is damaged: {error}") from None
