"""Dead paths: neurons that nobody reads, and channels that are the same on every input.

Both are properties of the graph and its stored constants; no samples are looked at. What is not
known of an operator counts against it: its results vary, and it reads all its inputs.
"""

from onnx_sipp.graph.dead.analysis import LayerFacts, dead_paths

__all__ = ["LayerFacts", "dead_paths"]
