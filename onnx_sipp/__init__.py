"""Prune trained ONNX models after training, with SiPP's provable sensitivities.

>>> import onnx_sipp
>>> result = onnx_sipp.prune("in.onnx", "samples.npz", sparsity=0.7)
>>> result.save("out.onnx")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from onnx_sipp.analysis import Sensitivities, allocate, sensitivities
    from onnx_sipp.calibrating import Statistics, calibrate
    from onnx_sipp.calibration.scripts import load_script
    from onnx_sipp.comparing.compare import compare
    from onnx_sipp.errors import SippError, UsageError
    from onnx_sipp.inspection import Inspection, inspect
    from onnx_sipp.packing.pack import pack
    from onnx_sipp.packing.unpack import unpack
    from onnx_sipp.pipeline import PruneResult, prune
    from onnx_sipp.report.result import Report
    from onnx_sipp.report.sweep import Sweep
    from onnx_sipp.sweeping.sweep import sweep

__all__ = [
    "Inspection",
    "PruneResult",
    "Report",
    "Sensitivities",
    "SippError",
    "Statistics",
    "Sweep",
    "UsageError",
    "__version__",
    "allocate",
    "calibrate",
    "compare",
    "inspect",
    "load_script",
    "pack",
    "prune",
    "sensitivities",
    "sweep",
    "unpack",
]

# Loaded when first used, so that `onnx-sipp --help` does not wait for onnxruntime.
_HOMES = {
    "Inspection": "inspection",
    "PruneResult": "pipeline",
    "Report": "report.result",
    "Sensitivities": "analysis",
    "SippError": "errors",
    "Statistics": "calibrating",
    "Sweep": "report.sweep",
    "UsageError": "errors",
    "allocate": "analysis",
    "calibrate": "calibrating",
    "compare": "comparing.compare",
    "inspect": "inspection",
    "load_script": "calibration.scripts",
    "pack": "packing.pack",
    "prune": "pipeline",
    "sensitivities": "analysis",
    "sweep": "sweeping.sweep",
    "unpack": "packing.unpack",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'onnx_sipp' has no attribute {name!r}")
    return getattr(importlib.import_module(f"onnx_sipp.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
