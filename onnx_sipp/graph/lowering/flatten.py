"""The first half of lowering: one list of nodes, and all stored constants under a name each.

Functions are inlined. An If whose branch is known is replaced by that branch. Constants, and what
is computed from constants alone, move out of subgraphs to the main graph, whose names all subgraphs
see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import FunctionProto, GraphProto, NodeProto, OperatorSetIdProto, helper

from onnx_sipp.graph.kinds import known_as, node_kind, node_labels
from onnx_sipp.graph.lowering.flat import Flat, Labelled
from onnx_sipp.graph.lowering.scopes import Names, Scope, defined_in
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.node import Label, is_deterministic
from onnx_sipp.graph.order import in_order, subgraphs
from onnx_sipp.graph.walk import Holder, holder_of, is_constant_node

__all__ = ["flatten"]


def flatten(model: Model, branches: Mapping[str, bool] | None = None) -> Flat:
    """List the nodes and constants of the main graph.

    Args:
        model: the original; is not changed. No function of it calls itself (see `claims`).
        branches: what conditions of Ifs always are, by label.
    """
    return _Flattener(model, branches or {}).main()


class _Flattener:
    def __init__(self, model: Model, branches: Mapping[str, bool]) -> None:
        self._model, self._branches = model, branches
        self._functions = {_key(f.domain, f.name, f.overload): f for f in model.proto.functions}
        graph = model.proto.graph
        self._names = Names({*defined_in(graph), *(value.name for value in graph.output)})
        self._constant: set[str] = set()
        self._flat = Flat(model, self._names, _opsets(model))

    def main(self) -> Flat:
        graph = self._model.proto.graph
        self._constant.update(tensor.values.name for tensor in graph.sparse_initializer)
        for tensor in graph.initializer:
            self._keep(tensor.name, tensor.name, tensor, self._model.route(tensor.name))
        self._emit(graph.node, Scope(""), self._flat.nodes)
        return self._flat

    def _emit(self, nodes: Sequence[NodeProto], scope: Scope, sink: list[Labelled]) -> None:
        """List nodes; what is constant goes to the main graph instead."""
        labels = node_labels(nodes)
        for index in in_order(nodes):
            node = nodes[index]
            label = Label(scope.path + labels[index], known_as(node))
            function = self._functions.get(_key(*node_kind(node), node.overload))
            if is_constant_node(node):
                self._emit_constant(node, label, scope, sink)
            elif function is not None:
                self._call(function, node, label, scope, sink)
            elif node_kind(node) == ("", "If") and label.name in self._branches:
                self._take(node, label, scope, sink)
            else:
                self._place(self._copy(node, label, scope), label, sink)

    def _place(self, node: NodeProto, label: Label, sink: list[Labelled]) -> None:
        if is_deterministic(node) and all(n in self._constant for n in node.input if n):
            self._constant.update(node.output)
            sink = self._flat.nodes
        sink.append((node, label))

    # --- constants -----------------------------------------------------------------------------

    def _keep(self, name: str, original: str, holder: Holder, kind: str) -> None:
        self._constant.add(name)
        self._flat.keep(name, holder, kind, original)

    def _emit_constant(
        self, node: NodeProto, label: Label, scope: Scope, sink: list[Labelled]
    ) -> None:
        holder = holder_of(node)
        values = [scope.value(attribute) for attribute in node.attribute]
        if (
            holder is None
            and len(values) == 1
            and values[0] is not None
            and values[0].HasField("t")
        ):
            holder = values[0].t  # the attribute of a call of this function
        if holder is not None and self._model.sites.has(holder):
            kind = "Constant node" + _where(scope)
            self._keep(scope.name(node.output[0]), node.output[0], holder, kind)
        else:
            self._place(self._copy(node, label, scope), label, sink)

    def _store(self, graph: GraphProto, scope: Scope) -> None:
        """Make the initializers of a subgraph constants of the main graph."""
        for tensor in graph.initializer:
            kind = "initializer" + _where(scope)
            self._keep(scope.name(tensor.name), tensor.name, tensor, kind)
        for sparse in graph.sparse_initializer:
            name = scope.name(sparse.values.name)
            node = helper.make_node("Constant", [], [name], sparse_value=sparse)
            self._place(node, Label(scope.path + name, "Constant"), self._flat.nodes)

    # --- what is dissolved ---------------------------------------------------------------------

    def _call(
        self,
        function: FunctionProto,
        node: NodeProto,
        label: Label,
        scope: Scope,
        sink: list[Labelled],
    ) -> None:
        inner = scope.called(function, node, f"{label.name} > ")
        targets = [scope.name(name) for name in node.output]
        self._dissolve(function.node, function.output, targets, label, inner, sink)

    def _take(self, node: NodeProto, label: Label, scope: Scope, sink: list[Labelled]) -> None:
        """Put the branch of an If that is always taken in its place."""
        taken = "then_branch" if self._branches[label.name] else "else_branch"
        targets = [scope.name(name) for name in node.output]
        for name, graph in subgraphs(node):
            inner = scope.inner(f"{label.name} > {name} > ")
            if name == taken:
                inner.define(
                    (n for n in defined_in(graph) if n not in _made(graph.node)), self._names
                )
                outputs = [value.name for value in graph.output]
                self._dissolve(graph.node, outputs, targets, label, inner, sink, graph)
            else:
                self._leave_out(graph, label, inner)

    def _leave_out(self, graph: GraphProto, label: Label, scope: Scope) -> None:
        """List a branch that is never taken apart; its constants are constants all the same."""
        scope.define(defined_in(graph), self._names)
        self._store(graph, scope)
        self._emit(graph.node, scope, self._flat.unseen)
        for value in graph.output:
            if (name := scope.name(value.name)) in self._constant:
                node = helper.make_node("Identity", [name], [self._names.fresh(name)])
                self._flat.unseen.append((node, label))

    def _dissolve(
        self,
        nodes: Sequence[NodeProto],
        outputs: Sequence[str],
        targets: Sequence[str],
        label: Label,
        scope: Scope,
        sink: list[Labelled],
        graph: GraphProto | None = None,
    ) -> None:
        """List nodes so that their outputs get the names of those of the node they come from."""
        made = _made(nodes)
        renamed: dict[str, str] = {}
        for name, target in zip(outputs, targets, strict=False):
            if target and name in made:
                renamed.setdefault(name, target)
        scope.names.update(renamed)
        scope.define(made, self._names)
        if graph is not None:
            self._store(graph, scope)
        self._emit(nodes, scope, sink)
        for name, target in zip(outputs, targets, strict=False):
            if target and renamed.get(name) != target:
                node = helper.make_node("Identity", [scope.name(name)], [target])
                self._place(node, label, sink)

    # --- what stays ----------------------------------------------------------------------------

    def _copy(self, node: NodeProto, label: Label, scope: Scope) -> NodeProto:
        """The node with the names and values of the lowered graph, its subgraphs likewise."""
        made = NodeProto(op_type=node.op_type, domain=node.domain, name=node.name)
        if scope.path:
            made.name = label.name
        made.input.extend(map(scope.name, node.input))
        made.output.extend(map(scope.name, node.output))
        for attribute in node.attribute:
            value = scope.value(attribute)
            if value is None:
                continue
            kept = made.attribute.add(name=attribute.name, type=value.type)
            if not value.HasField("g") and not value.graphs:
                kept.CopyFrom(value)
                kept.name = attribute.name
            path = f"{label.name} > {attribute.name} > "
            if value.HasField("g"):
                kept.g.CopyFrom(self._body(value.g, scope.inner(path)))
            kept.graphs.extend(self._body(graph, scope.inner(path)) for graph in value.graphs)
        if node_kind(node) == ("", "If"):
            self._flat.conditions[label.name] = made.input[0]
        return made

    def _body(self, graph: GraphProto, scope: Scope) -> GraphProto:
        """A subgraph that stays one, without its constants.

        Its nodes are called what they are called in reports, after the path.
        """
        scope.define(defined_in(graph), self._names)
        self._store(graph, scope)
        inner: list[Labelled] = []
        self._emit(graph.node, scope, inner)
        result = GraphProto(name=graph.name, doc_string=graph.doc_string)
        for value in graph.input:
            result.input.add().CopyFrom(value)
            result.input[-1].name = scope.name(value.name)
        for node, label in inner:
            result.node.append(node)
            result.node[-1].name = label.name.removeprefix(scope.path)
        made = {name for node, _ in inner for name in node.output}
        made.update(value.name for value in result.input)
        for value in graph.output:
            name = scope.name(value.name)
            result.output.add().CopyFrom(value)
            result.output[-1].name = name
            if name not in made:  # runtimes want an output to be made inside
                result.output[-1].name = self._names.fresh(name)
                result.node.add(op_type="Identity", input=[name], output=[result.output[-1].name])
        return result


def _opsets(model: Model) -> list[OperatorSetIdProto]:
    """Those of the model, and of further domains that its functions import.

    Where both name a version, runtimes take the model's for the bodies of functions too.
    """
    found = {opset.domain: opset for opset in model.proto.opset_import}
    for function in model.proto.functions:
        for opset in function.opset_import:
            found.setdefault(opset.domain, opset)
    return list(found.values())


def _made(nodes: Sequence[NodeProto]) -> dict[str, None]:
    return dict.fromkeys(name for node in nodes for name in node.output if name)


def _key(domain: str, op_type: str, overload: str) -> tuple[str, str, str]:
    return "" if domain == "ai.onnx" else domain, op_type, overload


def _where(scope: Scope) -> str:
    """Where the constants of a scope are stored, for people."""
    if scope.calls:
        return " in a function"
    return " in a subgraph" if scope.path else ""
