"""Find the sparsity that meets a goal of fidelity."""
