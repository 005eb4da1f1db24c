"""Inference with the shipped model file: numpy, Pillow and onnxruntime, never Keras."""

import os

# before onnxruntime is imported: else it leaves a number in the home folder to be known by
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
