"""A scorecard of two files."""

from __future__ import annotations

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
