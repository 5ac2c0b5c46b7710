"""Trains sub-networks from their initial weights: what `train_in_isolation.py` is made of."""
