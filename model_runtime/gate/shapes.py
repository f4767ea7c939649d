"""What a model says about the size of its tensors, before anything believes it.

97 bytes that declare a sparse initializer of 2³⁰ zeros cost ONNX Runtime a gigabyte when it loads them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from onnx import GraphProto, ModelProto, TensorProto, TypeProto, ValueInfoProto

from ferryline.model_runtime.gate.generated import generated_bytes
from ferryline.model_runtime.gate.inventory import sparse_tensors, tensors, values
from ferryline.model_runtime.gate.limits import MIB, GateLimits
from ferryline.model_runtime.gate.tensor_sizes import bits_of, bytes_of, stored_elements
from ferryline.registry.errors import RefusedError

GATE = "shapes"
SPARSE_GATE = "sparse"
MAX_RANK = 64

_EXPORT_AGAIN = "Export the model again"
_UNTELLABLE = 2**63  # Python will not even print an integer that is long enough


def check_sparse(model: ModelProto, limits: GateLimits) -> None:
    """No sparse tensors, unless they are allowed.

    Raises:
        RefusedError: there is one.
    """
    if limits.allow_sparse:
        return
    for where, _ in sparse_tensors(model):
        raise _sparse(f"{where} is sparse")
    for scope, value in values(model):
        if value.type.HasField("sparse_tensor_type"):
            raise _sparse(f"value {value.name!r} in {scope.name} is a sparse tensor")


def check_shapes(model: ModelProto, limits: GateLimits) -> None:
    """Stored tensors hold what they declare, and no declared or generated one is too big.

    Raises:
        RefusedError: one is not so.
    """
    for where, tensor in tensors(model):
        _require_stored(where, tensor)
    for where, sparse in sparse_tensors(model):
        _require_rank(where, sparse.dims)
        _require_small(f"{where}, made dense,", bytes_of(sparse.values.data_type, sparse.dims), limits)
    check_declared_values(model, limits)
    _require_small("what is made out of constants alone", sum(generated_bytes(model)), limits)


def check_declared_values(model: ModelProto, limits: GateLimits) -> None:
    """No value is declared too big, for one row; nor are all inputs or all outputs together.

    Raises:
        RefusedError: one is, or they are.
    """
    for scope, value in values(model):
        _require_small(f"value {value.name!r} in {scope.name}", _value_bytes(value), limits)
    graph: GraphProto = model.graph
    for what, group in (("inputs", graph.input), ("outputs", graph.output)):
        _require_small(f"all {what} together", sum(map(_value_bytes, group)), limits)


def _value_bytes(value: ValueInfoProto) -> int:
    kind: TypeProto.Tensor | TypeProto.SparseTensor
    if value.type.HasField("tensor_type"):
        kind = value.type.tensor_type
    elif value.type.HasField("sparse_tensor_type"):
        kind = value.type.sparse_tensor_type
    else:
        return 0  # sequences and maps have no size of their own
    dims = [dim.dim_value if dim.HasField("dim_value") else 1 for dim in kind.shape.dim]
    # exporters write 0 or -1 where they mean a free dimension
    dims = [max(dim, 1) for dim in dims]
    _require_rank(f"value {value.name!r}", dims)
    return bytes_of(kind.elem_type, dims)


def _require_stored(where: str, tensor: TensorProto) -> None:
    dims: Sequence[int] = tensor.dims
    _require_rank(where, dims)
    declared, stored = math.prod(dims), stored_elements(tensor)
    if declared > stored:
        bits = bits_of(tensor.data_type)
        raise _too_big(
            f"{where} declares {_counted(declared)} elements of {bits} bits and holds {stored}", _EXPORT_AGAIN
        )


def _require_rank(where: str, dims: Sequence[int]) -> None:
    if len(dims) > MAX_RANK or any(dim < 0 for dim in dims):
        raise _too_big(f"{where} has a negative dimension, or more than {MAX_RANK}", _EXPORT_AGAIN)


def _require_small(what: str, size: float, limits: GateLimits) -> None:
    # not `size > limit`: a size that is no number is none that can be trusted
    if not size <= limits.max_tensor_bytes:
        raise _too_big(
            f"{what} takes {_mib(size)}, more than {limits.max_tensor_bytes // MIB} MiB",
            "Make the model smaller, or raise FERRY_GATE_MAX_TENSOR_MIB",
        )


def _mib(size: float) -> str:
    return f"{size / MIB:.0f} MiB" if size < _UNTELLABLE else "memory without bound"


def _counted(elements: int) -> str:
    return str(elements) if elements < _UNTELLABLE else "countless"


def _too_big(reason: str, remedy: str) -> RefusedError:
    return RefusedError(GATE, reason, remedy)


def _sparse(reason: str) -> RefusedError:
    return RefusedError(
        SPARSE_GATE,
        reason,
        "Store it dense, or set FERRY_GATE_ALLOW_SPARSE=true where its makers are trusted",
    )
