"""What explanations.json and explanations.npz hold."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tinylens.results import Broken, Explained, Explanations, Heat, Neighbour, Sheet
from tinylens.run import Run


@pytest.fixture
def found():
    image = np.full((2, 3, 1), 7, np.uint8)
    heats = tuple(
        Heat(name, probability, 2.5, np.full((2, 3), value, np.float32))
        for name, probability, value in (("cat", 0.1234567, 0.5), ("dog", 0.8, 1.0))
    )
    near = (Neighbour(12, "dog", 0.25, image),)
    sample = Explained(image, 1234, "", "cat", "dog", 0.8, heats, near)
    return Explanations(
        "runs/one", "grad-cam", (Sheet("cat → dog", 9, (sample,)),), (4, 4), 31,
        (Broken("x.png", "empty"),), "It is small.",
    )  # fmt: skip


def test_json_names_images_classes_and_neighbours(found, tmp_path):
    Run(tmp_path).write_explanations(found)
    tree = json.loads((tmp_path / "explanations.json").read_text("utf-8"))
    assert tree == {
        "source": "runs/one",
        "method": "grad-cam",
        "places": [4, 4],
        "mistakes": 31,
        "caution": "It is small.",
        "sheets": [
            {
                "title": "cat → dog",
                "count": 9,
                "images": [
                    {
                        "index": 1234,
                        "path": "",
                        "label": "cat",
                        "answer": "dog",
                        "confidence": 0.8,
                        "asked": [
                            {"class": "cat", "probability": 0.123457, "largest": 2.5},
                            {"class": "dog", "probability": 0.8, "largest": 2.5},
                        ],
                        "nearest": [{"index": 12, "label": "dog", "distance": 0.25}],
                    }
                ],
            }
        ],
        "broken": [{"path": "x.png", "reason": "empty"}],
    }


def test_maps_are_kept_sheet_by_sheet(found, tmp_path):
    Run(tmp_path).write_explanations(found)
    with np.load(tmp_path / "explanations.npz") as kept:
        assert kept.files == ["0"]
        assert kept["0"].dtype == np.float32 and kept["0"].shape == (1, 2, 2, 3)
        assert kept["0"][0, :, 0, 0].tolist() == [0.5, 1.0]


def test_a_image_is_called_by_its_row_or_its_path(found):
    [image] = found.sheets[0].images
    assert image.name == "test 1,234"
    named = Explained(image.image, None, "a/b.png", None, "dog", 0.8, image.heats, ())
    assert named.name == "a/b.png"
