"""What a server says of when to try again, read out of `grpc-status-details-bin`.

Source: google/rpc/status.proto and google/rpc/error_details.proto. The value is a google.rpc.Status
{code = 1, message = 2, repeated google.protobuf.Any details = 3}; a RetryInfo has one field, retry_delay = 1.
Their generated code is not needed for three fields: protobuf gives the fields of any message by number.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

KEY = "grpc-status-details-bin"

_RETRY_INFO = "/google.rpc.RetryInfo"
_DETAILS = 3
_RETRY_DELAY = 1
_LENGTH_DELIMITED = 2


def retry_seconds(details: bytes | str) -> float | None:
    """How long the server asks to wait; None where it does not say it, or not in a message."""
    try:
        for detail in _messages(details, _DETAILS):
            info = Any.FromString(detail)
            if info.type_url.endswith(_RETRY_INFO):
                for delay in _messages(info.value, _RETRY_DELAY):
                    return Duration.FromString(delay).ToNanoseconds() / 1e9
    except DecodeError:  # the status itself stands without its details
        return None
    return None


def _messages(data: bytes | str, number: int) -> Iterator[bytes]:
    fields = UnknownFieldSet(Empty.FromString(data.encode() if isinstance(data, str) else data))
    for index in range(len(fields)):
        field = fields[index]
        if field.field_number == number and field.wire_type == _LENGTH_DELIMITED:
            yield field.data
