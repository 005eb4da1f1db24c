"""Odd images through every way into a network: one recorded rule, the same pixels everywhere.

The way of the page in the browser is tested in tests/webpage/test_pixels.py, for every rule.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders_data import encoded, noise
from served import Server
from shipped import CLASS_NAMES, linear_answers, model_bytes
from tinylens.data.dataset import Splits
from tinylens.data.images import ImageRule, rule_of
from tinylens.data.load import load, reopen
from tinylens.evaluation.evaluate import load_part
from tinylens.inference.classifier import Classifier
from tinylens.recipe import Recipe
from tinylens.run import Run, RunInfo

RULES = [
    ImageRule(12, 12, 3, aspect="pad"),
    ImageRule(8, 14, 3, aspect="crop"),
    ImageRule(14, 8, 1, aspect="pad"),
    ImageRule(12, 12, 1, aspect="stretch"),
]
IDS = [f"{rule.aspect}-{rule.height}x{rule.width}x{rule.channels}" for rule in RULES]


def clear(height: int, width: int, seed: int) -> np.ndarray:
    """An image whose halves differ, so that pixels in other places would show."""
    image = noise(height, width, 3, seed=seed) // 2
    image[:, : width // 2] += 100
    return image


def odd_images() -> dict[str, bytes]:
    """Every kind of image, in shapes from a strip to a column."""
    see_through = np.dstack([clear(40, 13, 1), noise(40, 13, seed=2)])
    palette = Image.fromarray(clear(9, 50, 3)).quantize(16)
    deep = noise(17, 31, seed=4).astype(np.uint16) * 250
    return {
        "wide.png": encoded(clear(10, 37, 0)),
        "tall-rgba.png": encoded(see_through),
        "palette.gif": encoded(palette, "GIF"),
        "deep-grey.png": encoded(deep),
        "cmyk.jpg": encoded(Image.fromarray(clear(30, 20, 5)).convert("CMYK"), "JPEG"),
        "grey.jpg": encoded(Image.fromarray(clear(61, 33, 6)).convert("L"), "JPEG"),
        "one-bit.png": encoded(Image.fromarray(clear(23, 45, 7)).convert("1")),
        "grey-alpha.png": encoded(Image.fromarray(clear(16, 40, 8)).convert("LA")),
        "strip.webp": encoded(clear(3, 90, 9), "WEBP", lossless=True),
    }


def opaque(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content)) as image:
        image.load()
    if image.mode == "I;16":  # 16 bits become 8
        deep = np.asarray(image).astype(np.float64)
        return Image.fromarray(np.floor(deep / 257 + 0.5).astype(np.uint8))
    if not image.has_transparency_data:
        return image
    over = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)


def written_out(content: bytes, rule: ImageRule) -> np.ndarray:
    """What the rule says, in the plainest of words; Pillow decodes and resamples."""
    image = opaque(content).convert("L" if rule.channels == 1 else "RGB")
    factors = rule.width / image.width, rule.height / image.height
    if rule.aspect == "stretch":
        inner = image.resize((rule.width, rule.height), Image.Resampling.BICUBIC)
    elif rule.aspect == "pad":
        sides = [max(int(side * min(factors) + 0.5), 1) for side in image.size]
        inner = image.resize(sides, Image.Resampling.BICUBIC)
    else:
        width, height = (int(side / max(factors) + 0.5) for side in (rule.width, rule.height))
        left, top = (image.width - width) // 2, (image.height - height) // 2
        part = image.crop((left, top, left + width, top + height))
        inner = part.resize((rule.width, rule.height), Image.Resampling.BICUBIC)
    pixels = np.asarray(inner).reshape(inner.height, inner.width, -1)
    edges = [pixels[0], pixels[-1]] if inner.height < rule.height else [pixels[:, 0], pixels[:, -1]]
    colour = np.floor(np.concatenate(edges).mean(axis=0) + 0.5).astype(np.uint8)
    whole = np.broadcast_to(colour, rule.shape).copy()
    top, left = (rule.height - inner.height) // 2, (rule.width - inner.width) // 2
    whole[top : top + inner.height, left : left + inner.width] = pixels
    return whole


def split_by_label(root: Path, images: list[Path]) -> Path:
    """A set whose train and test are both all images, dealt out to the classes in turn."""
    for part in ("train", "test"):
        for label, name in enumerate(CLASS_NAMES):
            folder = root / part / name
            folder.mkdir(parents=True)
            for path in images[label::4]:
                (folder / path.name).write_bytes(path.read_bytes())
    return root


def tinylens(*arguments: object) -> str:
    command = [sys.executable, "-m", "tinylens", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(params=RULES, ids=IDS)
def rule(request):
    return request.param


@pytest.fixture
def model(tmp_path, rule):
    path = tmp_path / "model.onnx"
    path.write_bytes(model_bytes(rule))
    return path


@pytest.fixture
def images(tmp_path):
    """The odd images by their paths."""
    folder = tmp_path / "odd"
    folder.mkdir()
    for name, content in odd_images().items():
        (folder / name).write_bytes(content)
    return sorted(folder.iterdir())


def test_the_classifier_sees_the_pixels_of_the_rule_in_files_bytes_and_arrays(model, rule, images):
    classifier = Classifier.open(model)
    assert classifier.rule == rule
    for path in images:
        expected = written_out(path.read_bytes(), rule)
        assert np.array_equal(classifier.read(path).image, expected), path.name
        assert np.array_equal(classifier.read(path.read_bytes()).image, expected), path.name
    wide = clear(10, 37, 0)
    expected = written_out(encoded(wide), rule)[None]
    answers = linear_answers(expected, rule)
    np.testing.assert_allclose(classifier.probabilities(wide[None]), answers, atol=1e-5)


def test_a_set_is_judged_on_the_pixels_of_the_rule(rule, images, tmp_path):
    """What `evaluate`, `robustness` and `explain` are given, at whatever size it was trained."""
    root = split_by_label(tmp_path / "set", images)
    part = load_part(str(root), "test", Run(tmp_path / "none"), rule, tmp_path / "cache")
    expected = [written_out(Path(path).read_bytes(), rule) for path in part.paths]
    assert len(part) == len(images) and part.aspect == rule.aspect
    assert np.array_equal(part.images, expected)


def test_a_set_is_trained_on_the_pixels_of_the_rule(rule, images, tmp_path):
    root = split_by_label(tmp_path / "set", images)
    splits = load(root, size=12, aspect=rule.aspect, data_dir=tmp_path / "cache")
    square = replace(rule, height=12, width=12, channels=3)
    expected = [written_out(Path(path).read_bytes(), square) for path in splits.test.paths]
    assert np.array_equal(splits.test.images, expected)
    assert rule_of(splits.train) == square


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES[2:3], ids=IDS[2:3], indirect=True)
def test_the_command_line_answers_by_the_pixels_of_the_rule(
    model, rule, images, tmp_path, monkeypatch
):
    monkeypatch.setenv("TINYLENS_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "answers.csv"
    tinylens("predict", model, *images, "--csv", out)
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    answers = linear_answers(np.stack([written_out(p.read_bytes(), rule) for p in images]), rule)
    assert [row["label"] for row in rows] == [CLASS_NAMES[best] for best in answers.argmax(axis=1)]
    found = [float(row["confidence"]) for row in rows]
    np.testing.assert_allclose(found, answers.max(axis=1), atol=1e-4)
    root = split_by_label(tmp_path / "set", images)
    described = json.loads(tinylens("evaluate", model, root, "--json"))
    right = answers.argmax(axis=1) == [number % 4 for number in range(len(images))]
    assert described["evaluation"]["splits"]["test"]["accuracy"]["value"] == pytest.approx(
        right.mean()
    )


@pytest.mark.parametrize("rule", RULES[:1], ids=IDS[:1], indirect=True)
def test_the_server_answers_by_the_pixels_of_the_rule(model, rule, images):
    server = Server(model)
    try:
        [described] = server.ask("/models").json["models"]
        assert described["image"]["aspect"] == "pad"
        for path in images:
            [row] = server.ask("/predict?seen=true&look=true", path.read_bytes()).json["results"]
            expected = written_out(path.read_bytes(), rule)
            with Image.open(io.BytesIO(base64.b64decode(row["seen"].partition(",")[2]))) as image:
                assert np.array_equal(np.asarray(image).reshape(rule.shape), expected), path.name
            [answer] = linear_answers(expected[None], rule)
            assert row["label"] == CLASS_NAMES[answer.argmax()]
            assert row["look"]["aspect"] == "pad"
    finally:
        server.stop()


# --- a run's own set, opened again


def run_of(folder: Path, splits: Splits, **known: object) -> Run:
    run = Run(folder)
    folder.mkdir()
    run.write_recipe(Recipe.load("classic"))
    run.write_info(RunInfo(dataset=splits.source, fingerprint=splits.fingerprint, **known))
    return run


def test_a_run_is_opened_again_by_its_recorded_rule_whatever_would_be_chosen_now(
    rule, images, tmp_path
):
    """`explain`, `audit`, `verify` and others see what was trained on."""
    root, cache = split_by_label(tmp_path / "set", images), tmp_path / "cache"
    splits = load(root, rule=rule, data_dir=cache)
    run = run_of(tmp_path / "run", splits, image=rule.to_json())
    assert reopen(run, data_dir=cache).fingerprint == splits.fingerprint
