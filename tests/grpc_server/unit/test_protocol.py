"""The protocol file: equal on the wire to Triton's, able to live beside it, and reproducible."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from tritonclient.grpc import model_config_pb2 as model_config
from tritonclient.grpc import service_pb2 as triton

from ferryline.grpc_server import unserved
from ferryline.protos import grpc_service_pb2 as ours
from ferryline.protos.generate import GENERATED, generate

ROOT = Path(__file__).parents[3]
MESSAGES = sorted(ours.DESCRIPTOR.message_types_by_name)
# what clients read of a model's configuration, and what holds it
CONFIGURATION = {
    "ModelConfig", "ModelConfigResponse", "ModelDynamicBatching", "ModelInput", "ModelInstanceGroup",
    "ModelOutput", "ModelTransactionPolicy", "ModelVersionPolicy",
}  # fmt: skip


def wire_form(message: Descriptor) -> dict[str, object]:
    """Names, numbers, types and nesting of a message; comments and file do not matter."""

    def described(field: FieldDescriptor) -> tuple[object, ...]:
        inner = wire_form(field.message_type) if field.message_type else None
        oneof = field.containing_oneof.name if field.containing_oneof else None
        return field.name, field.type, field.label, oneof, repr(inner)

    return {str(field.number): described(field) for field in message.fields}


def their_message(name: str) -> Descriptor:
    found = triton.DESCRIPTOR.message_types_by_name
    return found.get(name) or model_config.DESCRIPTOR.message_types_by_name[name]


def test_every_method_of_tritons_is_there_but_for_shared_memory() -> None:
    mine, theirs = (
        {method.name for method in module.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods}
        for module in (ours, triton)
    )
    assert theirs - mine == set(unserved.SHARED_MEMORY)
    assert mine <= theirs


@pytest.mark.parametrize("name", sorted(set(MESSAGES) - CONFIGURATION))
def test_a_message_is_the_same_on_the_wire_as_tritons(name: str) -> None:
    mine, theirs = ours.DESCRIPTOR.message_types_by_name[name], their_message(name)
    assert mine.full_name == theirs.full_name
    assert wire_form(mine) == wire_form(theirs)


@pytest.mark.parametrize("name", sorted(CONFIGURATION))
def test_a_message_of_the_configuration_is_a_part_of_tritons(name: str) -> None:
    def assert_part(mine: Descriptor, theirs: Descriptor) -> None:
        for field in mine.fields:
            other = theirs.fields_by_number[field.number]
            assert (field.name, field.type, field.label) == (other.name, other.type, other.label)
            if field.message_type is not None:
                assert_part(field.message_type, other.message_type)

    assert_part(ours.DESCRIPTOR.message_types_by_name[name], their_message(name))


def test_datatypes_of_the_configuration_have_tritons_numbers() -> None:
    theirs = model_config.DESCRIPTOR.enum_types_by_name["DataType"].values_by_name
    assert dict(ours.DataType.items()) == {name: value.number for name, value in theirs.items()}


def test_methods_have_the_same_paths_and_messages_as_tritons() -> None:
    mine = ours.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    theirs = triton.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    for method in mine.methods:
        other = theirs.methods_by_name[method.name]
        assert [
            each(method) == each(other)
            for each in (
                lambda m: m.full_name,
                lambda m: (m.input_type.full_name, m.client_streaming),
                lambda m: (m.output_type.full_name, m.server_streaming),
            )
        ] == [True] * 3


@pytest.mark.skipif(
    not version("grpcio-tools").startswith("1.65."),
    reason="another protoc than the lock file's writes other code",
)
def test_regenerating_gives_the_code_that_is_committed(tmp_path: Path) -> None:
    written = generate(ROOT, tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in written] == list(GENERATED)
    for name in GENERATED:
        assert (tmp_path / name).read_text() == (ROOT / name).read_text(), f"run `make protos`: {name}"
