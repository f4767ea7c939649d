"""gRPC's messages and headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferryline.grpc_server.errors import InvalidRequestError, TooLargeError
from ferryline.grpc_server.http2.messages import MessageReader, framed, only_message
from ferryline.grpc_server.http2.metadata import failed_trailers, metadata_in, ok_trailers, seconds_of


@given(st.lists(st.binary(max_size=50), max_size=20), st.data())
def test_messages_are_the_same_however_they_are_cut(messages: list[bytes], data: st.DataObject) -> None:
    stream, reader, found = b"".join(map(framed, messages)), MessageReader(50), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += reader.feed(stream[:size])
        stream = stream[size:]
    assert found == messages
    assert reader.held == 0


@given(st.binary(max_size=30))
def test_the_short_way_finds_what_the_long_way_does(data: bytes) -> None:
    reader = MessageReader(2**32)
    try:
        found = reader.feed(data)
    except InvalidRequestError:
        found = []
    only = found[0] if len(found) == 1 and not reader.held else None
    assert only_message(data) == only


@given(st.binary(max_size=30))
def test_a_message_is_found_the_short_way(message: bytes) -> None:
    assert only_message(framed(message)) == message
    assert only_message(framed(message) + b"x") is None
    assert only_message(framed(message)[:-1]) is None


def test_a_message_that_is_too_large_is_refused_before_it_comes() -> None:
    with pytest.raises(TooLargeError, match="11 bytes, 10 allowed"):
        MessageReader(10).feed(b"\0\0\0\0\x0b")


def test_what_is_no_message_is_refused() -> None:
    with pytest.raises(InvalidRequestError):
        MessageReader(10).feed(b"GET / HTTP/1.1")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"1S", 1.0),
        (b"250m", 0.25),
        (b"2H", 7200.0),
        (b"99999999n", 0.099999999),
        (b"0u", 0.0),
        (b"3M", 180.0),
    ],
)
def test_timeouts(text: bytes, seconds: float) -> None:
    assert seconds_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", [b"", b"S", b"1", b"-1S", b"1s", b"1.5S", b"123456789S", b"1 S", b"\xb2S"])
def test_what_is_no_timeout(text: bytes) -> None:
    assert seconds_of(text) is None


def test_a_message_of_a_status_is_percent_encoded() -> None:
    fields = dict(failed_trailers(3, "50 % of “x”\n"))
    assert fields == {"grpc-status": "3", "grpc-message": "50 %25 of %E2%80%9Cx%E2%80%9D%0A"}


def test_binary_metadata_goes_there_and_back() -> None:
    trailers = failed_trailers(8, "", [("grpc-status-details-bin", b"\0\xff"), ("plain", "a")])
    assert trailers == (("grpc-status", "8"), ("grpc-status-details-bin", b"AP8"), ("plain", "a"))
    assert metadata_in([(b"grpc-status-details-bin", b"AP8")]) == (("grpc-status-details-bin", b"\0\xff"),)
    assert metadata_in([(b"a-bin", b"AA,AQ==,!")]) == (("a-bin", b"\0"), ("a-bin", b"\x01"))


def test_metadata_is_without_what_is_grpcs_own() -> None:
    fields = [
        (b":path", b"/a/b"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"grpc-timeout", b"1S"),
        (b"user-agent", b"x/1"),
        (b"authorization", b"Bearer t"),
    ]
    assert metadata_in(fields) == (("user-agent", "x/1"), ("authorization", "Bearer t"))


def test_trailers_of_success() -> None:
    assert ok_trailers((("ferry-version", "3"),)) == (("grpc-status", "0"), ("ferry-version", "3"))
