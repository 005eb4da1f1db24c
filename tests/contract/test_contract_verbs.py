"""Every verb: its help, what --json prints, and the exit code of what goes wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import names
import pytest
from outside import NAMES, SPLITS


def test_every_verb_is_in_the_help(shell):
    said = shell("--help")
    assert said.code == 0
    verbs = {verb.split()[0] for verb in names.VERBS}
    assert verbs <= set(re.findall(r"[a-z-]+", said.out))
    version = shell("--version")
    assert version.code == 0 and re.search(r"\d+\.\d+", version.out)


@pytest.mark.parametrize("verb", names.VERBS)
def test_the_help_of_a_verb_names_its_options(shell, verb):
    said = shell(*verb.split(), "--help")
    assert said.code == 0
    found = set(re.findall(r"--[a-z-]+", said.out))
    assert names.VERBS[verb] | {"--help", "--json"} <= found


def test_recipes_are_listed_and_shown(shell):
    assert set(shell.ok("recipes")) == names.RECIPES
    [(name, recipe)] = shell.ok("recipes", "classic").items()
    assert (name, recipe["model"]["name"]) == ("classic", "classic")
    assert {"data", "model", "augment", "optimizer", "train"} <= set(recipe)


def test_a_run_is_evaluated_from_its_own_figures_and_from_images(shell, kinds, classic):
    own = shell.ok("evaluate", classic)
    evaluation = json.loads((classic / "evaluation.json").read_text())
    assert own["evaluation"] == evaluation
    anew = shell.ok("evaluate", classic / "model.onnx", kinds.folder / "zipped.zip")
    [(split, scores)] = anew["evaluation"]["splits"].items()
    assert split == "test"
    for name in ("n", "confusion"):
        assert scores[name] == evaluation["splits"]["test"][name]
    for name in ("accuracy", "log_loss", "ece", "roc_auc_macro"):
        expected = evaluation["splits"]["test"][name]["value"]
        assert scores[name]["value"] == pytest.approx(expected, abs=1e-4)


def test_two_runs_are_compared_image_by_image(shell, classic, fast, tmp_path):
    said = shell.ok("compare", classic, fast, "--out", tmp_path)
    assert set(said) == names.COMPARE_KEYS
    [pair] = said["pairs"]
    assert set(pair) == names.PAIR_KEYS and pair["n"] == SPLITS["test"]
    difference = (len(pair["only_first"]) - len(pair["only_second"])) / pair["n"]
    first, second = said["accuracies"]
    # the sign says whether the second is better
    assert abs(pair["accuracy"]["value"]) == pytest.approx(abs(difference))
    assert pair["accuracy"]["value"] == pytest.approx(second - first)
    assert 0 < pair["p_value"] <= 1
    assert all(Path(shell.folder, path).is_file() for path in said["files"].values())


def test_a_data_set_is_audited(shell, kinds, tmp_path):
    said = shell.ok("audit", kinds.folder / "folder", "--out", tmp_path / "audit")
    found = said["audit"]
    assert set(found) == names.AUDIT_KEYS
    assert found["counts"] == {name: [count // 4] * 4 for name, count in SPLITS.items()}
    assert (found["label_issues"], found["broken"]) == ([], [])
    for one in found["duplicates"]:
        assert {"a", "b", "distance", "splits"} <= set(one)
    assert json.loads((tmp_path / "audit" / "audit.json").read_text())["source"] == found["source"]


def test_an_exact_duplicate_and_a_broken_file_are_found(shell, kinds, tmp_path):
    shutil.copytree(kinds.folder / "folder", tmp_path / "set")
    original = next((tmp_path / "set/train/disc").iterdir())
    shutil.copy(original, tmp_path / "set/test/disc/twin.png")
    (tmp_path / "set/train/disc/oops.png").write_bytes(b"hello")
    words = ["audit", tmp_path / "set", "--out", tmp_path / "audit"]
    found = shell.ok(*words)["audit"]
    exact = [one for one in found["duplicates"] if one["distance"] == 0]
    assert [sorted(one["splits"]) for one in exact] == [["test", "train"]]
    [bad] = found["broken"]
    assert bad["path"].endswith("oops.png") and bad["reason"]
    strict = shell(*words, "--strict", "--json")
    assert (strict.code, "oops.png" in strict.err) == (4, True)


def test_plots_and_report_are_drawn_anew(shell, runs, tmp_path):
    run = copied(runs["classic"][0], tmp_path)
    before = (run / "report.html").read_text()
    (run / "report.html").unlink()
    said = shell.ok("report", run)
    assert Path(said["report"]).read_text()[:100] == before[:100]
    assert Path(said["model_card"]).name == "README.md" and len(said["plots"]) >= 4
    assert not re.findall(r"(?:src|href)=\"https?://[^\"]*\.(?:js|css|png)", before)


@pytest.mark.slow
def test_robustness_is_measured(shell, kinds, runs, tmp_path):
    run = copied(runs["fast"][0], tmp_path)
    said = shell.ok("robustness", run, names.IMAGES_OPTION, 20)["robustness"]
    assert set(said) == names.ROBUSTNESS_KEYS and said[names.IMAGES] == 20
    assert len(said["corruptions"]) == 15
    assert all(len(levels) == 5 for levels in said["corruptions"].values())
    assert said["clean"]["value"] >= 0.8
    assert (run / "robustness.json").is_file()


@pytest.mark.slow
def test_mistakes_are_explained(shell, kinds, runs, tmp_path):
    run = copied(runs["fast"][0], tmp_path)
    image = kinds.files("test")[0]
    said = shell.ok("explain", run / "model.onnx", image, "--out", tmp_path / "explained")
    found = said["explanations"]
    assert set(found) == names.EXPLAIN_KEYS and found["method"] == "occlusion"
    [one] = [row for sheet in found["sheets"] for row in sheet[names.IMAGES]]
    assert set(one) >= names.EXPLAINED_IMAGE_KEYS - {"nearest"}
    assert one["path"].endswith(image.name) and one["answer"] in NAMES


@pytest.mark.slow
def test_a_run_is_exported_and_verified(shell, runs, tmp_path):
    run = copied(runs["fast"][0], tmp_path)
    formats = ["--format", "onnx", "--format", "onnx-int8", "--seconds", 0]
    said = shell("export", run, *formats, "--json")
    assert set(said.json) == names.EXPORT_KEYS
    assert [row["format"] for row in said.json["formats"]] == ["onnx", "onnx-int8"]
    [row] = [row["row"] for row in said.json["formats"] if row["format"] == "onnx"]
    assert set(row) == names.SCORECARD_KEYS and row["failures"] == []
    assert (row["agreement"], row[names.IMAGES], row[names.SPLIT]) == (1.0, 80, "test")
    verified = shell.ok("verify", run / "model.onnx", "--seconds", 0)
    assert set(verified) == names.VERIFY_KEYS and verified["passed"]
    [row] = verified["scorecard"]["rows"]
    assert set(row) == names.SCORECARD_KEYS and row["largest_difference"] < 1e-4


@pytest.mark.slow
def test_a_search_leaves_a_recipe_and_a_run(shell, kinds, tmp_path):
    changes = ["--set", "model.options.widths=[8,8]", "--set", "model.options.dense=[16]"]
    search = ["--search", "optimizer.learning_rate=0.001..0.01:log", "--trials", 2]
    short = ["--set", "train.epochs=2", "--jobs", 1, "--threads", 1]
    words = [*changes, *short, *search, "--out", tmp_path / "search"]
    said = shell.ok("tune", kinds.folder / "images.npz", *words)
    assert isinstance(said, dict)
    assert list((tmp_path / "search").rglob("best.toml"))
    assert list((tmp_path / "search").rglob("model.onnx"))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["folder", "parquet"])
def test_a_set_converted_is_the_same_set(shell, kinds, tmp_path, form):
    shell.ok("data", "convert", kinds.folder / "zipped.zip", tmp_path / "out", "--format", form)
    path = tmp_path / "out" if (tmp_path / "out").exists() else next(tmp_path.glob("out*"))
    first = shell.ok("data", "info", kinds.folder / "zipped.zip")
    assert shell.ok("data", "info", path)["fingerprint"] == first["fingerprint"]


def copied(run: Path, folder: Path) -> Path:
    """Return a run of its own for a test that writes into it."""
    return Path(shutil.copytree(run, folder / "run"))


def assert_told(ended, code: int, *data: str) -> None:
    """The exit code is right, both outputs say so, and the message names what was planted."""
    assert ended.code == code, ended.err
    error = ended.json["error"]
    assert error["type"] == names.ERROR_TYPES[code]
    for datum in data:
        assert datum in error["message"] and datum in ended.err, ended.err


@pytest.mark.parametrize(
    ("changes", "data"),
    [
        (["--set", "train.epoks=3"], ["train.epoks", "train.epochs"]),
        (["--set", "train.epochs=-3"], ["train.epochs", "-3"]),
        (["--set", "train.label_smoothing=many"], ["train.label_smoothing"]),
        (["--recipe", "classik"], ["classik", "classic"]),
        (["--recipe", "gone.toml"], ["gone.toml"]),
        (["--budget", "soon"], ["soon"]),
        (["--max-error", "900%"], ["900"]),
        ([names.REJECT_OOD, "often"], ["often"]),
    ],
)
def test_wrong_usage_is_2_and_names_what_was_typed(shell, kinds, tmp_path, changes, data):
    words = ["train", kinds.folder / "images.npz", *changes, "--out", tmp_path / "run", "--json"]
    assert_told(shell(*words), 2, *data)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "datum"),
    [
        (["nosuchverb"], "nosuchverb"),
        (["train", "shapes", "--epochs", "many"], "--epochs"),
        (["train", "shapes", "--nosuchoption"], "--nosuchoption"),
        (["train"], "dataset"),
        (["recipes", "classik"], "classik"),
        (["serve", "a.onnx", "--port", "99999"], "--port"),
    ],
)
def test_words_that_are_no_command_are_2(shell, words, datum):
    ended = shell(*words)
    assert (ended.code, datum in ended.err) == (2, True), ended.err


@pytest.mark.parametrize(
    ("words", "hidden", "datum"),
    [
        (["serve", "RUN", "--port", "0"], "uvicorn,fastapi", "tinylens[serve]"),
        (["audit", "DATA", "--folds", "2"], "cleanlab", "tinylens[audit]"),
        (["train", "DATA"], "keras,tensorflow", "tinylens[train]"),
        (["tune", "DATA", "--trials", "2"], "optuna", "tinylens[tune]"),
    ],
)
def test_what_is_not_installed_is_3_and_says_what_to_type(
    shell, kinds, classic, tmp_path, words, hidden, datum
):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nsys.modules.update(dict.fromkeys(os.environ['HIDDEN'].split(',')))\n"
    )
    path = ":".join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    meant = {"RUN": classic, "DATA": kinds.folder / "images.npz"}
    typed = [meant.get(word, word) for word in words]
    assert_told(shell(*typed, "--json", PYTHONPATH=path, HIDDEN=hidden), 3, datum)


def test_bad_data_is_4_and_names_the_file(shell, kinds, classic, tmp_path, broken):
    gone = tmp_path / "gone-away"
    assert_told(shell("train", gone, "--json"), 4, "gone-away")
    assert_told(shell("evaluate", classic, gone, "--json"), 4, "gone-away")
    assert_told(shell("predict", classic, tmp_path / "gone.png", "--json"), 4, "gone.png")
    (tmp_path / "cut.npz").write_bytes((kinds.folder / "images.npz").read_bytes()[:500])
    assert_told(shell("data", "info", tmp_path / "cut.npz", "--json"), 4, "cut.npz")
    (tmp_path / "list.csv").write_text(f"path,label\n{broken},a\nnot-there.png,b\n")
    assert_told(shell("data", "info", tmp_path / "list.csv", "--strict", "--json"), 4, "list.csv")


def test_a_damaged_model_file_is_5_for_every_verb(shell, kinds, classic, damaged, tmp_path):
    image = kinds.files("test")[0]
    (tmp_path / "no-model.onnx").write_bytes(b"hello")
    (tmp_path / "short.onnx").write_bytes((classic / "model.onnx").read_bytes()[:-9])
    assert_told(shell("predict", damaged, image, "--json"), 5, "damaged.onnx")
    assert_told(shell("predict", tmp_path / "short.onnx", image, "--json"), 5, "short.onnx")
    assert_told(shell("evaluate", tmp_path / "no-model.onnx", "shapes", "--json"), 5, "no-model")
    assert_told(shell("serve", damaged, "--port", 0, "--json"), 5, "damaged.onnx")
    assert_told(shell("predict", tmp_path / "gone", image, "--json"), 5, "gone")
