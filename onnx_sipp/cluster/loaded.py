"""Loads what workers need when it is imported: before they are forked, so for all of them at once.

All but onnxruntime, which starts a thread: that would be missing in forks.
"""

import gc
from importlib import import_module

from onnx_sipp.loading import loading

with loading():
    import_module("onnx_sipp.cluster.dask_pool")
    import_module("onnx_sipp.cluster.tasks")
    import_module("onnx_sipp.pruning.greedy")  # and with it the compiler
    import_module("onnx_sipp.statistics.sensitivity").load()
    gc.freeze()  # forks would copy what they look through for garbage
