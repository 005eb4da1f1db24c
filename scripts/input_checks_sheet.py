"""Draw what the input checks does for photos: docs/input-checks.png.

Usage: python scripts/input_checks_sheet.py RUN, where RUN was trained on Fashion-MNIST. The photos
are those of benchmarks/input_checks.py, of images of its test split: each as it is, as the network
sees it without the input checks, and as it sees it with `--fix all`, with the answers.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from tinylens import files
from tinylens.data.load import load
from tinylens.inference.classifier import Classifier
from tinylens.reporting.charts import as_png, new_figure

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import input_checks as photos  # noqa: E402 - it stands beside the benchmarks, which are no package

SHOWN = {  # kind of photo: row of the test split
    "white table": 2,
    "coloured cloth": 10,
    "wood": 23,
    "grey card": 18,
    "dark floor": 0,
    "margins alone": 6,
}


def main() -> None:
    """Draw a column a photo: before, what the network saw, and after."""
    classifier = Classifier.open(sys.argv[1])
    if classifier.card.input_checks is None:
        raise SystemExit(f"{sys.argv[1]} has no reference for the input checks; train again")
    test = load("fashion-mnist").test
    figure = new_figure(2.1 * len(SHOWN), 6.6)
    panels = figure.subplots(3, len(SHOWN), squeeze=False)
    for column, (kind, row) in enumerate(SHOWN.items()):
        content = photos.photo(test.images[row, ..., 0], kind, np.random.default_rng([0, row]))
        _show(
            panels[0, column], Image.open(io.BytesIO(content)), test.class_names[test.labels[row]]
        )
        for panel, fix in zip(panels[1:, column], ("", "all"), strict=True):
            (answer,) = classifier.predict(content, fix=fix)
            words = f"{answer.label} {answer.confidence:.0%}"
            _show(panel, classifier.read(content, fix).image, words)
    names = ("photo", "what the network saw", "with --fix all")
    for panel, name in zip(panels[:, 0], names, strict=True):
        panel.set_ylabel(name, fontsize=9)
    files.write_bytes(ROOT / "docs" / "input-checks.png", as_png(figure))


def _show(axes: Axes, image: Image.Image | np.ndarray | None, words: str) -> None:
    axes.imshow(np.asarray(image).squeeze(), cmap="gray", vmin=0, vmax=255)
    axes.set_title(words, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


if __name__ == "__main__":
    main()
