"""Everything a model holds, wherever it hides: graphs in attributes, functions, training information.

Iterative throughout: how deep a model nests is the model's choice, and must not become this program's stack.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    ValueInfoProto,
)


@dataclass(frozen=True, slots=True)
class Scope:
    """A graph or a function's body, and how many graphs lie around it."""

    name: str
    depth: int
    body: GraphProto | FunctionProto

    @property
    def graph(self) -> GraphProto | None:
        """The body if it is a graph: a function has no initializers."""
        return self.body if isinstance(self.body, GraphProto) else None


def scopes(model: ModelProto) -> Iterator[Scope]:
    """Every graph and function of the model, outer ones first."""
    pending = [Scope("the graph", 0, model.graph)]
    pending.extend(Scope(f"function {item.name!r}", 0, item) for item in model.functions)
    for training in model.training_info:
        pending.append(Scope("the training information", 0, training.initialization))
        pending.append(Scope("the training information", 0, training.algorithm))
    while pending:
        scope = pending.pop()
        yield scope
        for attribute in _attributes_of(scope):
            pending.extend(
                Scope(f"a graph in {scope.name}", scope.depth + 1, graph) for graph in graphs_in(attribute)
            )


def nodes(model: ModelProto) -> Iterator[tuple[Scope, NodeProto]]:
    """Every node, with where it is."""
    for scope in scopes(model):
        for node in scope.body.node:
            yield scope, node


def attributes(model: ModelProto) -> Iterator[tuple[Scope, AttributeProto]]:
    """Every attribute of a node, and every default that a function gives to its own."""
    for scope in scopes(model):
        for attribute in _attributes_of(scope):
            yield scope, attribute


def graphs_in(attribute: AttributeProto) -> Iterator[GraphProto]:
    """The graphs that an attribute holds, whatever type it says it has."""
    if attribute.HasField("g"):
        yield attribute.g
    yield from attribute.graphs


def tensors(model: ModelProto) -> Iterator[tuple[str, TensorProto]]:
    """Every dense tensor, parts of sparse ones included, with a name for people."""
    for scope in scopes(model):
        if scope.graph is not None:
            for tensor in scope.graph.initializer:
                yield f"initializer {tensor.name!r}", tensor
    for scope, attribute in attributes(model):
        where = f"attribute {attribute.name!r} in {scope.name}"
        if attribute.HasField("t"):
            yield where, attribute.t
        for tensor in attribute.tensors:
            yield where, tensor
    for where, sparse in sparse_tensors(model):
        yield f"the values of {where}", sparse.values
        yield f"the indices of {where}", sparse.indices


def sparse_tensors(model: ModelProto) -> Iterator[tuple[str, SparseTensorProto]]:
    """Every sparse tensor, with a name for people."""
    for scope in scopes(model):
        if scope.graph is not None:
            for sparse in scope.graph.sparse_initializer:
                yield f"sparse initializer {sparse.values.name!r}", sparse
    for scope, attribute in attributes(model):
        where = f"attribute {attribute.name!r} in {scope.name}"
        if attribute.HasField("sparse_tensor"):
            yield where, attribute.sparse_tensor
        for sparse in attribute.sparse_tensors:
            yield where, sparse


def values(model: ModelProto) -> Iterator[tuple[Scope, ValueInfoProto]]:
    """Every value whose type is declared: inputs, outputs, and those in between."""
    for scope in scopes(model):
        for value in scope.body.value_info:
            yield scope, value
        if scope.graph is not None:
            for value in (*scope.graph.input, *scope.graph.output):
                yield scope, value


def _attributes_of(scope: Scope) -> Iterator[AttributeProto]:
    for node in scope.body.node:
        yield from node.attribute
    if isinstance(scope.body, FunctionProto):
        yield from scope.body.attribute_proto
