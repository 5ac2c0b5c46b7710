"""Calibration: where inputs come from, and how the model is run on them."""
