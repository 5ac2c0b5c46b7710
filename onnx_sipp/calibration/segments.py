"""Run a model piece by piece: every node once, with what later pieces need kept in between."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TypeProto

from onnx_sipp.calibration.at_once import AT_ONCE, batch_threads
from onnx_sipp.calibration.products import WideProduct
from onnx_sipp.calibration.session import open_session, run_session
from onnx_sipp.calibration.specs import Feed
from onnx_sipp.graph.flow import Flow, Segment, cut
from onnx_sipp.graph.handing_over import hand_over, mapped
from onnx_sipp.graph.model import Model
from onnx_sipp.store import LiveTensors, TensorStore
from onnx_sipp.threads import hands

__all__ = ["SegmentedRun"]

Tensor = NDArray[Any]

# Constants of one segment take at most about this much memory.
SEGMENT_BYTES = 64 << 20


class SegmentedRun:
    """One model on one set of batches, advanced stage by stage.

    Weights may be replaced in the model between stages: a node uses what stands there when its
    stage comes. A stage with large constants is run in several segments, one after the other on
    all batches, so that no more than the constants of one segment are in memory.

    Args:
        model: to run; its constants are read at each stage.
        flow: of its main graph.
        wanted: for each stage in turn, the tensors that will be asked for.
        batches: feeds, each run as it is, and what holds its tensors from then on.
        store: holds parts of the outputs of very large nodes.
        threads: of onnxruntime.
        providers: of onnxruntime.
    """

    def __init__(
        self,
        model: Model,
        flow: Flow,
        wanted: Sequence[set[str]],
        batches: Iterable[tuple[Feed, TensorStore]],
        store: TensorStore,
        *,
        threads: int | None,
        providers: Sequence[str] | None,
    ) -> None:
        self._model, self._flow, self._store = model, flow, store
        graph = model.proto.graph
        self._segments = cut(flow, graph, list(wanted), self._weigh, SEGMENT_BYTES)
        self._live: list[LiveTensors] = []
        for feed, holder in batches:
            live = LiveTensors(holder)
            for name, value in feed.items():
                live.add(name, value)
            self._live.append(live)
        self._threads, self._providers = threads, providers
        self._at_once = batch_threads(model, len(self._live), threads, providers)
        self._threads_each = (threads or 1) // self._at_once if self._at_once else threads
        self._stage = self._next = 0

    def _weigh(self, node: int) -> int:
        """Bytes of the constants that a node reads."""
        stored = set(self._flow.reads[node]) & set(self._model.stored)
        return sum(self._model.constant_bytes(name) for name in stored)

    def advance(self) -> list[LiveTensors]:
        """Run the next stage on every batch.

        Returns:
            Per batch, all tensors that are alive, the stage's among them. Valid until the next
            call.

        Raises:
            SippError: the runtime refuses or fails.
        """
        while self._next < len(self._segments):
            segment = self._segments[self._next]
            if segment.stage > self._stage:
                break
            if self._next:
                self._forget(self._segments[self._next - 1].dead)
            self._next += 1
            if segment.nodes and segment.outputs:
                self._run(segment)
        self._stage += 1
        return self._live

    def close(self) -> None:
        """Forget all tensors."""
        for live in self._live:
            for name in list(live):
                live.remove(name)

    def _forget(self, names: Iterable[str]) -> None:
        for live in self._live:
            for name in names:
                live.remove(name)

    def _run(self, segment: Segment) -> None:
        first = self._live[0]
        if len(segment.nodes) == 1 and self._weigh(segment.nodes[0]) > SEGMENT_BYTES:
            node = self._model.proto.graph.node[segment.nodes[0]]
            product = WideProduct.of(self._model, node)
            if product is not None:
                product.run(
                    self._model, self._live, self._store, SEGMENT_BYTES,
                    threads=self._threads, providers=self._providers,
                )  # fmt: skip
                return
        fed = _fed_constants(self._model, self._flow, segment)
        lent: dict[str, Tensor] = {}
        proto = _submodel(self._model, self._flow, segment, first, fed, lent)
        session = open_session(
            proto.SerializeToString(),
            folder=None,
            threads=self._threads_each,
            providers=self._providers,
            libraries=self._model.libraries,
            lent=lent,
        )
        del proto

        def run(live: LiveTensors) -> None:
            """Run one batch, and keep what comes out."""
            feed = {name: live[name] for name in segment.inputs if name in live}
            values = run_session(session, segment.outputs, feed, fed)
            for name, value in zip(segment.outputs, values, strict=True):
                live.add(name, value)

        if self._at_once:
            with hands(min(len(self._live), AT_ONCE), self._at_once) as crew:
                list(crew.map(run, self._live))
        else:
            for live in self._live:
                run(live)


def _fed_constants(model: Model, flow: Flow, segment: Segment) -> dict[str, Tensor]:
    """Large constants in files: mapped and fed, they are not copied."""
    names = {name for index in segment.nodes for name in flow.reads[index]}
    nodes = model.proto.graph.node
    foreign = {n for i in segment.nodes if nodes[i].domain for n in flow.reads[i]}
    stored = (name for name in sorted(names - foreign) if name in model.stored)
    found = ((name, mapped(model.sites, name)) for name in stored)
    return {name: value for name, value in found if value is not None}


def _submodel(
    model: Model,
    flow: Flow,
    segment: Segment,
    live: LiveTensors,
    fed: dict[str, Tensor],
    lent: dict[str, Tensor],
) -> ModelProto:
    """The nodes of a segment as a model; what it needs in memory besides is put into ``lent``."""
    source = model.proto
    graph = GraphProto(name="segment")
    names: set[str] = set()
    for index in segment.nodes:
        graph.node.append(source.graph.node[index])
        names.update(flow.reads[index])
    made = {name for index in segment.nodes for name in source.graph.node[index].output}
    for name in sorted(names - made):
        if name in fed:
            graph.input.add(name=name).type.CopyFrom(_type_of(fed[name]))
            dims = [onnx.TensorShapeProto.Dimension(dim_value=size) for size in fed[name].shape]
            graph.input[-1].type.tensor_type.shape.dim.extend(dims)
        elif name in model.stored:
            hand_over(model.sites, name, graph, lent)
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
