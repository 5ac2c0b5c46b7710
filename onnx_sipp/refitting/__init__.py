"""Refit what is kept: sums of every layer, evidence of them, and passes in graph order."""
