"""What onnx.checker says of a model."""

from __future__ import annotations

from math import prod

import onnx

from onnx_sipp.errors import SippError
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.runnable import without_initializers
from onnx_sipp.graph.tensors import is_external
from onnx_sipp.graph.walk import all_tensors

__all__ = ["ensure_no_worse_verdict", "ensure_same_verdict"]

# Constants with so many elements or more are not looked at: to find out how many bytes they take,
# protobuf would write them.
_LARGE = 1 << 18


def ensure_same_verdict(before: Model, after: Model) -> None:
    """Make sure that onnx.checker says of the result what it said of the original.

    Many files that run well fail the checker, so its verdict is no gate; a change of it is.

    Raises:
        SippError: the original passed and the result does not, or they fail differently.
    """
    verdicts = [_verdict(model) for model in (before, after)]
    if verdicts[0] != verdicts[1]:
        raise SippError(
            "the pruned model is damaged, nothing was written; please report this. onnx.checker "
            f"says {verdicts[1] or 'nothing'!r} of it, {verdicts[0] or 'nothing'!r} of the input"
        )


def ensure_no_worse_verdict(before: Model, after: Model) -> None:
    """Make sure that onnx.checker has nothing to say of a rebuilt model if it had nothing before.

    Raises:
        SippError: the original passed and the result does not.
    """
    if not _verdict(before) and (verdict := _verdict(after)):
        raise SippError(
            "the quantised model is damaged, nothing was written; please report this, and leave "
            f"--quantize out. onnx.checker says {verdict!r} of it"
        )


def _verdict(model: Model) -> str:
    proto = without_initializers(model.proto)
    for tensor in model.proto.graph.initializer:
        if prod(tensor.dims) < _LARGE:
            proto.graph.initializer.append(tensor)
        else:  # it would take long to copy, and its elements were read and written in full
            proto.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=[0])
    for tensor in all_tensors(proto):
        # The checker would look for the files in the current folder; ours were checked already.
        if is_external(tensor):
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
            tensor.ClearField("dims")
            tensor.dims.append(0)
    try:
        onnx.checker.check_model(proto)
    except Exception as error:  # it also raises what its C++ parts raise
        return (str(error).splitlines() or [type(error).__name__])[0]
    return ""
