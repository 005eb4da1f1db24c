"""README.md of a run: YAML that parses, Markdown that shows names as they are, code that runs."""

from __future__ import annotations

import re

import pytest
from PIL import Image

import shipped
from builders_run import make_run, simulated_parts
from tinylens.errors import ModelError
from tinylens.inference.classifier import Classifier
from tinylens.reporting import write
from tinylens.reporting.contents import Contents
from tinylens.reporting.model_card import render, yaml_text

NASTY = ('the "first": one', "a|b\n# head", "naïve <b>猫</b>")


def front_matter(card):
    yaml = pytest.importorskip("yaml")
    _, head, _ = card.split("---\n", 2)
    return yaml.safe_load(head)


def test_the_model_index_holds_figures_and_intervals(tmp_path):
    run = make_run(tmp_path / "animals-1", info={"dataset": "fashion-mnist"})
    tree = front_matter(render(Contents.read(run)))
    assert tree["library_name"] == "keras" and tree["pipeline_tag"] == "image-classification"
    assert tree["datasets"] == ["zalando-datasets/fashion_mnist"] and "license" not in tree
    [model] = tree["model-index"]
    [result] = model["results"]
    assert model["name"] == "animals-1" and result["dataset"]["split"] == "test"
    accuracy = run.evaluation.splits["test"].accuracy
    first = result["metrics"][0]
    assert first["type"] == "accuracy" and first["value"] == round(accuracy.value, 4)
    assert first["args"]["ci95"] == [round(end, 4) for end in accuracy.ci95]


def test_names_survive_yaml_and_markdown(tmp_path):
    yaml = pytest.importorskip("yaml")
    source = 'my "shop": #1\n猫\x85\u2028\x7f'
    assert yaml.safe_load(f"name: {yaml_text(source)}") == {"name": source}
    run = make_run(tmp_path / "run", class_names=NASTY, info={"dataset": source})
    card = render(Contents.read(run))
    [result] = front_matter(card)["model-index"][0]["results"]
    assert result["dataset"]["name"] == source and "datasets" not in front_matter(card)
    assert r'the "first": one, a\|b # head, naïve \<b\>猫\</b\>.' in card


def test_a_card_tells_what_the_report_tells(tmp_path):
    run = make_run(tmp_path / "run")
    write.write(run)
    card = run.model_card.read_text(encoding="utf-8")
    test = run.evaluation.splits["test"]
    value, low, high = (f"{100 * x:.1f}" for x in (test.accuracy.value, *test.accuracy.ci95))
    assert f"**{value} % of 90 test images are answered right**" in card
    assert f"interval {low} to {high} %" in card
    assert f"| {100 * test.f1_macro.value:.1f} (" in card
    for described in (
        "5f" * 32,
        "tinylens train animals --recipe classic",
        "keras 3.15.1",
        "temperature",
    ):
        assert described in card
    assert "onnxruntime.InferenceSession" not in card  # there is no model.onnx to use


@pytest.mark.parametrize("rule", [shipped.RULE, shipped.GREY_RULE], ids=["colour", "grey"])
def test_its_code_runs_and_answers_as_tinylens_does(tmp_path, monkeypatch, capsys, rule):
    names = shipped.CLASS_NAMES
    run = make_run(tmp_path / "run", class_names=names, parts=simulated_parts(names))
    run.model.write_bytes(shipped.model_bytes(rule))
    Image.fromarray(shipped.some_images(1, shipped.RULE)[0]).resize((31, 17)).save(
        run.path / "image.png"
    )
    card = render(Contents.read(run))
    monkeypatch.chdir(run.path)
    [prediction] = Classifier.open(run).predict("image.png")
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, {})
        label, confidence = capsys.readouterr().out.strip().rsplit(" ", 1)
        assert label == prediction.label
        assert float(confidence) == pytest.approx(prediction.confidence, abs=1e-6)


def test_a_damaged_model_file_is_not_described(tmp_path):
    names = shipped.CLASS_NAMES
    run = make_run(tmp_path / "run", class_names=names, parts=simulated_parts(names))
    run.model.write_bytes(shipped.model_bytes()[:-100])
    with pytest.raises(ModelError):
        write.write(run)
    assert not run.report.exists()
