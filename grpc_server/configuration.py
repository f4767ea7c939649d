"""A model's manifest as the configuration that Triton's clients read."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ferryline.grpc_server import datatypes
from ferryline.grpc_server.contract import FREE
from ferryline.grpc_server.execution.policy import BatchPolicy
from ferryline.grpc_server.provenance import CHANNEL, DIGEST, GENERATION
from ferryline.model_runtime.served import ServedModel
from ferryline.protos import grpc_service_pb2 as pb
from ferryline.registry.documents import TensorSpec

PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"

_BYTES_PREFIX = 4
"""What the shortest element of BYTES takes."""

_LARGEST = 2**31 - 1


def configuration(
    served: ServedModel, warm: Iterable[int], *, max_message_bytes: int, batching: BatchPolicy | None = None
) -> pb.ModelConfig:
    """How a version is served.

    Args:
        served: the version.
        warm: all versions that can be asked.
        max_message_bytes: the server's largest message, which bounds the rows of a request.
        batching: how its requests run together; None where they do not.
    """
    manifest = served.manifest
    batched = is_batched((*manifest.inputs, *manifest.outputs))
    config = pb.ModelConfig(
        name=served.name,
        platform=PLATFORM,
        backend=BACKEND,
        max_batch_size=_most_rows(manifest.inputs, max_message_bytes) if batched else 0,
        input=[pb.ModelInput(**_described(spec, batched)) for spec in manifest.inputs],
        output=[pb.ModelOutput(**_described(spec, batched)) for spec in manifest.outputs],
        instance_group=[
            pb.ModelInstanceGroup(name=served.name, count=1, kind=pb.ModelInstanceGroup.KIND_CPU)
        ],
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=False),
    )
    config.version_policy.specific.versions.extend(sorted(warm))
    if batching is not None:
        config.dynamic_batching.preferred_batch_size.append(batching.max_batch_size)
        config.dynamic_batching.max_queue_delay_microseconds = batching.max_queue_delay_us
    for key, value in ((CHANNEL, served.channel), (GENERATION, served.generation), (DIGEST, served.digest)):
        config.parameters[key].string_value = str(value)
    return config


def is_batched(specs: Iterable[TensorSpec]) -> bool:
    """Whether the first dimension of every tensor is free, and so a batch of rows."""
    return all(spec.shape[:1] == (FREE,) for spec in specs)


def _described(spec: TensorSpec, batched: bool) -> dict[str, Any]:
    dims = spec.shape[1:] if batched else spec.shape
    described = {"name": spec.name, "data_type": _data_type(spec), "dims": dims}
    if dims:
        return described
    # Triton's configurations know no tensor without dimensions
    return {**described, "dims": (1,), "reshape": pb.ModelTensorReshape()}


def _data_type(spec: TensorSpec) -> str:
    name = datatypes.of_catalogue(spec.dtype).name
    return "TYPE_STRING" if name == "BYTES" else f"TYPE_{name}"


def _most_rows(inputs: Iterable[TensorSpec], max_message_bytes: int) -> int:
    row = sum(_row_bytes(spec) for spec in inputs)
    return max(1, min(_LARGEST, max_message_bytes // max(1, row)))


def _row_bytes(spec: TensorSpec) -> int:
    datatype = datatypes.of_catalogue(spec.dtype)
    element = _BYTES_PREFIX if datatype.is_bytes else datatype.dtype.itemsize
    return element * math.prod(1 if size == FREE else size for size in spec.shape[1:])
