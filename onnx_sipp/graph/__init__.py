"""The model as a graph: its layers, its constants, its file."""
