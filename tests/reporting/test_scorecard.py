"""The scorecard as people read it."""

from __future__ import annotations

import io

from PIL import Image
from rich.console import Console

from tinylens.reporting.scorecard import plot, table
from tinylens.results import Difference, FormatRow, Scorecard, Speed

FLOATS = FormatRow(
    *("litert", "model.tflite", False, 1_180_000, "test", 10_000, 1.0, 0, 1.5e-6),
    accuracy=None,
    accuracy_difference=None,
)
INTEGERS = FormatRow(
    *("onnx-int8", "model-int8.onnx", True, 337_283, "val", 6_000, 0.9958, 2, 0.134),
    accuracy=0.9372,
    accuracy_difference=Difference(-0.0013, (-0.0025, -0.0001)),
    speed=Speed(0.1234, 0.2512, 11_449.4),
    failures=("it is less accurate",),
)
CARD = Scorecard(2, 256, (FLOATS, INTEGERS))


def test_a_line_a_file_fits_into_80_columns():
    console = Console(file=io.StringIO(), width=80)
    console.print(table(CARD))
    lines = console.file.getvalue().splitlines()
    rows = [line.split() for line in lines if "onnx" in line or "litert" in line]
    assert rows[0] == ["litert", "100.00", "2e-06", "–", "1.18", "–", "–"]
    assert " ".join(rows[1]) == ("onnx-int8 ✗ 99.58 0.1 -0.13 (-0.25 -0.01) 0.34 0.12 0.25 11,449")
    caption = " ".join(" ".join(lines[4:]).split())
    assert "on 10,000 pictures of test and 6,000 pictures of val" in caption
    assert "256 at once, 2 threads" in caption


def test_the_plot_has_a_bar_a_file():
    with Image.open(io.BytesIO(plot(CARD))) as small:
        with Image.open(io.BytesIO(plot(Scorecard(2, 256, CARD.rows * 3)))) as large:
            assert small.width == large.width == 1440 and small.height < large.height
        colours = {colour for _, colour in small.convert("RGB").getcolors(1 << 20)}
    assert {(0, 114, 178), (230, 159, 0)} <= colours  # floats blue, integers orange
