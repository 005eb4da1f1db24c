"""Which backend and which arithmetic are chosen, and what is said where that cannot be."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tinylens import backend
from tinylens.backend import Choice
from tinylens.errors import MissingExtra, RecipeError


@pytest.fixture
def machine(monkeypatch):
    """A machine without Keras running, without a GPU and with the backends that are asked for."""

    def make(installed=backend.BACKENDS, gpu=False, flags=(), running=None):
        here = {"keras", *installed}
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: SimpleNamespace() if name in here else None
        )
        monkeypatch.setattr(
            backend.Path, "exists", lambda path: gpu and str(path) == "/dev/nvidia0"
        )
        monkeypatch.setattr(backend, "processor_flags", lambda: frozenset(flags))
        monkeypatch.delenv("KERAS_BACKEND", raising=False)
        if running is None:
            monkeypatch.delitem(sys.modules, "keras", raising=False)
        else:
            keras = SimpleNamespace(backend=SimpleNamespace(backend=lambda: running))
            monkeypatch.setitem(sys.modules, "keras", keras)

    return make


@pytest.mark.parametrize(
    ("installed", "gpu", "expected"),
    [
        (("tensorflow", "jax", "torch"), False, "tensorflow"),
        (("tensorflow", "jax", "torch"), True, "jax"),
        (("tensorflow", "torch"), True, "tensorflow"),
        (("jax", "torch"), False, "jax"),
        (("torch",), False, "torch"),
    ],
)
def test_without_a_wish_the_fastest_installed_is_chosen(machine, installed, gpu, expected):
    machine(installed, gpu)
    assert backend.choose().name == expected


def test_the_wish_comes_before_the_environment_and_the_environment_before_the_rule(
    machine, monkeypatch
):
    machine()
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert backend.choose() == Choice("torch", "from KERAS_BACKEND")
    assert backend.choose("jax") == Choice("jax", "asked for")


def test_a_backend_that_keras_runs_on_is_kept(machine):
    machine(running="torch")
    assert backend.choose() == Choice("torch", "Keras already runs on it")
    assert backend.choose("torch").name == "torch"
    with pytest.raises(RecipeError, match="Keras already runs on torch in this process, jax was"):
        backend.choose("jax")


@pytest.mark.parametrize("wish", ["tensorfow", "numpy"])
def test_a_backend_that_does_not_exist_is_refused_with_the_near_name(machine, monkeypatch, wish):
    machine()
    near = ", did you mean tensorflow?" if wish == "tensorfow" else ""
    expected = f"no backend '{wish}'{near}; choose from tensorflow, jax, torch"
    with pytest.raises(RecipeError) as caught:
        backend.choose(wish)
    assert str(caught.value) == expected
    monkeypatch.setenv("KERAS_BACKEND", wish)
    with pytest.raises(RecipeError) as caught:
        backend.choose()
    assert str(caught.value) == expected


def test_a_backend_that_is_not_installed_is_told_with_what_to_type(machine):
    machine(installed=("tensorflow",))
    with pytest.raises(MissingExtra) as caught:
        backend.choose("jax")
    assert str(caught.value) == (
        "the backend jax is not installed; type: pip install 'tinylens[train,jax]'"
    )


def test_a_machine_without_any_backend_is_told_what_to_type(machine):
    machine(installed=())
    with pytest.raises(MissingExtra, match=r"no Keras backend is installed; type: pip install"):
        backend.choose()


@pytest.mark.parametrize(
    ("name", "gpu", "flags", "expected"),
    [
        ("tensorflow", False, {"avx512_bf16"}, "bfloat16"),
        ("tensorflow", False, {"amx_bf16", "sse"}, "bfloat16"),
        ("tensorflow", False, {"avx512f"}, "float32"),
        ("jax", False, {"avx512_bf16"}, "float32"),
        ("jax", True, (), "bfloat16"),
        ("torch", True, {"avx512_bf16"}, "float32"),
    ],
)
def test_bfloat16_is_taken_where_it_is_faster(machine, name, gpu, flags, expected):
    machine(gpu=gpu, flags=flags)
    assert backend.precision("auto", name) == expected


@pytest.mark.parametrize("requested", ["float32", "bfloat16"])
def test_the_asked_precision_is_taken_everywhere(machine, requested):
    machine()
    for name in backend.BACKENDS:
        assert backend.precision(requested, name) == requested


def test_activating_sets_the_environment_and_leaves_stderr_as_it_was(capfd):
    before = os.environ.get("KERAS_BACKEND")
    choice = backend.activate()  # Keras runs in this process already, or is imported here
    assert os.environ["KERAS_BACKEND"] == choice.name
    assert before in (None, choice.name)
    os.write(2, b"heard\n")
    assert capfd.readouterr().err == "heard\n"


@pytest.mark.slow
def test_a_fresh_process_imports_keras_on_the_chosen_backend_in_silence():
    code = (
        "from tinylens import backend; choice = backend.activate('torch'); import keras; "
        "print(choice, keras.backend.backend())"
    )
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout == "Choice(name='torch', reason='asked for') torch\n"
    assert done.stderr == ""


def test_processor_facts_are_those_of_the_system():
    assert backend.processor_count() == len(os.sched_getaffinity(0))
    assert backend.processor_name()
    if sys.platform == "linux" and os.uname().machine == "x86_64":
        assert "sse2" in backend.processor_flags()


@pytest.mark.skipif(sys.platform != "linux", reason="processors are chosen on Linux only")
def test_fewer_threads_are_fewer_processors_for_every_library():
    program = (
        "import os; from tinylens import backend; backend.use_threads(1); "
        "print(backend.processor_count(), len(os.sched_getaffinity(0)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["1", "1"]


@pytest.mark.parametrize("count", [0, -1, 100_000])
def test_a_number_of_threads_that_cannot_be_is_refused(count):
    with pytest.raises(RecipeError, match=f"--threads {count}: this process may use 1 to"):
        backend.use_threads(count)
