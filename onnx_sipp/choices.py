"""What options can be, and what they are if nobody says anything."""

from __future__ import annotations

__all__ = [
    "COMPENSATIONS",
    "DEFAULT_METHOD",
    "DEFAULT_SPARSITY",
    "PRUNE_ONLY",
    "QUANTIZATIONS",
    "SOUGHT",
    "STORAGES",
    "VALUES",
]

# What measures best, see docs/accuracy.md.
DEFAULT_METHOD = "mixed"
COMPENSATIONS = ("sequential", "layerwise", "none")
STORAGES = ("dense", "packed")
# See docs/quantization.md.
QUANTIZATIONS = ("int8", "int8-dynamic")
# Types of packed elements.
VALUES = ("exact", "fp16", "int8")
DEFAULT_SPARSITY = 0.5
# Options that are about one pruned model: a sweep goes through several, calibration through none.
PRUNE_ONLY = (
    "sparsity", "epsilon", "max_error", "min_agreement", "max_drop", "eval_script", "macs",
    "latency", "masks", "quantize", "storage", "pack_values",
)  # fmt: skip
# Goals for which a sparsity is searched.
SOUGHT = ("max_error", "min_agreement", "max_drop")
