"""What was found out, kept in files: statistics to be reused, and the parts of a run to go on from."""
