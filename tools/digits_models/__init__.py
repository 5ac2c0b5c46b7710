"""Trains the small digit classifiers in ``models/`` and writes them as ONNX."""
