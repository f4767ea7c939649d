"""The rich error model of gRPC: what a client reads from `grpc-status-details-bin`.

Source: google/rpc/status.proto and google/rpc/error_details.proto. The value is a google.rpc.Status
{code = 1, message = 2, repeated google.protobuf.Any details = 3}; a RetryInfo has one field, retry_delay = 1.
"""

from __future__ import annotations

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration

from ferryline.grpc_server.replies import length_delimited

KEY = "grpc-status-details-bin"
RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"

_CODE = bytes((1 << 3 | 0,))
_MESSAGE = bytes((2 << 3 | 2,))
_DETAILS = bytes((3 << 3 | 2,))
_RETRY_DELAY = bytes((1 << 3 | 2,))


def with_retry_info(code: int, text: str, seconds: float) -> bytes:
    """A serialised google.rpc.Status that says when to try again.

    Args:
        code: gRPC's number of the status, below 128.
        text: the same as in the status itself.
        seconds: how long to wait first.
    """
    delay = Duration()
    delay.FromNanoseconds(int(seconds * 1e9))
    retry = length_delimited(_RETRY_DELAY, delay.SerializeToString())
    detail = Any(type_url=RETRY_INFO, value=retry).SerializeToString()
    return b"".join(
        (
            _CODE,
            bytes((code,)),
            length_delimited(_MESSAGE, text.encode()),
            length_delimited(_DETAILS, detail),
        )
    )
