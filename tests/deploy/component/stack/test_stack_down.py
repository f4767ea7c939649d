"""What `ferry-stack down` ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ferryline.deploy.stack import process
from ferryline.deploy.stack.__main__ import main
from ferryline.deploy.stack.cli_output import console
from ferryline.deploy.stack.home import StackHome
from ferryline.deploy.stack.state import StackState, save_state
from tests.support.waiting import wait_for


def test_down_ends_what_a_crashed_up_had_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FERRY_STACK_HOME", str(tmp_path / "stack"))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    home = StackHome.from_environ(os.environ)
    home.create()
    state = StackState()
    save_state(home.state_file, state)
    orphan = process.spawn(
        [sys.executable, "-c", "import time; time.sleep(3600)"],
        environ=os.environ,
        mark=f"{state.mark}/kafka",
        folder=tmp_path,
        log=tmp_path / "x.log",
        address="",
    )
    # its environment can be read a moment after it has begun
    wait_for(lambda: process.marked(state.mark), "the process to carry its mark")
    monkeypatch.setattr(sys, "argv", ["ferry-stack", "down"])
    console.file = sys.stderr
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert not process.is_alive(orphan)
