"""The choice of weights; knows numpy, not ONNX."""
