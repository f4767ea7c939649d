"""The loop over a topic in memory, with a state file and a publisher that keeps what it is given."""

from __future__ import annotations

import errno
import threading
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest

from ferryline.streams.pipeline import Pipeline, parse_pipeline
from ferryline.trainer import loop as loop_module
from ferryline.trainer.candidate import ExportedModel, export_candidate
from ferryline.trainer.errors import PublisherEndedError, PublishTimeoutError
from ferryline.trainer.loop import RunOptions, TrainerLoop
from ferryline.trainer.metrics import TrainerMetrics
from ferryline.trainer.progress import Progress
from ferryline.trainer.state import StateFile
from ferryline.trainer.training import Training
from tests.support.pipelines import MINIMAL
from tests.trainer.fake_kafka import FakeConsumer, FakeTopic, Reader, pair

PAIRS = parse_pipeline(MINIMAL + "[learner]\nbatch_records = 10\n", where="test")


class KeptModels:
    """A publisher that publishes at once."""

    def __init__(self) -> None:
        self.models: list[ExportedModel] = []
        self.ended: Exception | None = None
        self.published: tuple[int, int] | None = None

    def start(self) -> None: ...

    def stop(self, timeout: float) -> None: ...

    def drain(self, timeout: float) -> bool:
        return True

    def require_alive(self) -> None:
        if self.ended:
            raise self.ended

    def submit(self, model: ExportedModel) -> None:
        self.models.append(model)
        self.published = (len(self.models), model.records)


class Bench:
    """One trainer after the other on one topic and one state."""

    def __init__(self, folder: Path, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.topic = FakeTopic()
        self.state = StateFile(folder, pipeline)
        self.metrics = TrainerMetrics("m")
        self.publisher = KeptModels()

    def run(self, until: int) -> Reader:
        training = Training(self.pipeline)
        found = self.state.load()
        if found:
            training.restore(*found)
        reader = Reader(self.topic, self.pipeline.source)
        TrainerLoop(
            training,
            reader.source,
            self.publisher,  # type: ignore[arg-type]
            self.state,
            self.metrics,
            RunOptions(until_records=until),
            stop=threading.Event(),
            log=reader.log,
        ).run()
        return reader

    def saved(self) -> tuple[dict[int, int], int, int]:
        """Offsets, records counted, and records that the learner has seen."""
        found = self.state.load()
        assert found is not None
        progress, arrays = found
        return progress.next, progress.records, int(arrays.get("learner.scaler.n_samples_seen_", 0))

    def count(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(f"ferry_trainer_{name}_total", {"model": "m"}) or 0.0


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, PAIRS)


def records(count: int) -> list[bytes]:
    return [pair(number % 2, number % 7, number % 2) for number in range(count)]


def test_a_time_beyond_the_calendar_ends_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.trainer import fake_kafka

    monkeypatch.setattr(fake_kafka, "TIMESTAMP", 1_767_225_600_000_000)
    bench.topic.append(records(20))
    reader = bench.run(20)
    assert bench.saved() == ({0: 20}, 0, 0)
    assert {fields["reason"] for fields in reader.log.named("record_rejected")} == {"bad_event_time"}


def test_a_step_that_fails_is_not_saved_by_half(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.topic.append(records(20))
    bench.run(20)

    def fail(*_arguments: object, **_options: object) -> None:
        raise TypeError("a bug in the middle of a step")

    bench.topic.append(records(20))
    for _ in range(3):
        with monkeypatch.context() as patch:
            patch.setattr("ferryline.trainer.progress.Progress.advanced", fail)
            with pytest.raises(TypeError):
                bench.run(40)
        assert bench.saved() == ({0: 20}, 20, 20)
    bench.run(40)
    assert bench.saved() == ({0: 40}, 40, 40)


def test_a_place_is_saved_with_the_topics_id_before_anything_is_learnt(bench: Bench) -> None:
    bench.publisher.ended = PublisherEndedError("gone")
    with pytest.raises(PublisherEndedError):
        bench.run(20)
    found = bench.state.load()
    assert found is not None
    assert bench.topic.id is not None
    assert found[0].placement.topic_id == bench.topic.id.hex
    assert found[0].next == {0: 0}


def test_a_topic_made_anew_is_learnt_whole_and_said_in_the_lineage(bench: Bench) -> None:
    bench.topic.append(records(30))
    bench.run(30)
    first = bench.topic.id
    bench.topic.make_anew()
    bench.topic.append(records(50))
    reader = bench.run(80)
    assert bench.saved() == ({0: 50}, 80, 80)
    assert reader.log.names().count("topic_made_anew") == 1
    lineage = bench.publisher.models[-1].training.lineage
    assert lineage is not None
    assert first is not None
    assert bench.topic.id is not None
    assert [(part.topic_id, part.first, part.end) for part in lineage.past] == [(first.hex, 0, 30)]
    assert (lineage.topic_id, lineage.offsets[0].end) == (bench.topic.id.hex, 50)


def test_what_changes_while_it_runs_is_placed_and_saved(bench: Bench) -> None:
    bench.topic.append(records(30))
    poll, first = FakeConsumer.poll, bench.topic.id

    def change(consumer: FakeConsumer, **options: int) -> Any:
        found = poll(consumer, **options)
        if not found and bench.topic.id == first:
            bench.topic.make_anew(partitions=2)
            bench.topic.append(records(50), 1)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeConsumer, "poll", change)
        bench.run(80)
    assert bench.topic.id != first
    assert bench.saved() == ({0: 0, 1: 50}, 80, 80)


class Failing:
    """Does what `function` does, but fails the first times."""

    def __init__(self, function: Any, times: int, error: Exception) -> None:
        self.function = function
        self.left = times
        self.error = error

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if self.left:
            self.left -= 1
            raise self.error
        return self.function(*arguments, **options)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EMFILE, "Too many open files")], ids=repr)
def test_a_step_that_the_machine_lets_fail_is_done_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(loop_module, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(Progress, "advanced", partialmethod(Failing(Progress.advanced, 2, error)))
    bench.topic.append(records(20))
    reader = bench.run(20)
    assert bench.saved() == ({0: 20}, 20, 20)
    assert [fields["retry_in_seconds"] for fields in reader.log.named("step_failed")] == [0.001, 0.002]


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), MemoryError(), TypeError("a bug")],
    ids=["disk", "memory", "bug"],
)
def test_an_export_that_fails_is_tried_again_and_learning_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("ferryline.trainer.schedule.FIRST_PAUSE", 0.001)
    monkeypatch.setattr(loop_module, "_POLL", 0.001)
    monkeypatch.setattr(loop_module, "export_candidate", Failing(export_candidate, 3, error))
    bench.topic.append(records(40))
    reader = bench.run(40)
    assert bench.saved() == ({0: 40}, 40, 40)
    assert [model.records for model in bench.publisher.models] == [40]
    assert bench.count("export_failures") == 3
    told = reader.log.named("export_failed")
    assert [fields["retry_in_seconds"] for fields in told] == [0.001, 0.002, 0.004]
    assert ("exc_info" in told[0]) is isinstance(error, TypeError)


def test_a_last_export_that_fails_to_the_end_blames_no_store(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "_LAST_PUBLISH", 0)
    monkeypatch.setattr(loop_module, "export_candidate", Failing(export_candidate, 99, TypeError("a bug")))
    bench.topic.append(records(20))
    with pytest.raises(PublishTimeoutError, match="its export fails, as the log says") as caught:
        bench.run(20)
    assert "store" not in str(caught.value)
    assert bench.saved() == ({0: 20}, 20, 20)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), MemoryError()], ids=["disk", "memory"]
)
def test_a_state_that_cannot_be_saved_holds_the_version_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("ferryline.trainer.schedule.FIRST_PAUSE", 0.001)
    monkeypatch.setattr(loop_module, "_POLL", 0.001)
    bench.topic.append(records(40))
    bench.run(20)
    replace, saves = StateFile._replace, iter([False, True, True])

    def sometimes(self: StateFile, data: bytes) -> None:
        if next(saves, False):
            assert len(bench.publisher.models) == 1
            raise error
        replace(self, data)

    monkeypatch.setattr(StateFile, "_replace", sometimes)
    reader = bench.run(40)
    assert bench.saved() == ({0: 40}, 40, 40)
    assert [model.records for model in bench.publisher.models] == [20, 40]
    assert len(reader.log.named("state_unsaved")) == 2
    assert bench.count("export_failures") == 2


def test_a_publisher_that_ended_ends_the_trainer_and_the_state_is_saved(bench: Bench) -> None:
    bench.topic.append(records(20))
    bench.run(20)
    bench.publisher.ended = PublisherEndedError("the publisher thread ended")
    with pytest.raises(PublisherEndedError):
        bench.run(40)
    assert bench.saved() == ({0: 20}, 20, 20)
