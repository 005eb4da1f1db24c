"""What all benchmarks share: the machine in words, contenders in turn, ratios, and result files.

A contender is a command that prints one JSON object as the last line of its output. Contenders take
turns in the order A B B A, so that a machine that slows down or warms up does so for all alike, and
are compared round by round.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tinylens import files, system
from tinylens.backend import processor_flags

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
MATRIX_SIZES = (1024, 2048, 4096)
GPU = Path("/dev/nvidia0")


@dataclass(frozen=True)
class Contender:
    """A command that measures something and prints one JSON object as its last line.

    Attributes:
        name: how the table and the result file call it.
        command: the program and its arguments.
        variables: of the environment, added to those of this process.
    """

    name: str
    command: Sequence[str]
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ratio:
    """A ratio measured several times: its median, and the least and the largest."""

    median: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.median:.2f}× ({self.low:.2f} to {self.high:.2f}, {self.pairs} pairs)"


def describe() -> dict[str, Any]:
    """Return processor, cores, flags, memory, load, versions and commit, as JSON values.

    Call it before anything is timed: the load average is that of the last minute.
    """
    return {
        **system.hardware(),
        "flags": [flag for flag in FLAGS if flag in processor_flags()],
        "load_average": round(os.getloadavg()[0], 2),
        "gpu": _gpu(),
        "versions": system.versions(),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--", ".", ":!benchmarks/results")),
        "time": system.now(),
    }


def write_results(name: str, results: Mapping[str, Any]) -> Path:
    """Write results/NAME.json, or NAME-quick.json of a look, whole or not at all; return its path.

    Args:
        name: of the benchmark.
        results: JSON values and dataclasses; "machine" is what `describe` gave at the start.
    """
    # an absolute path would tell of this machine and mean nothing on another
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    command = " ".join(["python", f"benchmarks/{name}.py", *words])
    text = json.dumps({"command": command, **results}, indent=1, default=asdict, ensure_ascii=False)
    # a look must not take the place of a published result
    path = RESULTS / f"{name}{'-quick' if '--quick' in words else ''}.json"
    files.write_text(path, text + "\n")
    return path


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return the parser of a benchmark's command line, with --quick."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--quick", action="store_true", help="fewer and shorter measurements")
    return made


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their headings, the first column to the left and the others to the right."""
    lines = [list(headings), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *others in lines:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]))


# --- contenders


def run_contender(contender: Contender) -> dict[str, Any]:
    """Run a contender and return the JSON object that it printed, and its "wall_seconds".

    Raises:
        RuntimeError: it failed or printed no JSON; with what it wrote.
    """
    begun = time.perf_counter()
    ended = subprocess.run(
        list(contender.command),
        cwd=ROOT,
        env={**os.environ, **contender.variables},
        check=False,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - begun
    try:
        if ended.returncode:
            raise ValueError(f"exit code {ended.returncode}")
        return {**json.loads(ended.stdout.splitlines()[-1]), "wall_seconds": seconds}
    except (ValueError, IndexError, TypeError) as error:
        said = ended.stdout[-500:] + ended.stderr[-2000:]
        raise RuntimeError(f"{contender.name} gave no result ({error}): {said}") from None


def take_turns(
    contenders: Sequence[Contender],
    rounds: int,
    run: Callable[[Contender], dict[str, Any]] = run_contender,
) -> dict[str, list[dict[str, Any]]]:
    """Run every contender once a round, every second round backwards: A B B A A B.

    Args:
        contenders: in the order of the first round.
        rounds: how often each is run.
        run: runs one and returns what it found.

    Returns:
        What each gave, by name, a row a round.
    """
    rows: dict[str, list[dict[str, Any]]] = {each.name: [] for each in contenders}
    for number in range(rounds):
        for contender in contenders if number % 2 == 0 else reversed(contenders):
            rows[contender.name].append(run(contender))
    return rows


def ratio(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """Return above / below, round by round: median, least and largest."""
    each = [one / other for one, other in zip(above, below, strict=True)]
    return Ratio(statistics.median(each), min(each), max(each), len(each))


# --- the machine's limit


def matrix_peak(dtype: str, seconds: float = 2.0) -> dict[str, Any]:
    """Return the best measured rate of a product of two square matrices, on all cores.

    Every installed library that multiplies fast on a processor tries each of MATRIX_SIZES in a
    process of its own; where there is a GPU, JAX does so on it.

    Args:
        dtype: "float32" or "bfloat16".
        seconds: spent on each size of matrix, in each library.

    Returns:
        "gflops" (10⁹ operations a second, an addition and a multiplication counted as two) of the
        best, its "library" and "size", and "all" that was tried.
    """
    found = []
    for library in ("jax",) if GPU.exists() else ("tensorflow", "torch"):
        if importlib.util.find_spec(library):
            command = [sys.executable, __file__, library, dtype, str(seconds)]
            found += run_contender(Contender(f"{dtype} product in {library}", command))["rates"]
    best = max(found, key=lambda row: row["gflops"])
    return {"dtype": dtype, **best, "all": found}


def _multiply(library: str, dtype: str, seconds: float) -> list[dict[str, Any]]:
    """Return the rate of matrix products in a library, a row a size."""
    product_of = {"tensorflow": _tensorflow, "torch": _torch, "jax": _jax}[library](dtype)
    rates = []
    for size in MATRIX_SIZES:
        product = product_of(size)
        product()
        best, end = math.inf, time.perf_counter() + seconds
        while time.perf_counter() < end:
            begun = time.perf_counter()
            product()
            best = min(best, time.perf_counter() - begun)
        rates.append(
            {"library": library, "size": size, "gflops": round(2 * size**3 / best / 1e9, 1)}
        )
    return rates


def _tensorflow(dtype: str) -> Callable[[int], Callable[[], object]]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    def product_of(size: int) -> Callable[[], object]:
        left, right = (tf.cast(tf.random.normal((size, size)), dtype) for _ in range(2))
        return lambda: tf.linalg.matmul(left, right)

    return product_of


def _torch(dtype: str) -> Callable[[int], Callable[[], object]]:
    import torch

    def product_of(size: int) -> Callable[[], object]:
        left, right = (torch.randn(size, size).to(getattr(torch, dtype)) for _ in range(2))
        return lambda: left @ right

    return product_of


def _jax(dtype: str) -> Callable[[int], Callable[[], object]]:
    import jax

    def product_of(size: int) -> Callable[[], object]:
        keys = jax.random.split(jax.random.key(0))
        left, right = (jax.random.normal(key, (size, size), dtype) for key in keys)
        multiply = jax.jit(jax.numpy.matmul)
        return lambda: multiply(left, right).block_until_ready()

    return product_of


# --- descriptions


def _git(*arguments: str) -> str:
    """Return what git answers, or "" where this is no checkout."""
    try:
        answer = subprocess.run(
            ["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return answer.stdout.strip()


def _gpu() -> str | None:
    """Return the names of the GPUs as their driver tells them, or None."""
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return ", ".join(answer.stdout.split("\n")).strip(", ") or None


if __name__ == "__main__":  # one library's products: a process of its own has all cores
    print(json.dumps({"rates": _multiply(sys.argv[1], sys.argv[2], float(sys.argv[3]))}))
