"""The judgement of one candidate, from its bytes to its golden rows; runs in a confined child only."""

from __future__ import annotations

import resource
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

import onnx
from onnx import ModelProto

from ferryline.model_runtime.facts import facts_of, parse_model
from ferryline.model_runtime.gate.checks import static_checks
from ferryline.model_runtime.gate.exhaustion import out_of_memory
from ferryline.model_runtime.gate.limits import GateLimits
from ferryline.model_runtime.gate.protocol import encode_facts
from ferryline.model_runtime.gate.shapes import check_declared_values
from ferryline.model_runtime.gate.tensor_sizes import bytes_of
from ferryline.model_runtime.golden import check_golden_rows, warm_up
from ferryline.model_runtime.session import OnnxSession
from ferryline.registry.digests import digest_of
from ferryline.registry.documents import GoldenRows, ModelFacts
from ferryline.registry.error_kinds import is_memory_exhaustion
from ferryline.registry.errors import RefusedError

_BIG_TENSOR = 4096  # bytes; shapes and their like are smaller
_TENSOR_DATA = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data")


class Stage(StrEnum):
    """What is done with a candidate; the last one begun tells where it killed its process."""

    READ = "read"
    PARSE = "parsed"
    CHECKS = "inspected"
    CHECKER = "checked by onnx"
    LOAD = "loaded"
    RUN = "run"


def judge(
    path: Path, digest: str, golden: GoldenRows | None, limits: GateLimits, tell: Callable[[Stage], None]
) -> ModelFacts:
    """Take the file at `path` through every gate, the cheapest first.

    Args:
        path: the file.
        digest: what its bytes must have.
        golden: rows it must give the outputs of; None to run it on zeros.
        limits: what it may hold and use.
        tell: called at the begin of each stage.

    Raises:
        RefusedError: a gate refuses it.
    """
    tell(Stage.READ)
    data = path.read_bytes()
    if digest_of(data) != digest:
        raise RefusedError(
            "digest", f"the file does not have digest {digest}", "It was changed while it was read; try again"
        )
    facts = _read(data, limits, tell)
    del data
    tell(Stage.LOAD)
    try:
        session = OnnxSession(path)
        tell(Stage.RUN)
        fault = _run(session, facts, golden)
    except RefusedError as error:
        if is_memory_exhaustion(error.reason):
            raise out_of_memory(error.reason) from error
        raise
    if fault is not None and is_memory_exhaustion(fault):
        raise out_of_memory(fault)
    return facts


def _read(data: bytes, limits: GateLimits, tell: Callable[[Stage], None]) -> ModelFacts:
    tell(Stage.PARSE)
    model = _parse(data, limits)
    tell(Stage.CHECKS)
    static_checks(model, limits)
    facts = facts_of(model)
    encode_facts(facts)  # before the costly part: what cannot be told cannot be admitted
    tell(Stage.CHECKER)
    if limits.full_check:
        _check_fully(data)
    _check_inferred(model, limits)
    return facts


def _parse(data: bytes, limits: GateLimits) -> ModelProto:
    before = _peak_bytes()
    try:
        return parse_model(data)
    except RefusedError as error:
        # protobuf has one error for bytes of no meaning and for want of memory
        if _peak_bytes() - before > limits.memory_bytes(len(data)) / 4:
            raise out_of_memory("parsing it takes many times its size") from error
        raise


def _check_fully(data: bytes) -> None:
    try:
        onnx.checker.check_model(data, full_check=True)
    except MemoryError:
        raise
    except Exception as error:  # the checker's errors share no base class below Exception
        if is_memory_exhaustion(str(error)):
            raise out_of_memory(str(error)) from error
        raise RefusedError(
            "checker",
            f"onnx finds it invalid: {error}",
            "Export it again; FERRY_GATE_FULL_CHECK=false skips this check",
        ) from error


def _check_inferred(model: ModelProto, limits: GateLimits) -> None:
    """Shapes that arithmetic on constants leads to; takes what is big out of `model`, which is used up."""
    for tensor in model.graph.initializer:
        if bytes_of(tensor.data_type, tensor.dims) > _BIG_TENSOR:
            for field in _TENSOR_DATA:
                tensor.ClearField(field)
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except MemoryError:
        raise
    except Exception as error:
        if is_memory_exhaustion(str(error)):
            raise out_of_memory(str(error)) from error
        return
    check_declared_values(inferred, limits)


def _run(session: OnnxSession, facts: ModelFacts, golden: GoldenRows | None) -> str | None:
    if golden is None:
        return warm_up(session, facts)
    check_golden_rows(session, facts, golden)
    return None


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
