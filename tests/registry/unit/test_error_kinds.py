"""The table of error kinds."""

from __future__ import annotations

import errno

import pytest

from ferryline.registry import errors
from ferryline.registry.error_kinds import ErrorKind, is_exhaustion, is_memory_exhaustion, kind_of
from ferryline.registry.errors import FerryError, MissingRightError, RefusedError


class NativeError(Exception):
    """As native libraries raise them: of no class that anybody knows."""


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.ENOSPC, "No space left on device"),
        ConnectionResetError(),
        MemoryError(),
        NativeError("something nobody has seen before"),
        RuntimeError("std::bad_alloc"),
        ValueError("the model could not be run on these inputs: std::bad_alloc"),
        RuntimeError("can't start new thread"),
        NativeError("[ONNXRuntimeError] : 1 : FAIL : Load model from m.onnx failed:system error number 24"),
    ],
    ids=repr,
)
def test_what_tells_of_the_machine_and_what_is_unknown_is_transient(error: Exception) -> None:
    assert kind_of(error) is ErrorKind.TRANSIENT


@pytest.mark.parametrize(
    "error", [TypeError("x"), AssertionError(), KeyError("x"), ValueError("no candidate")]
)
def test_programming_errors_are_ours(error: Exception) -> None:
    assert kind_of(error) is ErrorKind.OURS


@pytest.mark.parametrize("gate", ["load", "memory", "golden-rows", "parity", "one-that-is-new"])
def test_a_refused_file_is_final_for_the_file(gate: str) -> None:
    assert kind_of(RefusedError(gate, "reason", "remedy")) is ErrorKind.FINAL_FOR_FILE


@pytest.mark.parametrize("gate", ["signature", "contract", "manifest", "schema"])
def test_a_refused_entry_is_final_for_the_generation(gate: str) -> None:
    assert kind_of(RefusedError(gate, "reason", "remedy")) is ErrorKind.FINAL_FOR_GENERATION


@pytest.mark.parametrize("name", sorted(set(errors.__all__) - {"RefusedError"}))
def test_every_other_error_of_the_registry_is_transient(name: str) -> None:
    made = getattr(errors, name)
    error = made("memory", "s3:PutObject") if made is MissingRightError else made("text")
    assert isinstance(error, FerryError)
    assert kind_of(error) is ErrorKind.TRANSIENT


def test_only_the_final_kinds_are_final() -> None:
    assert [kind for kind in ErrorKind if kind.is_final] == [
        ErrorKind.FINAL_FOR_FILE,
        ErrorKind.FINAL_FOR_GENERATION,
    ]


def test_memory_is_told_apart_from_the_other_resources() -> None:
    assert is_memory_exhaustion("terminate called after throwing an instance of 'std::bad_alloc'")
    assert not is_memory_exhaustion("OSError: [Errno 24] Too many open files")
    assert is_exhaustion("OSError: [Errno 24] Too many open files")
    assert is_exhaustion("system error number 28")
    assert not is_exhaustion("system error number 2")
    assert not is_exhaustion("Protobuf parsing failed.")
