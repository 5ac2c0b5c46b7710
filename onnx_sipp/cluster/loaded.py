"""Loads what workers need when it is imported: before they are forked, so for all of them at once.

All but onnxruntime, which starts a thread: that would be missing in forks.
"""

import onnx_sipp.cluster.dask_pool
import onnx_sipp.cluster.tasks
import onnx_sipp.pruning.greedy  # noqa: F401 - and with it the compiler
from onnx_sipp.statistics.sensitivity import load

load()
