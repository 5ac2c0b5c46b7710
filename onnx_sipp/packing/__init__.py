"""Weights stored as what is not zero and where, rebuilt by ordinary operators at load."""
