"""The lowered model: the same graph made of plain layers with stored weights, for calibration.

Everything that observes, refits, and measures knows Conv, Gemm and MatMul of the main graph with a
stored floating-point weight. `lower` makes that of any model. The file that is written is never the
lowered model: it is the original, with payloads replaced at *sites* (see `graph.sites.Sites`).

- `flatten.flatten`: the nodes of the main graph, and its stored constants as *twins* of sites;
  functions, and branches that are always taken, dissolve in it.
- `control`, `taps`: copies of If, Loop and Scan that hand out what the layers inside multiply.
- `unseen`: layers that no sample reaches.
- `rules.RULES`: per operator, what stands in its place in the lowered graph.
- `builder.Builder`: what a rule works with; it makes *virtual weights*.
- `constants.LoweredConstants`: which constants there are, and what they are made of.
- `evaluation.Evaluator`: what values constants have.
- `trace.Tracer`: which stored elements a constant consists of, whatever route it takes.
- `virtual.Virtual`, `grid.Grid`: stored elements as the real values of a weight, and back.
- `plan.Plan`: what is known of the result, and never changes.
- `lowered.Lowered`: the result, used like a `Model`.
- `reads`: who reads which stored elements.

The interface for rules is described in `builder`.
"""

from __future__ import annotations

from onnx_sipp.graph.lowering.builder import Watching
from onnx_sipp.graph.lowering.lower import lower
from onnx_sipp.graph.lowering.lowered import Lowered

__all__ = ["Lowered", "Watching", "lower"]
