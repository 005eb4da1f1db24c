"""Trained on each backend in a process of its own, answered by an environment without Keras.

The environment is a real one: a bare virtual environment that gets the packages which
requirements/runtime.txt names, and no other, as links to where they are installed here.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from builders_export import copy_of
from tinylens.backend import BACKENDS

ROOT = Path(__file__).parents[2]
TRAIN = """
import sys
from pathlib import Path
from builders_export import RECIPE, trained_run
run = trained_run(Path(sys.argv[1]), RECIPE.override({"train.epochs": 1}))
print(run.info.backend)
"""
ANSWER = """
import importlib.util, json, sys
import numpy as np
names = ("keras", "tensorflow", "jax", "torch", "onnx")
present = [name for name in names if importlib.util.find_spec(name)]
from tinylens.inference.classifier import Classifier
classifier = Classifier.open(sys.argv[1])
golden = classifier.card.golden
given = classifier.probabilities(golden.images)
apart = float(np.abs(given - golden.probabilities).max())
spread = float(np.ptp(golden.probabilities, axis=0).max())
print(json.dumps({"present": present, "apart": apart, "images": len(given), "spread": spread}))
"""


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory) -> Path:
    """A Python that has the runtime dependencies and tinylens, and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    [packages] = folder.glob("lib/python*/site-packages")
    text = (ROOT / "requirements" / "runtime.txt").read_text("utf-8")
    for name, only_where in re.findall(r"^([\w.-]+)==\S+( ;)?", text, re.MULTILINE):
        if only_where and not list(importlib.metadata.distributions(name=name)):
            continue  # for another system
        distribution = importlib.metadata.distribution(name)
        tops = {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}
        for top in sorted(tops - {"__pycache__"}):
            target = Path(str(distribution.locate_file(top)))
            if target.exists() and not (packages / top).exists():
                (packages / top).symlink_to(target)
    (packages / "tinylens").symlink_to(ROOT / "src" / "tinylens")
    return folder / "bin" / "python"


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_of_every_backend_gives_its_golden_answers_without_keras(
    backend, bare_python, tmp_path
):
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    trained = subprocess.run(
        [sys.executable, "-c", TRAIN, str(tmp_path)],
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (trained.returncode, trained.stdout) == (0, f"{backend}\n"), trained.stderr
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    answered = subprocess.run(
        [str(bare_python), "-c", ANSWER, str(tmp_path / "run" / "model.onnx")],
        env=variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answered.returncode == 0, answered.stderr
    found = json.loads(answered.stdout)
    assert found["present"] == []
    assert found["images"] == 16 and found["spread"] > 0.05
    assert found["apart"] <= 1e-5


@pytest.mark.slow
def test_verify_needs_no_keras_and_export_says_what_it_needs(bare_python, trained, tmp_path):
    run = copy_of(trained, tmp_path)
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def type_in(*words):
        command = [str(bare_python), "-m", "tinylens", *map(str, words)]
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)

    verified = type_in("verify", run.path, "--seconds", "0", "--json")
    assert verified.returncode == 0, verified.stderr
    [row] = json.loads(verified.stdout)["scorecard"]["rows"]
    assert (row["format"], row["agreement"]) == ("onnx", 1)
    assert "no plot is drawn: the report needs matplotlib" in verified.stderr
    exported = type_in("export", run.path)
    assert exported.returncode == 3
    assert "litert needs ai_edge_litert and tensorflow" in exported.stderr
    assert "type: pip install 'tinylens[train,litert,openvino]'" in exported.stderr
