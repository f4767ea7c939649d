"""A script of SQL run by Flink's client, of which a program that prints as it does is enough."""

from __future__ import annotations

import os
import sys

import pytest

from ferryline.flink_scoring.sql.script import run_script


@pytest.mark.parametrize(
    ("prints", "status", "found"),
    [
        ("rows", 0, 0),
        ("rows", 3, 3),
        # as the client prints them to a pipe
        ("Flink SQL> \x1b[31;1m[ERROR] Could not execute SQL statement. Reason:", 0, 1),
        ("Flink SQL> CREATE TABLE F (a INT)\x1b[31;1m[ERROR] Could not execute", 0, 1),
        ("Flink SQL> SELECT '[ERROR] x'+----+\n| +I | [ERROR] x |\n| +I | a\n[ERROR] b |", 0, 0),
        ("\x1b[34;1m[INFO] Execute statement succeeded.\x1b[0m", 0, 0),
    ],
)
def test_a_script_that_the_client_complained_of_has_failed(
    prints: str, status: int, found: int, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    program = f"import sys; print({prints!r}); sys.exit({status})"
    assert run_script([sys.executable, "-c", program], os.environ) == found
    assert capfdbinary.readouterr().out == f"{prints}\n".encode()
