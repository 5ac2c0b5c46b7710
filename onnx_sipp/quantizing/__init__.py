"""Models in integers, by onnxruntime's own quantiser."""
