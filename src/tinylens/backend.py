"""Which Keras backend and which arithmetic to use: chosen, and said, before Keras is imported."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from tinylens.errors import MissingExtra, RecipeError, did_you_mean


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what libraries, and the C++ below them, write to stdout and stderr."""
    logging.disable(logging.ERROR)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for descriptor in kept:
            os.dup2(nowhere, descriptor)
        with (
            warnings.catch_warnings(),
            Path(os.devnull).open("w", encoding="utf-8") as silence,
            contextlib.redirect_stdout(silence),
            contextlib.redirect_stderr(silence),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
        for descriptor, copy in kept.items():
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(nowhere)


BACKENDS = ("tensorflow", "jax", "torch")
INSTALL = {
    "tensorflow": "pip install 'tinylens[train]'",
    "jax": "pip install 'tinylens[train,jax]'",
    "torch": "pip install 'tinylens[train,torch]'",
}


@dataclass(frozen=True)
class Choice:
    """A backend, and why it was taken, in words."""

    name: str
    reason: str


def choose(requested: str | None = None) -> Choice:
    """Choose the Keras backend: what was asked for, KERAS_BACKEND, or the fastest installed.

    TensorFlow comes first on a processor, where its kernels were measured fastest; JAX where it
    sees a GPU. A backend that Keras already runs on cannot be changed and is kept.

    Raises:
        RecipeError: `asked` is no backend, or Keras already runs on another one.
        MissingExtra: the backend is not installed.
    """
    running = _running()
    if running and requested in (None, running):
        return Choice(running, "Keras already runs on it")
    if running:
        raise RecipeError(
            f"Keras already runs on {running} in this process, {requested} was asked for; "
            f"set KERAS_BACKEND={requested} before the first import of keras"
        )
    wanted = requested or os.environ.get("KERAS_BACKEND")
    if wanted:
        where = "asked for" if requested else "from KERAS_BACKEND"
        return Choice(_checked(wanted), where)
    if _installed("jax") and Path("/dev/nvidia0").exists():
        return Choice("jax", "fastest on a GPU")
    for name in BACKENDS:
        if _installed(name):
            return Choice(name, "fastest installed on a processor")
    raise MissingExtra(f"no Keras backend is installed; type: {INSTALL['tensorflow']}")


def activate(requested: str | None = None) -> Choice:
    """Choose a backend as `choose` does and make the coming import of Keras take it."""
    choice = choose(requested)
    if not _installed("keras"):
        raise MissingExtra(f"Keras is not installed; type: {INSTALL[choice.name]}")
    os.environ["KERAS_BACKEND"] = choice.name
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # else lines of build details at first use
    with _quiet_stderr():
        importlib.import_module("keras")
    return choice


@contextlib.contextmanager
def _quiet_stderr() -> Generator[None]:
    """Keep what libraries write straight to stderr, and show it only when the block fails.

    TensorFlow's C++ code writes there at import, before its own log level is read.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as heard:
        os.dup2(heard.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept, 2)
            heard.seek(0)
            os.write(2, heard.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def precision(requested: str, backend: str) -> str:
    """Return "float32" or "bfloat16": what was asked for, or what is faster here.

    bfloat16 pays on a GPU with JAX, and with TensorFlow where the processor multiplies in it
    (AVX512_BF16 or AMX); elsewhere it is emulated and slower than float32.
    """
    if requested != "auto":
        return requested
    if backend == "tensorflow" and processor_flags() & {"avx512_bf16", "amx_bf16"}:
        return "bfloat16"
    if backend == "jax" and Path("/dev/nvidia0").exists():
        return "bfloat16"
    return "float32"


def processor_flags() -> frozenset[str]:
    """Return the processor's feature names as Linux lists them; elsewhere none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def processor_name() -> str:
    """Return the processor's name, as well as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def processor_count() -> int:
    """Return the number of processors that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def use_threads(count: int) -> None:
    """Let this process, and all that it starts, run on `count` processors only.

    Every library sees fewer processors, and so starts fewer threads; TensorFlow, JAX, PyTorch and
    onnxruntime have a setting each, which reach less far.

    Raises:
        RecipeError: fewer than 1, or more than there are.
        MissingExtra: the system cannot do this.
    """
    there = processor_count()
    if not 1 <= count <= there:
        raise RecipeError(f"--threads {count}: this process may use 1 to {there} processors")
    if sys.platform != "linux":
        raise MissingExtra("--threads needs Linux; elsewhere set OMP_NUM_THREADS")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def _running() -> str | None:
    """Return the backend of a Keras that is imported already."""
    keras = sys.modules.get("keras")
    return str(keras.backend.backend()) if keras is not None else None


def _checked(name: str) -> str:
    if name not in BACKENDS:
        raise RecipeError(
            f"no backend {name!r}{did_you_mean(name, BACKENDS)}; choose from {', '.join(BACKENDS)}"
        )
    if not _installed(name):
        raise MissingExtra(f"the backend {name} is not installed; type: {INSTALL[name]}")
    return name


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
