"""The simulated Kafka and the threads in lockstep are what the histories rely on them to be."""

from __future__ import annotations

import random
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.errors import KafkaTimeoutError, LogTruncationError, OffsetOutOfRangeError

from tests.simulation.training.fake_consumer import FakeConsumer
from tests.simulation.training.fake_log import Broker, Partition
from tests.simulation.training.lockstep import Clock, KilledError, Lockstep, StuckError
from tests.simulation.training.stepped_modules import SteppedThreading, SteppedTime

PART = TopicPartition("records", 0)


@pytest.fixture
def steps() -> Lockstep:
    return Lockstep(Clock(), random.Random(1))  # noqa: S311


@pytest.fixture
def broker() -> Broker:
    broker = Broker()
    broker.create("records", 1)
    return broker


@pytest.fixture
def log(broker: Broker) -> Partition:
    return broker.topics["records"].partitions[0]


def consumer_of(broker: Broker, steps: Lockstep, policy: str = "none", begin: int | None = 0) -> FakeConsumer:
    consumer = FakeConsumer(
        broker,
        steps,
        lambda: None,
        lambda _partition, _offset, _ident: None,
        auto_offset_reset=policy,
        isolation_level="read_committed",
        group_id="group",
    )
    consumer.assign([PART])
    if begin is not None:
        consumer.seek(PART, begin)
    return consumer


def fill(log: Partition, count: int, transaction: int | None = None) -> None:
    for _ in range(count):
        log.append(log.end + 1, b"{}", 1, transaction)


def read(consumer: FakeConsumer, limit: int = 100) -> list[int]:
    return [record.offset for record in consumer.poll(timeout_ms=100, max_records=limit).get(PART, [])]


def test_a_reader_passes_over_markers_and_aborted_records(
    broker: Broker, log: Partition, steps: Lockstep
) -> None:
    fill(log, 2, transaction=1)
    log.finish(1, commit=True)
    fill(log, 2, transaction=2)
    log.finish(2, commit=False)
    consumer = consumer_of(broker, steps)
    assert read(consumer) == [0, 1]
    assert consumer.position(PART) == 6
    assert consumer.highwater(PART) == 6


def test_an_open_transaction_holds_readers_up(broker: Broker, log: Partition, steps: Lockstep) -> None:
    fill(log, 1)
    fill(log, 1, transaction=1)
    fill(log, 1)
    consumer = consumer_of(broker, steps)
    assert read(consumer) == [0]
    assert consumer.end_offsets([PART]) == {PART: 1}
    assert consumer.highwater(PART) == 3
    log.finish(1, commit=True)
    assert read(consumer) == [1, 2]


def test_a_log_that_is_cut_back_is_noticed_by_the_epoch_of_what_was_read(
    broker: Broker, log: Partition, steps: Lockstep
) -> None:
    fill(log, 4)
    consumer = consumer_of(broker, steps)
    assert read(consumer) == [0, 1, 2, 3]
    log.truncate(2)
    fill(log, 5)
    with pytest.raises(LogTruncationError) as raised:
        read(consumer)
    assert raised.value.divergent_offsets[PART].offset == 2


def test_a_policy_goes_silently_to_where_the_logs_part(
    broker: Broker, log: Partition, steps: Lockstep
) -> None:
    fill(log, 4)
    consumer = consumer_of(broker, steps, "earliest")
    assert read(consumer) == [0, 1, 2, 3]
    log.truncate(2)
    fill(log, 1)
    assert read(consumer) == []
    assert read(consumer) == [2]


@pytest.mark.parametrize("begin", [0, 9])
def test_an_offset_out_of_range_raises_without_a_policy(
    broker: Broker, log: Partition, steps: Lockstep, begin: int
) -> None:
    fill(log, 4)
    log.retain_from(2)
    with pytest.raises(OffsetOutOfRangeError):
        read(consumer_of(broker, steps, begin=begin))


@pytest.mark.parametrize("begin", [0, 9])
def test_an_offset_out_of_range_begins_anew_with_a_policy(
    broker: Broker, log: Partition, steps: Lockstep, begin: int
) -> None:
    fill(log, 4)
    log.retain_from(2)
    consumer = consumer_of(broker, steps, "earliest", begin)
    assert read(consumer) == []
    assert read(consumer) == [2, 3]


def test_without_a_seek_the_groups_offset_counts(broker: Broker, log: Partition, steps: Lockstep) -> None:
    fill(log, 4)
    broker.committed["records", 0] = 3
    assert read(consumer_of(broker, steps, "earliest", None)) == [3]


def test_a_topic_made_anew_is_known_before_it_is_read(
    broker: Broker, log: Partition, steps: Lockstep
) -> None:
    fill(log, 4)
    consumer = consumer_of(broker, steps)
    assert read(consumer) == [0, 1, 2, 3]
    before = consumer._cluster.topic_id("records")
    broker.delete("records")
    fill(broker.create("records", 1).partitions[0], 9)
    assert read(consumer) == []
    assert consumer._cluster.topic_id("records") != before


def test_metadata_is_as_old_as_its_last_refresh(broker: Broker, steps: Lockstep) -> None:
    consumer = consumer_of(broker, steps)
    broker.topics["records"].partitions.append(Partition())
    assert consumer.partitions_for_topic("records") == {0}
    assert consumer._max_age == 300
    steps.clock.now += 301
    read(consumer)
    assert consumer.partitions_for_topic("records") == {0, 1}


def test_a_broker_that_is_away_answers_nothing(broker: Broker, log: Partition, steps: Lockstep) -> None:
    fill(log, 1)
    consumer = consumer_of(broker, steps)
    broker.down = True
    assert read(consumer) == []
    with pytest.raises(KafkaTimeoutError):
        consumer.end_offsets([PART])


def test_compaction_leaves_the_newest_offset(log: Partition) -> None:
    fill(log, 3)
    assert [entry.offset for entry in log.compact([0, 1, 2])] == [0, 1]
    assert log.end == 3


# --- threads in lockstep ----------------------------------------------------------------------------


def test_a_thread_waits_for_a_condition_and_the_clock_jumps(steps: Lockstep) -> None:
    threads, clock = SteppedThreading(steps), SteppedTime(steps)
    changed, seen = threads.Condition(), []

    def run() -> None:
        with changed:
            seen.append(changed.wait_for(lambda: "news" in seen, 60))

    thread = threads.Thread(target=run)
    thread.start()
    clock.sleep(10)
    seen.append("news")
    began = clock.monotonic()
    thread.join()
    assert seen == ["news", True]
    assert clock.monotonic() == began


def test_a_deadline_passes_in_no_time(steps: Lockstep) -> None:
    began = steps.clock.now
    assert not SteppedThreading(steps).Event().wait(3600)
    assert steps.clock.now == began + 3600


def test_what_ends_a_thread_is_kept(steps: Lockstep) -> None:
    def run() -> None:
        raise OSError("full")

    thread = SteppedThreading(steps).Thread(target=run)
    thread.start()
    thread.join()
    assert [repr(error) for error in steps.died] == ["OSError('full')"]


def test_a_kill_ends_every_thread_where_it_is(steps: Lockstep) -> None:
    threads, after = SteppedThreading(steps), []

    def run() -> None:
        threads.Event().wait()
        after.append("the wait")

    thread = threads.Thread(target=run)
    thread.start()
    SteppedTime(steps).sleep(1)
    steps.killed = True
    with pytest.raises(KilledError):
        steps.point("anything")
    steps.end()
    assert not thread.is_alive()
    assert after == []


def test_threads_that_wait_for_nothing_are_told(steps: Lockstep) -> None:
    with pytest.raises(StuckError):
        SteppedThreading(steps).Event().wait()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_order_of_threads_is_that_of_the_seed(seed: int) -> None:
    def order() -> list[Any]:
        steps, seen = Lockstep(Clock(), random.Random(seed)), []  # noqa: S311
        threads = SteppedThreading(steps)

        def run(name: str) -> None:
            for number in range(20):
                steps.point("step")
                seen.append((name, number))

        made = [threads.Thread(target=run, args=(name,)) for name in "abc"]
        for thread in made:
            thread.start()
        for thread in made:
            thread.join()
        return seen

    assert order() == order()
