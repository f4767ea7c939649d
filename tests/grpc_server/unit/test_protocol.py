"""The protocol file: equal on the wire to Triton's, able to live beside it, and reproducible."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from tritonclient.grpc import service_pb2 as triton

from protos import grpc_service_pb2 as ours
from protos.generate import GENERATED, generate

ROOT = Path(__file__).parents[3]
MESSAGES = sorted(ours.DESCRIPTOR.message_types_by_name)


def wire_form(message: Descriptor) -> dict[str, object]:
    """Names, numbers, types and nesting of a message; comments and file do not matter."""

    def described(field: FieldDescriptor) -> tuple[object, ...]:
        inner = wire_form(field.message_type) if field.message_type else None
        oneof = field.containing_oneof.name if field.containing_oneof else None
        return field.name, field.type, field.label, oneof, repr(inner)

    return {str(field.number): described(field) for field in message.fields}


def test_all_messages_of_the_core_are_there() -> None:
    methods = [method.name for method in ours.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods]
    assert methods == [
        "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer",
    ]  # fmt: skip
    assert {f"{method}{end}" for method in methods for end in ("Request", "Response")} <= set(MESSAGES)


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_is_the_same_on_the_wire_as_tritons(name: str) -> None:
    mine = ours.DESCRIPTOR.message_types_by_name[name]
    theirs = triton.DESCRIPTOR.message_types_by_name[name]
    assert mine.full_name == theirs.full_name
    assert wire_form(mine) == wire_form(theirs)


def test_methods_have_the_same_paths_and_messages_as_tritons() -> None:
    mine = ours.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    theirs = triton.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    for method in mine.methods:
        other = theirs.methods_by_name[method.name]
        assert (method.full_name, method.input_type.full_name, method.output_type.full_name) == (
            other.full_name,
            other.input_type.full_name,
            other.output_type.full_name,
        )


@pytest.mark.parametrize("order", [("protos.grpc_service_pb2", "tritonclient.grpc.service_pb2")])
@pytest.mark.parametrize("first", [0, 1])
def test_both_can_be_imported_in_one_process_in_either_order(order: tuple[str, str], first: int) -> None:
    # the version as in conftest.py, for the same reason
    code = f"import grpc; grpc.__version__ = '1.67.1'; import {order[first]}; import {order[1 - first]}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_regenerating_gives_the_code_that_is_committed(tmp_path: Path) -> None:
    written = generate(ROOT, tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in written] == list(GENERATED)
    for name in GENERATED:
        assert (tmp_path / name).read_text() == (ROOT / name).read_text(), f"run `make protos`: {name}"
