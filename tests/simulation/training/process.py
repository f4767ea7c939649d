"""One process of the trainer, as `ferry-trainer run` makes it, over the world of a history.

The real `run_trainer` puts the real parts together. What stands for something else: the clients of Kafka, the
store, the state's file, the load gate, the modules `time` and `threading`; and, unless a history is real, the
learner and the export, which would take nearly all of the time.
"""

from __future__ import annotations

import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ferryline.model_runtime.gate import Gate
from ferryline.registry import Registry
from ferryline.registry.documents import GoldenRows, ModelFacts
from ferryline.registry.settings import Settings
from ferryline.streams import kafka
from ferryline.streams.pipeline import Pipeline, parse_pipeline
from ferryline.streams.rejections import Rejection
from ferryline.trainer import candidate, service, source, training
from ferryline.trainer.batches import FetchedBatch
from ferryline.trainer.loop import RunOptions
from ferryline.trainer.metrics import TrainerMetrics
from ferryline.trainer.progress import Progress
from ferryline.trainer.state import Shape, decode_state, encode_state
from ferryline.trainer.state import StateFile as _StateFile
from tests.simulation.training import learning
from tests.simulation.training.fake_admin import admin_client_of
from tests.simulation.training.fake_consumer import FakeConsumer
from tests.simulation.training.lockstep import KilledError, Lockstep
from tests.simulation.training.script import History
from tests.simulation.training.stepped_modules import Event, SteppedThreading, SteppedTime
from tests.simulation.training.truth import TOPIC
from tests.simulation.training.world import MODEL, World
from tests.support.unit_tier import GateInProcess

MAX_DROP = 0.25

_PIPELINE = """
[pipeline]
name = "pipeline"
model = "{model}"
[source]
topic = "{topic}"
start = "{start}"
[source.features]
field = "x"
kind = "array"
size = 2
[source.label]
field = "y"
classes = [0, 1, 2]
[learner]
batch_records = 4
[evaluation]
window = 10
[export]
every_records = 5
every_seconds = 10
min_seconds = 0
parity_rows = 16
[promotion]
mode = "{mode}"
min_records = 0
max_drop = {max_drop}
"""


@dataclass(slots=True)
class Saved:
    """What a state file holds, and what the simulation must know of the same moment."""

    progress: str
    arrays: dict[str, Any]
    rejected: list[tuple[int, str]]
    batches: list[FetchedBatch]
    learnt: list[int]


@dataclass(slots=True)
class Memory:
    """What a process has done; it is lost with the process but for what was saved."""

    rejected: list[tuple[int, str]] = field(default_factory=list)
    batches: list[FetchedBatch] = field(default_factory=list)
    learnt: list[int] = field(default_factory=list)
    given: dict[tuple[int, int], int] = field(default_factory=dict)
    source: Any = None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended: `killed`, `stopped`, or by an error."""

    error: BaseException | None
    killed: bool = False
    died: tuple[BaseException, ...] = ()


def pipeline_of(history: History) -> Pipeline:
    """The pipeline of a history."""
    key = (history.start, history.mode)
    if key not in _PIPELINES:
        text = _PIPELINE.format(
            model=MODEL, topic=TOPIC, start=history.start, mode=history.mode, max_drop=MAX_DROP
        )
        _PIPELINES[key] = parse_pipeline(text, where="simulation")
    return _PIPELINES[key]


_PIPELINES: dict[tuple[str, str], Pipeline] = {}


def run_process(world: World, *, from_scratch: bool = False) -> tuple[Ending, Memory]:
    """Start a trainer and let it run until it ends, or is killed."""
    steps = Lockstep(world.clock, world.choices, world.at_point)
    memory = Memory()
    world.process, world.stop = steps, Event(steps)
    try:
        with _patched(world, steps, memory), warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", RuntimeWarning
            )  # numbers beyond float32 are what some records are for
            try:
                service.run_trainer(
                    pipeline_of(world.history),
                    _settings(),
                    RunOptions(),
                    stop=world.stop,
                    from_scratch=from_scratch,
                )
            except KilledError:
                ending = Ending(None, killed=True)
            except Exception as error:  # noqa: BLE001 - whatever ends a trainer is judged by its kind
                ending = Ending(error, died=tuple(steps.died))
            else:
                ending = Ending(None, died=tuple(steps.died))
            finally:
                steps.end()
    finally:
        world.end_process()
    return ending, memory


@cache
def _settings() -> Settings:
    return Settings.model_construct(kafka="kafka:9092", state=Path("/nowhere"), store="")


@contextmanager
def _patched(world: World, steps: Lockstep, memory: Memory) -> Iterator[None]:
    log = _Log(world)
    changes: list[tuple[Any, str, Any]] = [
        (service, "open_registry", lambda _settings: Registry(world.store, actor="trainer")),
        (service, "structlog", SimpleNamespace(get_logger=lambda: log)),
        (service, "StateFile", partial(_StateInMemory, world, memory)),
        (service, "Training", partial(_WatchedTraining, world, memory)),
        (service, "KafkaSource", partial(_watched, memory, steps, service.KafkaSource)),
        (service, "TrainerMetrics", _metrics),
        (service, "load_gate_limits", lambda: None),
        (service, "Gate", lambda *_limits, **_named: _Gate(world)),
        (source, "KafkaConsumer", partial(_connect, world, steps, memory)),
        (candidate, "export_onnx", partial(_export, world, candidate.export_onnx)),
    ]
    if not world.history.real:
        changes += [
            (training, "Learner", learning.RememberingLearner),
            (candidate, "load_session", lambda _data: None),
            (candidate, "check_parity", lambda *_rows, **_named: learning.PARITY),
            (candidate, "golden_rows", lambda *_rows, **_named: None),
            (candidate, "_FORMS", dict.fromkeys(candidate._FORMS, (lambda estimator: estimator,))),
        ]
    stands = {
        "time": SteppedTime(steps),
        "threading": SteppedThreading(steps),
        "admin_client": admin_client_of(world.broker, steps, world.tick),
    }
    changes += [(module, name, stands[name]) for module, name in _users_of_time_and_threads()]
    before = [(where, name, getattr(where, name)) for where, name, _ in changes]
    for where, name, instead in changes:
        setattr(where, name, instead)
    try:
        yield
    finally:
        for where, name, was in before:
            setattr(where, name, was)


@cache
def _metrics(model: str) -> TrainerMetrics:
    return TrainerMetrics(model)  # nobody reads them here, and making them takes long


@cache
def _users_of_time_and_threads() -> list[tuple[Any, str]]:
    """The modules that name what a simulation must stand for, and the names."""
    real = {"time": time, "threading": threading, "admin_client": kafka.admin_client}
    modules = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("ferryline.trainer.") or name in _TIMED
    ]
    return [(m, name) for m in modules for name, value in real.items() if getattr(m, name, None) is value]


_TIMED = ("ferryline.registry.log", "ferryline.registry.garbage", "ferryline.streams.kafka")


def _connect(world: World, steps: Lockstep, memory: Memory, **config: Any) -> FakeConsumer:
    consumer = FakeConsumer(world.broker, steps, world.tick, partial(_note_given, world, memory), **config)
    world.consumer = consumer
    if world.saved is None:
        world.note_beginnings()
    return consumer


def _note_given(world: World, memory: Memory, partition: int, offset: int, ident: int) -> None:
    world.found_records = True
    memory.given[partition, offset] = ident


def _watched(memory: Memory, steps: Lockstep, make: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    if "clock" in signature(make).parameters:
        stepped = SteppedTime(steps)
        named |= {"clock": stepped.monotonic, "pause": stepped.sleep}
    memory.source = make(*arguments, **named)
    return memory.source


def _export(world: World, real: Callable[..., bytes], estimator: Any, **named: Any) -> bytes:
    world.point("export")
    world.fail_export()
    data = real(estimator, **named) if world.history.real else learning.file_of(estimator)
    world.point("exported")
    return data


class _WatchedTraining(training.Training):
    """The real one; what it was given, and what it rejected, is noted."""

    def __init__(self, world: World, memory: Memory, pipeline: Pipeline) -> None:
        super().__init__(pipeline)
        self._world = world
        self._memory = memory

    def step(self, batch: FetchedBatch) -> list[Rejection]:
        self._world.point("learn")
        rejections = super().step(batch)
        idents = [
            self._memory.given[partition, offset]
            for partition, offset in zip(batch.partitions, batch.offsets, strict=True)
        ]
        refused = {rejection.index: str(rejection.reason) for rejection in rejections}
        self._memory.rejected += [(idents[index], reason) for index, reason in refused.items()]
        self._memory.learnt += [ident for index, ident in enumerate(idents) if index not in refused]
        if self._world.history.real:
            self._memory.batches.append(batch)
        self._world.point("learnt")
        return rejections


class _StateInMemory:
    """As `StateFile`; its bytes are made in a real history only, when a process begins."""

    def __init__(self, world: World, memory: Memory, _folder: Path, pipeline: Pipeline) -> None:
        self.path = Path("/nowhere/pipeline.state")
        self._world = world
        self._memory = memory
        self._shape = Shape.of(pipeline)
        self._failure = partial(_unwritable, self)

    def acquire(self) -> None:
        pass

    def release(self) -> None:
        pass

    def load(self) -> tuple[Progress, dict[str, Any]] | None:
        saved: Saved | None = self._world.saved
        if saved is None:
            return None
        memory = self._memory
        memory.rejected, memory.learnt = list(saved.rejected), list(saved.learnt)
        memory.batches = list(saved.batches)
        progress = Progress.model_validate_json(saved.progress)
        if not self._world.history.real:
            return progress, dict(saved.arrays)
        data = encode_state(self._shape, progress, saved.arrays)
        return decode_state(data, expected=self._shape, where=str(self.path))

    def save(self, progress: Progress, arrays: Any) -> None:
        self._world.point("save")
        self._world.fail_save(self._failure)
        memory = self._memory
        self._world.saved = Saved(
            progress.model_dump_json(),
            {name: np.array(values, copy=True) for name, values in arrays.items()},
            list(memory.rejected),
            list(memory.batches),
            list(memory.learnt),
        )
        self._world.point("saved")


def _unwritable(state: _StateInMemory, error: OSError) -> Exception:
    found: Exception = _StateFile._unwritable(state, error)  # type: ignore[arg-type]
    return found


class _Gate:
    """The edge to the load gate."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._real = Gate(keeper=_SHARED) if world.history.real else None  # type: ignore[arg-type]

    def admit(self, data: bytes, golden: GoldenRows | None = None) -> ModelFacts:
        self._world.point("gate")
        self._world.fail_gate()
        if self._real is None:
            return learning.FACTS
        self._world.facts = self._real.admit(data, golden)
        return self._world.facts


_SHARED = GateInProcess()


class _Log:
    """A structured log."""

    def __init__(self, world: World) -> None:
        self._world = world

    def bind(self, **_fields: Any) -> _Log:
        return self

    def __getattr__(self, level: str) -> Callable[..., None]:
        return lambda event, **fields: self._world.log(level, event, fields)
