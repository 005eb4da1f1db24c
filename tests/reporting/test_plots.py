import io

import numpy as np
import pytest
from PIL import Image

from builders_run import make_run, simulated_parts
from tinylens.reporting import plots
from tinylens.reporting.contents import Contents

NAMES = {"curves", "confusion_matrix", "per_class", "reliability", "worst_mistakes"}


def drawn(path, **changes):
    contents = Contents.read(make_run(path, **changes))
    return {name: Image.open(io.BytesIO(png)) for name, png in plots.draw(contents).items()}


def test_every_plot_is_a_png_of_a_sane_size(tmp_path):
    images = drawn(tmp_path / "run")
    assert set(images) == NAMES == plots.NAMES - {"learning_curve", "robustness"}  # not measured
    for image in images.values():
        assert image.format == "PNG"
        assert 300 <= image.width <= 2500
        assert 250 <= image.height <= 3000
        assert np.asarray(image.convert("L")).std() > 5


def test_names_that_a_plot_could_choke_on_are_drawn(tmp_path):
    names = ("$x^", "狐狸", "a" * 200)
    assert set(drawn(tmp_path / "run", class_names=names)) == NAMES


@pytest.mark.slow
def test_a_hundred_classes_fit(tmp_path):
    names = tuple(f"class {number:02d}" for number in range(100))
    parts = simulated_parts(names, {"train": 300, "val": 200, "test": 400})
    images = drawn(tmp_path / "run", class_names=names, parts=parts)
    assert max(images["confusion_matrix"].size) <= 2000
    assert images["per_class"].height <= 3000


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_colour_mistakes_are_drawn(tmp_path, channels):
    pictures = np.full((90, 12, 12, channels), 200, np.uint8)
    assert "worst_mistakes" in drawn(tmp_path / "run", test_images=pictures)


def test_drawing_leaves_matplotlib_as_it_was(tmp_path):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    drawn(tmp_path / "run")
    assert dict(mpl.rcParams) == before
