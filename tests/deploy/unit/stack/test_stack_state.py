import stat
from pathlib import Path

import pytest

from ferryline.deploy.stack.errors import StackUsageError
from ferryline.deploy.stack.state import (
    ProcessRecord,
    StackState,
    decode_state,
    encode_state,
    load_state,
    save_state,
)


def example() -> StackState:
    record = ProcessRecord(pid=7, created=1.25, log=Path("/logs/kafka.log"), address="127.0.0.1:9092")
    return StackState(ports={"kafka": 9092}, access_key="user", processes={"kafka": record})


def test_a_state_survives_its_file() -> None:
    state = example()
    assert decode_state(encode_state(state)) == state


def test_every_stack_has_a_mark_of_its_own() -> None:
    assert StackState().mark != StackState().mark


def test_a_missing_file_is_a_stack_that_never_ran(tmp_path: Path) -> None:
    assert load_state(tmp_path / "state.json").processes == {}


def test_the_file_holds_a_password_and_is_the_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    state = example()
    save_state(file, state)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load_state(file) == state
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    "text", ["", "{", '{"schema_version": 99}', '{"processes": {"kafka": {"pid": "x"}}}']
)
def test_a_damaged_or_foreign_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "state.json"
    file.write_text(text)
    with pytest.raises(StackUsageError, match=r"state\.json"):
        load_state(file)
