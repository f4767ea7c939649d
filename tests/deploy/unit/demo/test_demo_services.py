"""What happens to the demo's processes when someone is in a hurry."""

from __future__ import annotations

import signal

import pytest

from ferryline.deploy.demo.services import interrupts_held


def test_ctrl_c_waits_until_a_process_is_known() -> None:
    known = []
    usual = signal.getsignal(signal.SIGINT)

    def start() -> None:
        with interrupts_held():
            signal.raise_signal(signal.SIGINT)
            known.append("trainer")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert known == ["trainer"]
    assert signal.getsignal(signal.SIGINT) is usual


def test_what_fails_while_ctrl_c_waits_is_what_is_told() -> None:
    usual = signal.getsignal(signal.SIGINT)
    with pytest.raises(OSError, match="no such command"), interrupts_held():
        raise OSError("no such command")
    assert signal.getsignal(signal.SIGINT) is usual
