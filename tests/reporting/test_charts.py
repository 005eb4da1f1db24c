import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from builders_export_card import CARD
from builders_run import make_run, simulated_parts
from tinylens.reporting import charts
from tinylens.reporting.contents import Contents

NAMES = {"curves", "confusion_matrix", "per_class", "reliability", "worst_mistakes"}


def drawn(path, **changes):
    contents = Contents.read(make_run(path, **changes))
    return {
        name: Image.open(io.BytesIO(charts.as_png(figure)))
        for name, figure in charts.of_run(contents).items()
    }


def test_every_plot_is_a_png_of_a_sane_size(tmp_path):
    images = drawn(tmp_path / "run")
    assert set(images) == NAMES == charts.NAMES - {"learning_curve", "robustness"}  # not measured
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
    images = np.full((90, 12, 12, channels), 200, np.uint8)
    assert "worst_mistakes" in drawn(tmp_path / "run", test_images=images)


def test_drawing_leaves_matplotlib_as_it_was(tmp_path):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    drawn(tmp_path / "run")
    assert dict(mpl.rcParams) == before


def test_a_chart_in_a_page_is_the_same_each_time_and_keeps_its_ids_and_colours_to_itself(tmp_path):
    contents = Contents.read(make_run(tmp_path / "run"))
    one, two = (charts.as_svg(charts.curves(contents), "curves", 'a "b" <c>') for _ in "ab")
    assert one == two
    assert one.startswith("<svg viewBox=") and 'aria-label="a &quot;b&quot; &lt;c&gt;"' in one
    assert all(name.startswith("curves-") for name in re.findall(r'\bid="([^"]*)"', one))
    assert all(name.startswith("curves-") for name in re.findall(r'href="#([^"]*)"', one))
    assert "var(--train)" in one and "var(--val)" in one and not re.search(r"#[0-9a-f]{6}", one)
    assert ">accuracy</text>" in one.lower()


def test_a_chart_in_a_page_keeps_its_words_as_they_are():
    figure = charts.new_figure(2, 1)
    figure.text(0.5, 0.5, "0.12345 <#0072b2>")
    assert ">0.12345 &lt;" in charts.as_svg(figure, "one", "words")


def row(number, value, state="complete"):
    return {"number": number, "state": state, "value": value}


def test_a_trial_that_was_given_up_far_below_is_drawn_on_the_axis():
    finished = [row(0, 0.93), row(2, 0.94), row(3, 0.935)]
    rows = [*finished, row(1, 0.1, "pruned"), row(4, 0.932, "pruned"), row(5, None, "pruned")]
    axes = charts.trials(rows).axes[0]
    trials, given_up, best = axes.get_lines()
    bottom = axes.get_ylim()[0]
    assert bottom == pytest.approx(92)
    assert trials.get_ydata().tolist() == pytest.approx([93, 94, 93.5])
    assert given_up.get_xdata().tolist() == [1, 4]
    assert given_up.get_ydata().tolist() == pytest.approx([bottom, 93.2])
    assert best.get_ydata().tolist() == pytest.approx([93, 94, 94])


def as_file(card):
    return io.BytesIO(charts.as_png(charts.formats(card)))


def test_the_plot_has_a_bar_a_file():
    with Image.open(as_file(CARD)) as small:
        with Image.open(as_file(replace(CARD, rows=CARD.rows * 3))) as large:
            assert small.width == large.width == 1440 and small.height < large.height
        colours = {colour for _, colour in small.convert("RGB").getcolors(1 << 20)}
    assert {(0, 114, 178), (230, 159, 0)} <= colours  # floats blue, integers orange
