"""Export: model.onnx and every other format, verified before it is kept."""
