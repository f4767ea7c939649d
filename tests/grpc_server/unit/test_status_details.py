"""The rich status, read back by protobuf itself from the public schema."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.any_pb2 import DESCRIPTOR as ANY
from google.protobuf.duration_pb2 import DESCRIPTOR as DURATION

from ferryline.grpc_server.status_details import RETRY_INFO, with_retry_info


def _schema() -> descriptor_pb2.FileDescriptorProto:
    """What google/rpc/status.proto and error_details.proto say of the two messages."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="rpc.proto", package="google.rpc", syntax="proto3")
    file.dependency.extend([ANY.name, DURATION.name])
    status = file.message_type.add(name="Status")
    status.field.add(name="code", number=1, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL)
    status.field.add(name="message", number=2, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    kind = {"type": field.TYPE_MESSAGE, "type_name": ".google.protobuf.Any"}
    status.field.add(name="details", number=3, label=field.LABEL_REPEATED, **kind)
    retry = file.message_type.add(name="RetryInfo")
    kind = {"type": field.TYPE_MESSAGE, "type_name": ".google.protobuf.Duration"}
    retry.field.add(name="retry_delay", number=1, label=field.LABEL_OPTIONAL, **kind)
    return file


@pytest.mark.parametrize("text", ["overloaded", "é" * 300, ""])
@pytest.mark.parametrize("seconds", [0.05, 1.0, 59.25])
def test_protobuf_reads_what_is_written(text: str, seconds: float) -> None:
    pool = descriptor_pool.DescriptorPool()
    for file in (ANY, DURATION):
        pool.AddSerializedFile(file.serialized_pb)
    pool.Add(_schema())
    status_type, retry_type = (
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"google.rpc.{name}"))
        for name in ("Status", "RetryInfo")
    )
    status = status_type.FromString(with_retry_info(8, text, seconds))
    assert (status.code, status.message, len(status.details)) == (8, text, 1)
    assert status.details[0].type_url == RETRY_INFO
    delay = retry_type.FromString(status.details[0].value).retry_delay
    assert delay.seconds + delay.nanos / 1e9 == pytest.approx(seconds, abs=1e-6)
