"""What onnx.checker says of a model."""

from __future__ import annotations

import onnx

from onnx_sipp.errors import SippError
from onnx_sipp.graph.model import Model

__all__ = ["ensure_same_verdict"]


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


def _verdict(model: Model) -> str:
    data, _ = model.runnable()
    proto = onnx.load_from_string(data)
    for tensor in onnx.external_data_helper._get_all_tensors(proto):  # noqa: SLF001
        # The checker would look for the files in the current folder; ours were checked already.
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.ClearField("data_location")
            del tensor.external_data[:]
            tensor.ClearField("dims")
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        return str(error).splitlines()[0]
    return ""
