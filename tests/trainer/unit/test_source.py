"""What the edge to Kafka makes of a topic that changes while it is read."""

from __future__ import annotations

from collections import Counter

import pytest

from ferryline.streams.errors import BrokerUnreachableError
from ferryline.streams.pipeline import Pipeline
from ferryline.trainer.batches import FetchedBatch
from ferryline.trainer.errors import OffsetsLostError
from ferryline.trainer.positions import Placement
from ferryline.trainer.progress import Progress
from tests.trainer.fake_kafka import FakeTopic, Reader


def values(prefix: str, count: int) -> list[bytes]:
    return [f"{prefix}{number}".encode() for number in range(count)]


class Learned:
    """Reads a topic as the trainer does, and keeps what it would have learnt."""

    def __init__(self, reader: Reader, progress: Progress | None = None) -> None:
        self.reader = reader
        self.progress = progress or Progress()
        self.records: list[bytes | None] = []
        self.progress = self.progress.placed(
            reader.source.open(self.progress.placement, left=self.progress.left_topics)
        )

    def read(self, polls: int = 8, *, limit: int = 1000) -> list[bytes | None]:
        before = len(self.records)
        for _ in range(polls):
            found = self.reader.source.poll(timeout=0.2, limit=limit)
            if isinstance(found, Placement):
                self.progress = self.progress.placed(found)
            elif isinstance(found, FetchedBatch):
                self.records += found.values
                self.progress = self.progress.advanced(
                    learnt=len(found), skipped=Counter(), offsets=found.next_offsets, newest=None
                )
        return self.records[before:]

    def ranges(self) -> list[tuple[int, int, int]]:
        lineage = self.progress.lineage("t")
        for part in (*lineage.past, *lineage.offsets):
            assert part.first <= part.end
        return [(part.partition, part.first, part.end) for part in (*lineage.past, *lineage.offsets)]


@pytest.fixture
def topic() -> FakeTopic:
    return FakeTopic()


@pytest.fixture
def reader(topic: FakeTopic, digits: Pipeline) -> Reader:
    return Reader(topic, digits.source)


def again(reader: Reader, learned: Learned) -> Learned:
    """A trainer that goes on where another one ended."""
    return Learned(Reader(reader.topic, reader.spec), learned.progress)


def test_a_first_start_knows_the_topic_by_its_id(topic: FakeTopic, reader: Reader) -> None:
    topic.append(values("a", 3))
    learned = Learned(reader)
    assert topic.id is not None
    assert (learned.progress.topic_id, learned.progress.next) == (topic.id.hex, {0: 0})
    assert learned.read() == values("a", 3)
    assert learned.progress.lineage("t").topic_id == topic.id.hex


def test_the_latest_is_resolved_at_the_first_start_and_kept(topic: FakeTopic, digits: Pipeline) -> None:
    topic.append(values("before", 3))
    reader = Reader(topic, digits.source.model_copy(update={"start": "latest"}))
    learned = Learned(reader)
    topic.append(values("idle", 2))  # it ends before it read anything
    assert again(reader, learned).read() == values("idle", 2)


def test_a_partition_that_is_added_is_read_from_its_beginning(topic: FakeTopic, digits: Pipeline) -> None:
    reader = Reader(topic, digits.source.model_copy(update={"start": "latest"}))
    learned = Learned(reader)
    topic.append(values("a", 3))
    assert learned.read() == values("a", 3)
    number = topic.add_partition()
    topic.append(values("b", 1000), number)
    assert learned.read() == values("b", 1000)
    assert [fields["partition"] for fields in reader.log.named("partition_added")] == [1]
    assert learned.ranges() == [(0, 0, 3), (1, 0, 1000)]


def test_the_lag_counts_a_partition_from_the_moment_it_is_found(topic: FakeTopic, reader: Reader) -> None:
    learned = Learned(reader)
    assert reader.source.lag() == 0
    topic.append(values("b", 1000), topic.add_partition())
    learned.read(1)
    assert reader.source.lag() == 1000
    learned.read()
    assert reader.source.lag() == 0


@pytest.mark.parametrize("count", [2, 5000], ids=["shorter", "longer"])
def test_a_topic_made_anew_while_it_is_read_is_read_whole(
    topic: FakeTopic, reader: Reader, count: int
) -> None:
    topic.append(values("old", 3000))
    learned = Learned(reader)
    learned.read()
    topic.make_anew()
    topic.append(values("new", count))
    assert learned.read(limit=1000) == values("new", count)
    assert [fields["had_read"] for fields in reader.log.named("topic_made_anew")] == [{0: 3000}]
    assert learned.ranges() == [(0, 0, 3000), (0, 0, count)]
    assert topic.id is not None
    assert learned.progress.topic_id == topic.id.hex


@pytest.mark.parametrize("count", [2, 5000], ids=["shorter", "longer"])
def test_a_topic_made_anew_while_no_trainer_ran_is_read_whole(
    topic: FakeTopic, reader: Reader, count: int
) -> None:
    topic.append(values("old", 3000))
    learned = Learned(reader)
    learned.read()
    topic.make_anew(partitions=2)
    topic.append(values("new", count), 1)
    after = again(reader, learned)
    assert after.read() == values("new", count)
    assert after.reader.log.names() == ["topic_made_anew"]


def test_a_topic_that_goes_and_comes_again_is_waited_for(topic: FakeTopic, reader: Reader) -> None:
    topic.append(values("old", 30))
    learned = Learned(reader)
    learned.read()
    topic.there = False
    topic.make_anew()
    assert learned.read(20) == []
    topic.there = True
    topic.append(values("new", 40))
    assert learned.read() == values("new", 40)


def test_the_lag_is_told_while_a_topic_made_anew_is_not_ready(topic: FakeTopic, digits: Pipeline) -> None:
    topic.add_partition()
    reader = Reader(topic, digits.source)
    learned = Learned(reader)
    topic.append(values("old", 30), 1)
    learned.read()
    topic.make_anew(partitions=1)
    topic.append(values("new", 40))
    with reader.answering(topic.described()):
        reader.consumer.truncated = dict.fromkeys(reader.consumer._at)
        topic.there = False  # its leader does not answer yet
        assert learned.read(2) == []
        assert reader.source.lag() >= 0
        topic.there = True
    assert learned.read() == values("new", 40)


def test_a_topic_that_is_gone_is_said_to_be(topic: FakeTopic, reader: Reader) -> None:
    learned = Learned(reader)
    topic.there = False
    reader.wait(10)
    learned.read(1)
    assert "has no topic" in reader.log.named("kafka_unreachable")[-1]["cause"]


def test_an_outage_is_told_each_two_seconds_and_not_at_each_poll(topic: FakeTopic, reader: Reader) -> None:
    learned = Learned(reader)
    reader.down = True
    topic.add_partition()
    learned.read(50)  # of 0.2 seconds
    assert reader.now == pytest.approx(10)
    assert len(reader.log.named("kafka_unreachable")) == 5


def test_a_broker_that_is_late_does_not_lead_back_to_the_former_topic(
    topic: FakeTopic, reader: Reader
) -> None:
    former = topic.id
    topic.append(values("old", 30))
    learned = Learned(reader)
    learned.read()
    topic.make_anew()
    topic.append(values("new", 40))
    learned.read()
    present, topic.id = topic.id, former
    assert learned.read() == []
    topic.id = present
    assert learned.read() == []


def test_a_broker_that_is_late_at_a_restart_is_asked_again(topic: FakeTopic, reader: Reader) -> None:
    former = topic.id
    topic.append(values("old", 30))
    learned = Learned(reader)
    learned.read()
    topic.make_anew()
    topic.append(values("new", 40))
    learned.read()
    topic.id, present = former, topic.id
    with pytest.raises(BrokerUnreachableError, match="as it was before"):
        again(reader, learned)
    topic.id = present
    assert again(reader, learned).read() == []


def test_a_late_answer_about_the_topic_is_not_believed(topic: FakeTopic, reader: Reader) -> None:
    topic.append(values("old", 30))
    learned = Learned(reader)
    learned.read()
    former = topic.described()
    topic.make_anew()
    topic.append(values("new", 40))
    learned.read()
    topic.remove_before(60)
    topic.end[0] = 60
    topic.append(values("newer", 2))
    with reader.answering(former):
        assert learned.read(3) == []
    assert "as it was before" in reader.log.named("kafka_unreachable")[0]["cause"]
    assert learned.read() == values("newer", 2)


def test_a_broker_that_shows_fewer_partitions_is_late(topic: FakeTopic, digits: Pipeline) -> None:
    topic.add_partition()
    progress = Progress().placed(Placement(topic.described().id, {0: 0, 1: 0, 2: 0}))
    reader = Reader(topic, digits.source)
    with pytest.raises(BrokerUnreachableError, match="as it was before"):
        Learned(reader, progress)
    assert reader.consumer.closed


def test_a_log_that_was_cut_is_learnt_on_and_not_again(topic: FakeTopic, reader: Reader) -> None:
    topic.remove_before(1000)
    topic.end[0] = 1000
    learned = Learned(reader)
    topic.append(values("a", 100))
    learned.read()
    topic.first[0] = 0
    topic.cut(200)
    assert learned.read() == []
    topic.append(values("b", 5))
    assert learned.read() == values("b", 5)
    told = reader.log.named("records_cut")
    assert [(fields["had_read_up_to"], fields["goes_on_at"]) for fields in told] == [(1100, 200)]
    assert learned.ranges() == [(0, 1000, 1100), (0, 200, 205)]


def test_records_that_the_broker_replaced_are_learnt(topic: FakeTopic, reader: Reader) -> None:
    topic.append(values("a", 10))
    learned = Learned(reader)
    learned.read()
    topic.cut(7)
    topic.append(values("b", 9))
    [part] = reader.consumer._at
    reader.consumer.truncated = {part: 7}
    assert learned.read() == values("b", 9)
    assert learned.ranges() == [(0, 0, 10), (0, 7, 16)]


def test_records_that_the_broker_replaced_unawares_are_told(topic: FakeTopic, reader: Reader) -> None:
    topic.append(values("a", 10))
    learned = Learned(reader)
    learned.read()
    [part] = reader.consumer._at
    reader.consumer.truncated = {part: None}
    assert learned.read() == []
    assert [fields["goes_on_at"] for fields in reader.log.named("records_replaced")] == [10]


def test_a_client_that_goes_back_by_itself_is_brought_forward(topic: FakeTopic, reader: Reader) -> None:
    topic.append(values("a", 10))
    learned = Learned(reader)
    learned.read()
    [part] = reader.consumer._at
    reader.consumer.seek(part, 0)
    topic.append(values("b", 2))
    assert learned.read() == values("b", 2)


def test_what_was_not_taken_is_fetched_again_after_an_outage(topic: FakeTopic, reader: Reader) -> None:
    learned = Learned(reader)
    topic.append(values("a", 10))
    reader.down = True
    topic.add_partition()
    assert learned.read(4) == []
    [part, *_] = reader.consumer._at
    reader.consumer.seek(part, 5)  # whatever the client does meanwhile
    topic.logs.pop(1)  # and whatever its metadata shows
    assert learned.read(1) == []
    topic.add_partition()
    reader.down = False
    assert learned.read() == values("a", 10)


def test_where_the_logs_part_is_kept_over_an_outage(topic: FakeTopic, reader: Reader) -> None:
    topic.append(values("a", 10))
    learned = Learned(reader)
    learned.read()
    topic.cut(7)
    topic.append(values("b", 9))
    [part] = reader.consumer._at
    reader.consumer.truncated = {part: 7}
    reader.down = True
    assert learned.read(3) == []
    reader.down = False
    assert learned.read() == values("b", 9)


def test_what_retention_took_is_told_with_its_number(topic: FakeTopic, reader: Reader) -> None:
    topic.append(values("a", 100))
    learned = Learned(reader)
    learned.read(1, limit=10)
    topic.remove_before(40)
    assert len(learned.read()) == 60
    told = reader.log.named("records_gone")
    assert [(fields["expected"], fields["found"], fields["at_most"]) for fields in told] == [(10, 40, 30)]


def test_aborted_records_and_markers_are_not_gone(topic: FakeTopic, reader: Reader) -> None:
    topic.append(values("a", 1))
    topic.abort(11)
    topic.append(values("b", 1))
    learned = Learned(reader)
    assert len(learned.read()) == 2
    assert reader.log.events == []


def test_an_older_state_takes_the_id_of_the_topic_it_finds(topic: FakeTopic, reader: Reader) -> None:
    topic.append(values("a", 5))
    learned = Learned(reader, Progress(first={0: 0}, next={0: 3}))
    assert learned.read() == values("a", 5)[3:]
    assert topic.id is not None
    assert learned.progress.topic_id == topic.id.hex
    assert learned.ranges() == [(0, 0, 5)]


@pytest.mark.parametrize("offsets", [{0: 6}, {0: 1, 1: 1}], ids=["beyond its end", "no such partition"])
def test_without_an_id_a_topic_that_does_not_fit_is_refused(
    topic: FakeTopic, reader: Reader, offsets: dict[int, int]
) -> None:
    topic.append(values("a", 5))
    with pytest.raises(OffsetsLostError, match="--from-scratch"):
        Learned(reader, Progress(first=dict.fromkeys(offsets, 0), next=offsets))
    assert reader.consumer.closed


def test_a_broker_without_ids_is_read_as_far_as_offsets_tell(topic: FakeTopic, reader: Reader) -> None:
    topic.id = None
    topic.append(values("a", 5))
    learned = Learned(reader)
    assert learned.read() == values("a", 5)
    assert learned.progress.lineage("t").topic_id is None
    topic.make_anew()
    with pytest.raises(OffsetsLostError, match="made anew or cut"):
        learned.read()


def test_a_broker_without_ids_that_shows_fewer_partitions_is_not_taken_for_late(
    topic: FakeTopic, reader: Reader
) -> None:
    topic.id = None
    with pytest.raises(OffsetsLostError, match=r"partitions \[1\] of .* are not there"):
        Learned(reader, Progress(first={0: 0, 1: 0}, next={0: 0, 1: 5}))
