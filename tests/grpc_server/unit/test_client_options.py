"""How a client reaches its server: retries, the token and certificates."""

from __future__ import annotations

from pathlib import Path

import pytest

from ferryline.grpc_server.client import NO_RETRY, Client, OverloadedError, Retry, Tls
from ferryline.grpc_server.client import errors as client_errors
from ferryline.grpc_server.client.errors import of_status
from ferryline.grpc_server.client.options import Connection
from ferryline.grpc_server.client.retry_info import KEY, retry_seconds
from ferryline.grpc_server.status_details import KEY as SERVERS_KEY
from ferryline.grpc_server.status_details import with_retry_info
from ferryline.registry.errors import FerryError, UsageError


@pytest.mark.parametrize("seconds", [0.0, 0.05, 1.5, 61.25])
def test_what_our_server_says_of_a_retry_is_read(seconds: float) -> None:
    assert KEY == SERVERS_KEY
    assert retry_seconds(with_retry_info(8, "overloaded", seconds)) == pytest.approx(seconds)


@pytest.mark.parametrize("details", [b"", b"\xff\xff", b"\x08\x08", b"\x1a\x02\xff\xff", "text"])
def test_details_that_say_nothing_of_a_retry_are_none(details: bytes | str) -> None:
    assert retry_seconds(details) is None


@pytest.mark.parametrize(
    ("code", "retry_after", "retried"),
    [
        ("UNAVAILABLE", None, True),
        ("RESOURCE_EXHAUSTED", 1.0, True),
        ("RESOURCE_EXHAUSTED", None, False),  # a message that is too large stays too large
        ("INVALID_ARGUMENT", None, False),
        ("DEADLINE_EXCEEDED", None, False),
        ("INTERNAL", None, False),
    ],
)
def test_only_what_may_pass_is_asked_again(code: str, retry_after: float | None, retried: bool) -> None:
    error = of_status(code, "text", retry_after)
    assert (Retry().wait_after(1, error) is not None) is retried
    assert NO_RETRY.wait_after(1, error) is None


def test_waits_double_up_to_the_longest_with_jitter() -> None:
    retry, error = Retry(attempts=9, first=0.1, longest=1.0), of_status("UNAVAILABLE", "")
    most = [retry.wait_after(attempt, error, lambda: 1.0) for attempt in range(1, 10)]
    least = [retry.wait_after(attempt, error, lambda: 0.0) for attempt in range(1, 9)]
    assert most[:5] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0])
    assert most[8] is None
    assert least[0] == pytest.approx(0.05)


def test_the_servers_own_wait_is_waited_and_a_bit_more() -> None:
    wait = Retry(first=0.1).wait_after(1, of_status("RESOURCE_EXHAUSTED", "", 7.0), lambda: 0.5)
    assert wait == pytest.approx(7.075)


def test_every_error_has_a_kind_and_one_root() -> None:
    kinds = {name: type(of_status(name, "t")).__name__ for name in client_errors._KINDS}
    assert kinds["NOT_FOUND"] == "ModelNotFoundError"
    assert kinds["UNAUTHENTICATED"] == kinds["PERMISSION_DENIED"] == "AccessError"
    assert type(of_status("INTERNAL", "t")) is client_errors.InferenceError
    assert type(of_status("RESOURCE_EXHAUSTED", "t", 1.0)) is OverloadedError
    assert all(issubclass(kind, FerryError) for kind in client_errors._KINDS.values())
    assert str(of_status("NOT_FOUND", "no model 'm'")) == "NOT_FOUND: no model 'm'"


def test_the_token_is_asked_for_each_time() -> None:
    tokens = iter(["one\n", "two"])
    connection = Connection("127.0.0.1:1", token=lambda: next(tokens), metadata={"X-Team": "vision"})
    assert connection.call_metadata(None) == (("x-team", "vision"), ("authorization", "Bearer one"))
    assert connection.call_metadata({"a": "b"})[1:] == (("a", "b"), ("authorization", "Bearer two"))


@pytest.mark.parametrize("address", ["localhost:1", "127.0.0.1:1", "[::1]:1", "unix:/run/x"])
def test_a_token_may_travel_in_the_clear_on_this_machine(address: str) -> None:
    assert Connection(address, token="t").token is not None  # noqa: S106 - no secret


def test_a_token_does_not_leave_this_machine_in_the_clear_unless_told_so() -> None:
    with pytest.raises(UsageError, match="would travel unencrypted: give tls="):
        Client("models.example:443", token="t")  # noqa: S106 - no secret
    assert Connection("models.example:443", token="t", tls=Tls()).tls is not None  # noqa: S106 - no secret
    assert Connection("a:1", token="t", plaintext_token=True).token  # noqa: S106 - no secret


def test_certificates_that_cannot_be_read_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*nothing.pem: No such file"):
        Tls(roots=tmp_path / "nothing.pem").credentials()
    with pytest.raises(UsageError, match="a certificate and its key"):
        Tls(certificate="c.pem").credentials()


def test_our_options_do_not_displace_the_callers() -> None:
    options = Connection("a:1", options=[("grpc.lb_policy_name", "round_robin")]).channel_options()
    assert options[0] == ("grpc.lb_policy_name", "round_robin")
    assert dict(options)["grpc.max_receive_message_length"] == 2**31 - 1
