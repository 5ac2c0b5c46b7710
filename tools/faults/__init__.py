"""What can go wrong around a run, for `fault_matrix.py`."""
