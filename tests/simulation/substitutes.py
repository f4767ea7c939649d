"""Puts virtual time, and machines that are not there, in the place of the real ones.

Product code is left as it is: what it takes from the modules `time`, `threading`, `random`, `socket`, `os`,
`uuid` and `onnxruntime` is given by the process that runs just then.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import os
import random
import secrets
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest

from ferryline.model_runtime import identity, memory
from ferryline.model_runtime.follower import stages
from ferryline.model_runtime.gate import gate
from ferryline.model_runtime.gate.keeper import GateKeeper
from ferryline.model_runtime.gate.limits import GateLimits
from ferryline.model_runtime.gate.protocol import Ending, Request, encode_ending, verdict
from ferryline.registry import documents
from ferryline.registry.documents import ModelFacts
from ferryline.registry.schema import Document
from tests.simulation.kernel import START, Event, Kernel, Thread
from tests.simulation.store import ChildKilledError, Place, Troubled

_ROOMS = ("ferryline.registry.", "ferryline.model_runtime.", "ferryline.grpc_server.trials")
DECODED = 10_000
"""So many documents are remembered."""


class Here:
    """The history that is being played: its kernel, what its files hold, and its source of identities."""

    kernel: Kernel = Kernel()
    facts: Mapping[str, ModelFacts] = {}
    random = random.Random(0)  # noqa: S311 - a history is the same each time

    @classmethod
    def begin(cls, kernel: Kernel, facts: Mapping[str, ModelFacts], seed: int = 0) -> None:
        """Play another one."""
        cls.kernel, cls.facts = kernel, facts
        cls.random.seed(seed)

    @staticmethod
    def new_process() -> None:
        """A process begins: what its modules remember of another one is not there."""
        for value in vars(identity).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()

    @classmethod
    def process(cls) -> Troubled | None:
        """Who runs now."""
        process = cls.kernel.process
        return process if isinstance(process, Troubled) else None


class _Silent:
    """Stands for a logger."""

    def bind(self, **_fields: object) -> _Silent:
        return self

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_arguments, **_fields: None


_SILENT = _Silent()


# --- time ---------------------------------------------------------------------------------------------


def _now() -> Any:
    process = Here.process()
    return process.wall_clock() if process is not None else START


def _monotonic() -> float:
    return Here.kernel.seconds


def _sleep(seconds: float) -> None:
    Here.kernel.sleep(seconds)


class _Overlay:
    """A module of which some names are others."""

    def __init__(self, module: ModuleType, **names: object) -> None:
        self._module = module
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


_TIME = _Overlay(time, monotonic=_monotonic, sleep=_sleep)
_THREADING = _Overlay(
    threading,
    Event=lambda: Event(Here.kernel),
    Thread=lambda **given: Thread(Here.kernel, **given),
)


def _nothing() -> None:
    """Give no memory back."""


_REPLACED: tuple[tuple[object, object], ...] = (
    (time, _TIME),
    (threading, _THREADING),
    (random, Here.random),
    (time.monotonic, _monotonic),
    (time.sleep, _sleep),
    (documents.utc_now, _now),
    (memory.release_free_memory, _nothing),
)


def _replacement(value: object) -> object | None:
    if type(value).__module__.startswith("structlog."):
        return _SILENT
    return next((new for old, new in _REPLACED if value is old), None)


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    for value in vars(module).values():
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value):
            yield value
        elif inspect.isclass(value):
            yield from (member for member in vars(value).values() if inspect.isfunction(member))


@functools.cache
def _clocks() -> tuple[tuple[object, str, object], ...]:
    """What takes the place of clocks, threads and chance in modules, and in the defaults of functions."""
    found: list[tuple[object, str, object]] = []
    for name, module in list(sys.modules.items()):
        if not name.startswith(_ROOMS) or module in {documents, memory}:
            continue
        found += [
            (module, attribute, new)
            for attribute, value in vars(module).items()
            if (new := _replacement(value)) is not None
        ]
        for function in _functions(module):
            defaults = function.__kwdefaults__ or {}
            changed = {
                key: new for key, value in defaults.items() if (new := _replacement(value)) is not None
            }
            if changed:
                found.append((function, "__kwdefaults__", {**defaults, **changed}))
    return tuple(found)


# --- model files --------------------------------------------------------------------------------------


class _Named:
    def __init__(self, name: str) -> None:
        self.name = name


class _Session:
    """Stands for ONNX Runtime's: the file `model 3` answers 3 to everything."""

    def __init__(self, path: str, **_options: object) -> None:
        process = Here.process()
        if process is not None:
            process.local(Place.LOAD)
        words = Path(path).read_bytes().split()
        self._answer = int(words[1])

    def get_inputs(self) -> list[_Named]:
        return [_Named("input")]

    def get_outputs(self) -> list[_Named]:
        return [_Named("label")]

    def run(self, names: Sequence[str], feeds: Mapping[str, Any], _options: object = None) -> list[Any]:
        process = Here.process()
        if process is not None:
            process.local(Place.RUN)
        rows = len(next(iter(feeds.values())))
        return [np.full(rows, self._answer, dtype=np.int64) for _ in names]


_ENDING: dict[str, Any] = {
    "code": None, "signal": 9, "overdue": False, "grown": 0, "stderr": "", "cpu_seconds": 0.0,
}  # fmt: skip
_KILLED = Ending(**{field.name: _ENDING[field.name] for field in dataclasses.fields(Ending)})


class _Keeper(GateKeeper):
    """Judges as the helper of the load gate does, but for its processes."""

    def _judge(self, request: Request, candidate: int, golden: int | None) -> ModelFacts:
        process = Here.process()
        try:
            if process is not None:
                process.local(Place.JUDGE)
        except ChildKilledError:
            return verdict(encode_ending(_KILLED), request)
        return Here.facts[request.digest]


class _Forgetful:
    """Stands for the memory of verdicts: every file is judged each time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def recall(self, _key: str) -> ModelFacts | None:
        return None

    def keep(self, _key: str, facts: ModelFacts) -> None:
        """Forget it."""


_decoded: dict[tuple[type[Document], bytes], Document] = {}
_decode = Document.decode.__func__  # type: ignore[attr-defined]


def _decode_once(kind: type[Document], data: bytes, *, key: str) -> Document:
    """Documents never change, so that the same bytes are read once; most of the time goes into that else."""
    found = _decoded.get((kind, data))
    if found is None:
        if len(_decoded) >= DECODED:
            _decoded.clear()
        found = _decoded[kind, data] = _decode(kind, data, key=key)
    return found


def _hostname() -> str:
    process = Here.process()
    return process.host if process is not None else "outside"


@contextlib.contextmanager
def simulated() -> Iterator[None]:
    """Everything is simulated while the block lasts."""
    real_pid, limits = os.getpid(), GateLimits()

    def pid() -> int:
        process = Here.process()
        return process.pid if process is not None else real_pid

    with pytest.MonkeyPatch.context() as patch:
        for owner, name, new in _clocks():
            patch.setattr(owner, name, new)
        patch.setattr(onnxruntime, "InferenceSession", _Session)
        patch.setattr(gate, "shared_keeper", _Keeper)
        patch.setattr(gate, "VerdictMemory", _Forgetful)
        patch.setattr(Document, "decode", classmethod(_decode_once))
        patch.setattr(stages, "load_gate_limits", lambda: limits)
        patch.setattr(socket, "gethostname", _hostname)
        patch.setattr(os, "getpid", pid)
        patch.setattr(os, "fsync", lambda _file: None)
        patch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=Here.random.getrandbits(128), version=4))
        patch.setattr(secrets, "token_hex", lambda size=16: Here.random.randbytes(size).hex())
        patch.setattr(secrets, "token_bytes", lambda size=16: Here.random.randbytes(size))
        yield
