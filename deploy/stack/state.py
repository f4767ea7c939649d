"""state.json: what this stack runs, and the ports and credentials it had last."""

import contextlib
import os
import secrets
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ferryline.deploy.stack.errors import StackUsageError

_SCHEMA_VERSION = 1
DEFAULT_SLOTS = 2


class ProcessRecord(BaseModel):
    """One server process.

    Attributes:
        pid: its process id.
        created: when the operating system says it was created, in seconds since the epoch; together with
            the pid it names one process for ever, so that a reused pid is never taken for it.
        log: its log file.
        address: where it is reached.
    """

    model_config = ConfigDict(frozen=True)

    pid: int
    created: float
    log: Path
    address: str


class StackState(BaseModel):
    """The content of state.json; `processes` is empty after `down`, the rest is kept.

    Attributes:
        mark: random text in the environment of every process the stack starts; it finds the workers that a
            killed task manager leaves behind.
        ports: the port of each listener by name.
        access_key: MinIO's user.
        secret_key: MinIO's password.
        flink_slots: how many task slots the cluster has.
        processes: what was started, by name.
    """

    schema_version: int = _SCHEMA_VERSION
    mark: str = Field(default_factory=lambda: secrets.token_hex(8))
    ports: dict[str, int] = Field(default_factory=dict)
    access_key: str = ""
    secret_key: str = ""
    flink_slots: int = DEFAULT_SLOTS
    processes: dict[str, ProcessRecord] = Field(default_factory=dict)


def decode_state(text: str) -> StackState:
    """Read state.json's text.

    Raises:
        ValueError: it is not a state this version understands.
    """
    state = StackState.model_validate_json(text)
    if state.schema_version != _SCHEMA_VERSION:
        raise ValueError(f"schema version {state.schema_version}, this ferry-stack knows {_SCHEMA_VERSION}")
    return state


def encode_state(state: StackState) -> str:
    """The text of state.json."""
    return state.model_dump_json(indent=2) + "\n"


def load_state(file: Path) -> StackState:
    """Read a state file; a missing one is a stack that never ran.

    Raises:
        StackUsageError: the file is damaged or of another version.
    """
    try:
        return decode_state(file.read_text())
    except FileNotFoundError:
        return StackState()
    except (ValidationError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise StackUsageError(
            f"{file} cannot be read ({reason}): stop its servers by hand and delete the file"
        ) from error


def save_state(file: Path, state: StackState) -> None:
    """Replace a state file at once, readable by its owner alone."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        draft.touch(mode=0o600)
        draft.write_text(encode_state(state))
        draft.replace(file)
    finally:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
