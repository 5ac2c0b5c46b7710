"""Whole curves: what every sparsity costs, and every layer alone."""
