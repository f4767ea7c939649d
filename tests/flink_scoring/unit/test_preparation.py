"""A broker that is asked where a job begins: its answers are a list here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import IsolationLevel, OffsetAndMetadata, OffsetSpec, TopicPartition
from kafka.errors import (
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    GroupAuthorizationFailedError,
    KafkaError,
    NoError,
)

from ferryline.flink_scoring import preparation
from ferryline.flink_scoring.positions import StartPositions, TopicOffsets
from ferryline.flink_scoring.preparation import keep_positions, read_offsets
from ferryline.streams.errors import BrokerRefusedError, BrokerUnreachableError

STARTS = [
    StartPositions("t", "g", {0: 7, 1: 40}, frozenset({1}), {}),
    StartPositions("u", "g", {0: 9}, frozenset(), {}),
]


class Broker:
    """Answers as it was told, in turn; an error class is a partition's answer, an error is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.committed: dict[str, int] = {}

    def list_partition_offsets(
        self,
        specs: dict[TopicPartition, OffsetSpec],
        isolation_level: IsolationLevel = IsolationLevel.READ_UNCOMMITTED,
    ) -> dict[TopicPartition, Any]:
        assert not self.answers, "the group is asked about first"
        is_committed = isolation_level is IsolationLevel.READ_COMMITTED
        offsets = {OffsetSpec.EARLIEST: 3, OffsetSpec.LATEST: 8 if is_committed else 9}
        return {part: SimpleNamespace(offset=offsets[spec]) for part, spec in specs.items()}

    def list_group_offsets(self, groups: dict[str, list[TopicPartition]]) -> dict[str, Any]:
        answer = self.answers.pop(0)
        if isinstance(answer, KafkaError):
            raise answer
        return {
            group: {part: OffsetAndMetadata(answer, "", -1) for part in parts}
            for group, parts in groups.items()
        }

    @contextmanager
    def client(self, bootstrap: str) -> Iterator[Broker]:
        try:
            yield self
        except KafkaError as error:
            raise BrokerUnreachableError(bootstrap) from error

    def alter_group_offsets(
        self, group: str, offsets: dict[TopicPartition, Any]
    ) -> dict[TopicPartition, Any]:
        answer = self.answers.pop(0)
        if isinstance(answer, KafkaError):
            raise answer
        if answer is NoError:
            self.committed |= {
                f"{group} {part.topic}-{part.partition}": at.offset for part, at in offsets.items()
            }
        return dict.fromkeys(offsets, answer)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Any:
    def answering(*answers: Any) -> Broker:
        broker = Broker(*answers)
        monkeypatch.setattr(preparation, "admin_client", broker.client)
        return broker

    monkeypatch.setattr(preparation, "_PAUSE", 0)
    monkeypatch.setattr(preparation, "topic_partitions", lambda *_: [0])
    return answering


def test_only_what_the_group_has_no_offset_of_is_committed(asked: Any) -> None:
    broker = asked(NoError)
    keep_positions("broker:9092", STARTS)
    assert broker.committed == {"g t-1": 40}


def test_a_broker_that_has_just_started_is_asked_again(asked: Any) -> None:
    broker = asked(CoordinatorNotAvailableError(), CoordinatorLoadInProgressError, NoError)
    keep_positions("broker:9092", STARTS)
    assert broker.committed == {"g t-1": 40}


def test_a_broker_that_is_never_ready_is_given_up(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "_PATIENCE", -1)
    asked(CoordinatorNotAvailableError())
    with pytest.raises(BrokerUnreachableError):
        keep_positions("broker:9092", STARTS)


def test_a_job_that_may_not_commit_is_submitted_all_the_same(asked: Any) -> None:
    broker = asked(GroupAuthorizationFailedError)
    keep_positions("broker:9092", STARTS)
    assert not broker.committed
    assert not broker.answers


@pytest.mark.parametrize(("answer", "committed"), [(5, {0: 5}), (-1, {})])
def test_what_is_written_is_told_from_what_is_committed(
    asked: Any, answer: int, committed: dict[int, int]
) -> None:
    asked(answer)
    assert read_offsets("broker:9092", "t", "g") == TopicOffsets({0: 3}, {0: 8}, {0: 9}, committed)


def test_a_group_that_may_not_be_asked_about_is_no_broker_that_is_away(asked: Any) -> None:
    asked(GroupAuthorizationFailedError())
    with pytest.raises(BrokerRefusedError, match="rights on topic t and on the consumer group g"):
        read_offsets("broker:9092", "t", "g")
