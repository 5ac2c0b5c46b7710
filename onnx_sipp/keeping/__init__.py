"""What was found out, in files: statistics to be reused, parts of a run to go on from."""
