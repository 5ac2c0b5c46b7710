"""Patches: the columns that the weight matrix of a layer multiplies, one after the other."""
