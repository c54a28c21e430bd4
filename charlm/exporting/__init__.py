"""Models as files that other programs read: ONNX, and folders for transformers."""
