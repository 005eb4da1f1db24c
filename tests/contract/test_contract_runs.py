"""What a training leaves: the files of a run, what they hold, and what stays equal."""

from __future__ import annotations

import csv
import json
import signal
import time
import tomllib
from pathlib import Path

import names
import numpy as np
import pytest
from outside import KINDS, NAMES, SPLITS, training

FROZEN = json.loads((Path(__file__).parent / "frozen.json").read_text())
SCORES = (
    "accuracy", "top5", "log_loss", "brier", "ece", "precision_macro", "recall_macro", "f1_macro",
    "precision_weighted", "recall_weighted", "f1_weighted", "mcc", "roc_auc_macro",
)  # fmt: skip


def predictions(run: Path) -> dict[str, np.ndarray]:
    with np.load(run / "predictions.npz") as file:
        return dict(file)


def weights(run: Path) -> dict[str, bytes]:
    """Return the constants of a run's network, by name."""
    import onnx

    graph = onnx.load(str(run / "model.onnx")).graph
    return {
        constant.name: bytes(onnx.numpy_helper.to_array(constant).tobytes())
        for constant in graph.initializer
    }


def history(run: Path) -> list[list[str]]:
    """Return the rows of history.csv but for how long they took."""
    with (run / "history.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header == names.HISTORY_COLUMNS and [float(row[0]) for row in rows][:2] == [1, 2]
    return [row[:-2] for row in rows]


def assert_same(first: Path, second: Path) -> None:
    """Both networks are equal, bit for bit, in what they are and in what they said."""
    one, other = predictions(first), predictions(second)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    assert weights(first) == weights(second) != {}
    assert history(first) == history(second) != []


def interval_of_wilson(share: float, count: int) -> list[float]:
    z = 1.959963984540054
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * ((share * (1 - share) + z * z / (4 * count)) / count) ** 0.5 / (1 + z * z / count)
    return [middle - half, middle + half]


def run_info(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_images_have_one_fingerprint_in_every_kind_of_file(shell, kinds, kind):
    info = shell.ok("data", "info", kinds.folder / kind)
    assert set(info) == names.INFO_KEYS
    assert info["fingerprint"] == FROZEN["fingerprint"]
    assert (info["class_names"], info["image_shape"]) == (list(NAMES), [16, 16, 3])
    assert info["notes"] == []
    found = {split: part["counts"] for split, part in info[names.SPLITS].items()}
    assert found == {split: [count // 4] * 4 for split, count in SPLITS.items()}
    assert [part[names.IMAGES] for part in info[names.SPLITS].values()] == list(SPLITS.values())
    pixels = kinds.arrays["x_train"] / 1.0
    np.testing.assert_allclose(info["channel_mean"], pixels.mean((0, 1, 2)), atol=0.02)
    np.testing.assert_allclose(info["channel_std"], pixels.std((0, 1, 2)), atol=0.02)


@pytest.mark.parametrize("recipe", ["classic", "fast"])
def test_a_run_has_its_files(runs, recipe):
    run, said = runs[recipe]
    assert set(said) == names.TRAIN_KEYS
    missing = [name for name in names.RUN_FILES if not (run / name).is_file()]
    assert missing == [] and any((run / "events").iterdir())
    assert not (run / "checkpoints").exists()
    assert Path(said["model"]).read_bytes() == (run / "model.onnx").read_bytes()
    assert Path(said["report"]).samefile(run / "report.html")
    assert len(history(run)) == 4
    assert said["evaluation"] == json.loads((run / "evaluation.json").read_text())


@pytest.mark.parametrize("recipe", ["classic", "fast"])
def test_a_run_says_what_it_is(runs, kinds, recipe):
    info = run_info(runs[recipe][0])
    assert set(info) == names.RUN_KEYS and set(info["seconds"]) == names.RUN_SECONDS
    assert (info["state"], info["seed"], info["error"]) == ("done", 0, "")
    assert (info["precision"], info["deterministic"]) == ("float32", True)
    assert info["backend"] in ("tensorflow", "jax", "torch")
    assert info["class_names"] == list(NAMES) and "train" in info["command"]
    assert info["fingerprint"] == FROZEN["fingerprint"]
    assert {name: split["size"] for name, split in info["splits"].items()} == SPLITS
    assert {name: split["sha256"] for name, split in info["splits"].items()} == FROZEN["splits"]
    assert len(info["test_opened"]) == 1 and set(info["test_opened"][0]) == {"time", "command"}
    assert [info["image"][name] for name in ("height", "width", "channels")] == [16, 16, 3]
    assert {"tinylens", "python", "keras", "numpy"} <= set(info["versions"])
    recipe_file = tomllib.loads((runs[recipe][0] / "recipe.toml").read_text())
    assert recipe_file["name"] == recipe and recipe_file["train"]["epochs"] == 4
    assert set(names.RECIPE_RENAMED) <= set(recipe_file["train"])
    assert set(names.RECIPE_RATES) <= set(recipe_file["optimizer"])
    assert names.RECIPE_VIEWS in recipe_file["model"]


@pytest.mark.parametrize("recipe", ["classic", "fast"])
def test_every_figure_has_an_interval_and_follows_from_the_predictions(runs, kinds, recipe):
    run = runs[recipe][0]
    evaluation, arrays = json.loads((run / "evaluation.json").read_text()), predictions(run)
    assert set(evaluation) == names.EVALUATION_KEYS
    assert set(evaluation["calibration"]) == names.CALIBRATION_KEYS
    assert set(evaluation["gap"]) == {"value", "ci95", "words"}
    for name, count in SPLITS.items():
        scores = evaluation["splits"][name]
        assert set(scores) == {"n", *SCORES, "per_class", "confusion"}
        for score in SCORES:
            low, high = scores[score]["ci95"]
            assert low <= scores[score]["value"] <= high, (name, score)
        probabilities, labels = arrays[f"{name}_probabilities"], arrays[f"{name}_labels"]
        assert probabilities.shape == (count, 4) and probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
        np.testing.assert_array_equal(labels, kinds.arrays[f"y_{name}"])
        np.testing.assert_array_equal(arrays[f"{name}_indices"], np.arange(count))
        answers = probabilities.argmax(1)
        confusion = np.zeros((4, 4), int)
        np.add.at(confusion, (labels, answers), 1)
        assert scores["confusion"] == confusion.tolist() and scores["n"] == count
        accuracy = scores["accuracy"]["value"]
        assert accuracy == pytest.approx((answers == labels).mean()) and accuracy >= 0.8
        likely = np.clip(probabilities[np.arange(count), labels].astype(float), 1e-15, 1)
        assert scores["log_loss"]["value"] == pytest.approx(
            -np.log(likely).mean(), rel=1e-3, abs=1e-6
        )
        squares = ((probabilities - np.eye(4)[labels]) ** 2).sum(1).mean()
        assert scores["brier"]["value"] == pytest.approx(squares, rel=1e-3, abs=1e-6)
        for label, row in enumerate(scores["per_class"]):
            assert (row["name"], row["support"]) == (NAMES[label], count // 4)
            recall = confusion[label, label] / (count // 4)
            assert row["recall"]["value"] == pytest.approx(recall)
    assert set(arrays) >= names.WORST_ARRAYS
    wrong = evaluation["splits"]["test"]["confusion"]
    assert len(arrays["worst_indices"]) <= 80 - int(np.trace(wrong))
    assert len(evaluation[names.OOD]) >= 3
    for row in evaluation[names.OOD]:
        assert set(row) == names.OOD_KEYS and 0 <= row["roc_auc"]["value"] <= 1


def test_a_model_is_onnx_with_uint8_images_in_and_probabilities_out(classic, kinds):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(classic / "model.onnx"))
    [image] = session.get_inputs()
    outputs = [output.name for output in session.get_outputs()]
    assert (image.name, image.type, image.shape[1:]) == ("image", "tensor(uint8)", [16, 16, 3])
    assert outputs[0] == "probabilities"
    [found] = session.run(["probabilities"], {"image": kinds.arrays["x_test"]})
    expected = predictions(classic)["test_probabilities"]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS[1:])
def test_every_kind_of_file_trains_the_same_network(shell, kinds, fast, tmp_path, kind):
    ended = shell(*training("fast", kinds.folder / kind, tmp_path / "run"))
    assert ended.code == 0, ended.err
    assert_same(fast, tmp_path / "run")


@pytest.mark.slow
def test_shapes_are_always_there(shell, tmp_path):
    changes = ["--set", "model.options.widths=[8,16]", "--set", "model.options.dense=[16]"]
    words = ["--epochs", 1, *changes, "--out", tmp_path / "run"]
    said = shell.ok("train", "shapes", *words)
    found = {name: one["n"] for name, one in said["evaluation"]["splits"].items()}
    assert found == {"train": 4500, "val": 500, "test": 1000}
    assert run_info(tmp_path / "run")["dataset"] == "shapes"


@pytest.mark.slow
def test_a_recipe_of_a_run_gives_the_run(shell, kinds, fast, tmp_path):
    words = ["--recipe", fast / "recipe.toml", "--threads", 1, "--out", tmp_path / "run", "--json"]
    ended = shell("train", kinds.folder / "images.npz", *words)
    assert ended.code == 0, ended.err
    assert_same(fast, tmp_path / "run")


@pytest.mark.slow
def test_a_killed_training_goes_on_where_it_was(shell, kinds, tmp_path):
    def words(out: str) -> list:
        more = ["--epochs", 12, "--set", "augment.flip=alternating", "--set", "augment.shift=2"]
        return training("classic", kinds.folder / "images.npz", tmp_path / out, *more)

    whole = shell(*words("whole"))
    assert whole.code == 0, whole.err
    process = shell.start(*words("killed"))
    end = time.monotonic() + 120
    checkpoints = tmp_path / "killed" / "checkpoints"
    while not (checkpoints.is_dir() and any(checkpoints.iterdir())):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert run_info(tmp_path / "killed")["state"] == "running"
    assert not (tmp_path / "killed" / "evaluation.json").exists()
    resumed = shell(*words("killed"))
    assert resumed.code == 0, resumed.err
    assert_same(tmp_path / "whole", tmp_path / "killed")
    assert run_info(tmp_path / "killed")["state"] == "done"


@pytest.mark.slow
def test_a_training_that_diverges_says_where(shell, kinds, tmp_path):
    wild = {
        "optimizer.name": "sgd",
        "optimizer.learning_rate": 10,
        "optimizer.warmup": 0,
        "optimizer.schedule": "constant",
        "optimizer.weight_decay": 0.9,
    }
    changes = [word for key, value in wild.items() for word in ("--set", f"{key}={value}")]
    words = training("classic", kinds.folder / "images.npz", tmp_path / "run", *changes)
    ended = shell(*words, "--epochs", 40)
    assert (ended.code, ended.json["error"]["type"]) == (6, names.ERROR_TYPES[6])
    assert " 10" in ended.err and "epoch" in ended.err  # the rate, and where
    info = run_info(tmp_path / "run")
    assert info["state"] == "failed" and info["error"] in ended.json["error"]["message"]
    assert not (tmp_path / "run" / "model.onnx").exists()
