"""Files that strangers might send, for `hostile_inputs.py`."""
