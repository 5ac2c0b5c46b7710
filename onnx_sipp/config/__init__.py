"""Configuration files: defaults of a run, and rules for single layers."""
