"""Run a model piece by piece: every node once, with what later pieces need kept in between."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TypeProto

from onnx_sipp.calibration.session import first_line, open_session
from onnx_sipp.calibration.specs import Feed
from onnx_sipp.calibration.store import LiveTensors, TensorStore
from onnx_sipp.errors import SippError
from onnx_sipp.graph.flow import Flow, Segment, cut
from onnx_sipp.graph.model import Model

__all__ = ["SegmentedRun"]

Tensor = NDArray[Any]


class SegmentedRun:
    """One model on one set of batches, advanced stage by stage.

    Weights may be replaced in the model between stages: a node uses what stands there when its
    stage comes.

    Args:
        model: to run; its constants are read at each stage.
        flow: of its main graph.
        wanted: for each stage in turn, the tensors that will be asked for.
        batches: feeds, each run as it is.
        store: holds what later stages need.
        threads: of onnxruntime.
        providers: of onnxruntime.
    """

    def __init__(
        self,
        model: Model,
        flow: Flow,
        wanted: Sequence[set[str]],
        batches: Iterable[Feed],
        store: TensorStore,
        *,
        threads: int | None,
        providers: Sequence[str] | None,
    ) -> None:
        self._model, self._flow = model, flow
        self._segments = cut(flow, model.proto.graph, list(wanted))
        self._live: list[LiveTensors] = []
        for feed in batches:
            live = LiveTensors(store)
            for name, value in feed.items():
                live.add(name, value)
            self._live.append(live)
        self._threads, self._providers = threads, providers
        self._stage = 0

    def advance(self) -> list[LiveTensors]:
        """Run the next stage on every batch.

        Returns:
            Per batch, all tensors that are alive, the stage's among them. Valid until the next
            call.

        Raises:
            SippError: the runtime refuses or fails.
        """
        if self._stage:
            for live in self._live:
                for name in self._segments[self._stage - 1].dead:
                    live.remove(name)
        segment = self._segments[self._stage]
        self._stage += 1
        if segment.nodes and segment.outputs:
            self._run(segment)
        return self._live

    def close(self) -> None:
        """Forget all tensors."""
        for live in self._live:
            for name in list(live):
                live.remove(name)

    def _run(self, segment: Segment) -> None:
        first = self._live[0]
        proto = _submodel(self._model, self._flow, segment, first)
        session = open_session(
            proto.SerializeToString(),
            folder=None,
            threads=self._threads,
            providers=self._providers,
            libraries=self._model.libraries,
        )
        for live in self._live:
            feed = {name: live[name] for name in segment.inputs if name in live}
            try:
                values = session.run(list(segment.outputs), feed)
            except Exception as error:  # onnxruntime's exceptions share no base class
                raise SippError(
                    f"onnxruntime fails on a part of the model: {first_line(error)}"
                ) from error
            for name, value in zip(segment.outputs, values, strict=True):
                live.add(name, value)


def _submodel(model: Model, flow: Flow, segment: Segment, live: LiveTensors) -> ModelProto:
    source = model.proto
    graph = GraphProto(name="segment")
    names: set[str] = set()
    for index in segment.nodes:
        graph.node.append(source.graph.node[index])
        names.update(flow.reads[index])
    made = {name for index in segment.nodes for name in source.graph.node[index].output}
    for name in sorted(names - made):
        if name in model.stored:
            graph.initializer.append(model.with_payload(name))
        elif name in live:
            graph.input.add(name=name).type.CopyFrom(_type_of(live[name]))
    sparse = [t for t in source.graph.sparse_initializer if t.values.name in names - made]
    graph.sparse_initializer.extend(sparse)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in segment.outputs)
    result = ModelProto(ir_version=source.ir_version, graph=graph)
    result.opset_import.extend(source.opset_import)
    result.functions.extend(source.functions)
    return result


def _type_of(value: Any) -> TypeProto:
    """The type of a live value: a tensor's, or that of a sequence of tensors."""
    result = TypeProto()
    sequence = isinstance(value, list)
    tensor = result.sequence_type.elem_type.tensor_type if sequence else result.tensor_type
    dtype = (value[0] if sequence else value).dtype
    tensor.elem_type = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    return result
