"""What calibration gathers of each layer; knows numpy, not ONNX."""
